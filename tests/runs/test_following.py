"""How far a reader of a run lags, and what is read for one that does not take what it has."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import orjson

from app.api.stream import EventStream, Frames, StreamLimits, Streams
from app.protocols.view import View
from app.runs.event import NewEvent
from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.model import Admission, Lease, Run
from app.runs.service import FAR_BEHIND_PAGES, RunService, Slice
from app.runs.store import MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Page
from app.storage.memory import MemoryStore
from tests.conformance.harness import COMPLETE, START, SUCCESS, log_of, new_run, spawn, turns, until
from tests.runs.scripted import ScriptedEngine

MANY = 40_000
WINDOW_BYTES = 2 * 1024 * 1024


def token(number: int) -> NewEvent:
    data = {"id": "said-1", "content": f"w{number} ", "role": "assistant"}
    return NewEvent("token", orjson.dumps({"event": "token", "node": "speak", "data": data}))


class MeasuredStore(MemoryStore):
    """Counts what readers were given."""

    given_bytes = 0

    async def read(
        self, run_key: str, *, after: int, max_events: int = MAX_PAGE_EVENTS, max_bytes: int = MAX_PAGE_BYTES
    ) -> Page:
        page = await super().read(run_key, after=after, max_events=max_events, max_bytes=max_bytes)
        self.given_bytes += sum(len(event.text) for event in page.events)
        # as a database gives them: bytes of their own, that nobody else holds
        return page._replace(events=[event._replace(text=bytes(bytearray(event.text))) for event in page.events])


class Scene:
    """A run that the test writes, and whoever follows it."""

    def __init__(self, store: MeasuredStore, service: RunService, run: Run, lease: Lease) -> None:
        self.store = store
        self.service = service
        self.run = run
        self.lease = lease

    async def write(self, count: int) -> None:
        await self.store.append(self.lease, [token(number) for number in range(count)])

    async def end(self) -> None:
        await self.store.finish(self.lease, [COMPLETE], SUCCESS)

    def stream(self, streams: Streams) -> EventStream:
        """A response that gives the run's log to a reader, in a seat of its own."""
        frames = Frames(
            follow=lambda patience: self.service.follow(self.run, after=0, patience=patience),
            streams=streams,
            view_of=lambda run: View(),
            dialect="eventsource",
            heartbeat_seconds=60,
            until=anyio.sleep_forever,
            seat=streams.take(None),
        )
        return EventStream(frames, headers={})


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    store = MeasuredStore()
    engine = ScriptedEngine(lambda put: asyncio.sleep(0))
    executor = RunExecutor(store, engine, ExecutorLimits(disconnect_grace_seconds=60), durable=False)
    service = RunService(store, engine, executor, worker="w", admission=Admission(max_active=9))
    accepted = await store.accept(new_run(), worker="w", start=START, admission=Admission(max_active=9))
    assert accepted.lease is not None
    yield Scene(store, service, accepted.run, accepted.lease)
    await store.aclose()


async def rest_of(slices: AsyncIterator[Slice]) -> list[Slice]:
    return [piece async for piece in slices]


def seqs(slices: list[Slice]) -> list[int]:
    return [event.seq for piece in slices for event in piece.events]


async def lags(count: int, *, from_the_start: bool) -> list[bool]:
    """Of each slice of a run of so many tokens, whether the reader was far behind; the run ends before it reads on."""
    async with scene() as on:
        async with aclosing(on.service.follow(on.run, after=0)) as slices:
            if from_the_start:
                await anext(slices)
            await on.write(count)
            await on.end()
            found = await rest_of(slices)
        assert seqs(found) == list(range(2 if from_the_start else 1, count + 3))
        return [piece.is_behind for piece in found]


def test_a_reader_that_fell_far_behind_is_behind_though_the_run_has_ended_meanwhile() -> None:
    found = asyncio.run(lags(10_000, from_the_start=True))
    assert found == [False] * FAR_BEHIND_PAGES + [True] * (len(found) - FAR_BEHIND_PAGES - 1) + [False]
    assert True in found


def test_one_that_is_a_few_pages_behind_is_not() -> None:
    assert not any(asyncio.run(lags(FAR_BEHIND_PAGES * MAX_PAGE_EVENTS, from_the_start=True)))


def test_a_reader_of_a_finished_run_is_not_behind_however_long_it_is() -> None:
    assert not any(asyncio.run(lags(10_000, from_the_start=False)))


class Stalling:
    """A client's end of an ASGI connection that takes a message only when it is told to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._taken = asyncio.Semaphore(0)
        self.offered = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        return await asyncio.Future()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.bodies.append(message.get("body", b""))
        self.offered.set()
        await self._taken.acquire()

    async def take(self) -> None:
        """Take what is offered, and wait until the next message is."""
        self.offered.clear()
        self._taken.release()
        await until(spawn(self.offered.wait()))


async def cost_of_stalling() -> tuple[int, int, int]:
    """Of a reader that stalls for a run: the bytes that are read for it, what it holds, and the bytes of the log."""
    async with scene() as on:
        client, streams = (
            Stalling(),
            Streams(StreamLimits(max_streams=9, max_streams_per_owner=None, max_stream_seconds=None)),
        )
        reading = spawn(on.stream(streams)({}, client.receive, client.send))
        await until(spawn(client.offered.wait()))
        await client.take()  # the headers; now it is offered the start
        await on.write(MANY)
        before = on.store.given_bytes
        tracemalloc.start()
        await client.take()
        await turns(100)
        growth_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        given = on.store.given_bytes - before
        await on.end()
        log_bytes = sum(len(event.text) for event in await log_of(on.store, on.run.key))
        while b'"complete"' not in client.bodies[-1]:
            await client.take()
        streams.break_off()
        await until(reading)
        texts = [orjson.loads(line[6:]) for line in b"".join(client.bodies).split(b"\n") if line.startswith(b"data: ")]
        said = [frame["data"]["content"] for frame in texts if frame["event"] == "token"]
        assert len(said) <= FAR_BEHIND_PAGES * MAX_PAGE_EVENTS + MANY // 100
        assert "".join(said) == "".join(f"w{number} " for number in range(MANY))
        return given, growth_bytes, log_bytes


def test_for_a_reader_that_stalls_one_page_is_read_and_when_it_wakes_it_gets_the_rest_in_few_frames() -> None:
    given, growth_bytes, log_bytes = asyncio.run(cost_of_stalling())
    assert given <= MAX_PAGE_BYTES
    assert growth_bytes < WINDOW_BYTES < log_bytes
