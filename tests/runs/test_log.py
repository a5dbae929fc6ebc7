"""The writing end of a log: its limits, and what a log that is full still takes."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import cast

import pytest

from app.errors import LeaseLost
from app.runs.event import EventKind, NewEvent
from app.runs.log import LINGER_TURNS, MAX_BATCH, LogLimits, LogWriter
from app.runs.model import Lease
from app.runs.store import Store
from tests.conformance.harness import turns

LEASE = Lease(run_key="/r", thread_key="/t", worker="w", epoch=1, attempt=1, version=1)


class Disk:
    """The one method of a store that a log needs; it writes when it is let, or fails as it is told."""

    def __init__(self) -> None:
        self.batches: list[Sequence[NewEvent]] = []
        self.free = asyncio.Event()
        self.error: Exception | None = None

    def submit(self, lease: Lease, events: Sequence[NewEvent]) -> asyncio.Future[int]:
        return asyncio.ensure_future(self.write(events))  # noqa: TID251 as storage does

    async def write(self, events: Sequence[NewEvent]) -> int:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(events)
        return sum(map(len, self.batches))


def log(disk: Disk, hit: list[str], *, events_before: int = 0, **limits: float) -> LogWriter:
    return LogWriter(
        cast(Store, disk), LEASE, limits=LogLimits(**limits), events_before=events_before, on_full=hit.append
    )


def said(kind: EventKind = "custom", size: int = 100) -> NewEvent:
    return NewEvent(kind, b"x" * size)


def begun(writer: LogWriter) -> "asyncio.Task[None]":
    """Its pump at work."""
    return asyncio.create_task(writer.pump())  # noqa: TID251 as the executor does


async def pumped(writer: LogWriter, disk: Disk) -> None:
    """Let the log write all that it has taken."""
    disk.free.set()
    pump = begun(writer)
    await writer.flush()
    writer.drain()
    await pump


def test_events_of_earlier_attempts_count_and_the_limit_is_told_once() -> None:
    async def scene() -> None:
        hit: list[str] = []
        writer = log(Disk(), hit, max_events=5, events_before=3)
        for _ in range(4):
            writer.put(said())
        assert (writer.count, hit, writer.is_full) == (2, ["run_events"], True)

    asyncio.run(scene())


def test_a_full_log_drops_previews_and_takes_what_is_true() -> None:
    async def scene() -> None:
        hit: list[str] = []
        writer = log(Disk(), hit, max_bytes=250)
        kinds: list[EventKind] = ["token", "custom", "token", "progress", "node", "state", "values", "discard"]
        for kind in kinds:
            writer.put(said(kind))
        assert [event.kind for event in writer.remainder()] == ["token", "custom", "node", "state", "discard"]
        assert hit == ["run_bytes"]

    asyncio.run(scene())


def test_a_log_is_behind_at_half_of_what_may_wait_until_it_is_written() -> None:
    async def scene() -> None:
        hit: list[str] = []
        disk = Disk()
        writer = log(disk, hit, max_waiting_bytes=1000)
        for _ in range(5):
            writer.put(said())
        assert not writer.is_behind
        writer.put(said())
        assert writer.is_behind
        await pumped(writer, disk)
        assert not writer.is_behind
        assert hit == []

    asyncio.run(scene())


def test_what_was_written_makes_room_again() -> None:
    async def scene() -> None:
        hit: list[str] = []
        disk = Disk()
        disk.free.set()
        writer = log(disk, hit, max_waiting_bytes=1000)
        pump = begun(writer)
        for _ in range(5):
            for _ in range(9):
                writer.put(said())
            await writer.flush()
        writer.drain()
        await pump
        assert (writer.count, hit) == (45, [])
        for _ in range(11):
            writer.put(said())
        assert hit == ["waiting_bytes"]

    asyncio.run(scene())


def test_a_flood_is_written_in_order_in_pieces_of_a_bounded_size() -> None:
    async def scene() -> None:
        disk = Disk()
        writer = log(disk, [])
        events = [NewEvent("custom", b"%d" % number) for number in range(2 * MAX_BATCH + 7)]
        for event in events:
            writer.put(event)
        await pumped(writer, disk)
        assert max(map(len, disk.batches)) == MAX_BATCH
        assert [event.text for batch in disk.batches for event in batch] == [event.text for event in events]

    asyncio.run(scene())


def test_what_comes_a_few_turns_apart_is_written_together_in_a_burst_and_each_at_once_otherwise() -> None:
    async def sizes(first: int) -> list[int]:
        disk = Disk()
        disk.free.set()
        writer = log(disk, [])
        pump = begun(writer)
        for _ in range(first):
            writer.put(said())
        await writer.flush()
        for _ in range(10):
            writer.put(said())
            for _ in range(3):
                await asyncio.sleep(0)
        await writer.flush()
        writer.drain()
        await pump
        return [len(batch) for batch in disk.batches]

    assert asyncio.run(sizes(first=2)) == [2, 10]
    assert asyncio.run(sizes(first=1)) == [1] * 11


def test_a_pump_that_is_drained_ends_behind_the_append_under_way_and_leaves_the_rest() -> None:
    async def scene() -> None:
        disk = Disk()
        writer = log(disk, [])
        pump = begun(writer)
        first, rest = said(size=1), said(size=2)
        writer.put(first)
        await turns(5)
        writer.put(rest)
        writer.drain()
        await turns(5)
        assert not pump.done()
        disk.free.set()
        await pump
        assert (disk.batches, writer.remainder()) == ([[first]], [rest])
        writer.put(said(size=3))
        await turns(5)
        assert len(disk.batches) == 1

    asyncio.run(scene())


def test_a_pump_that_has_nothing_to_do_ends_when_it_is_drained_even_if_it_has_not_begun() -> None:
    async def scene(turns_before: int) -> None:
        writer = log(Disk(), [])
        pump = begun(writer)
        await turns(turns_before)
        writer.drain()
        await pump

    asyncio.run(scene(turns_before=0))
    asyncio.run(scene(turns_before=5))


def test_an_append_that_fails_ends_the_pump_and_who_waits_for_it_is_told() -> None:
    async def scene() -> None:
        disk = Disk()
        disk.error = LeaseLost()
        writer = log(disk, [])
        pump = begun(writer)
        writer.put(said())
        flush: asyncio.Task[None] = asyncio.create_task(writer.flush())  # noqa: TID251 as above
        await turns(5)
        disk.free.set()
        for waiting in (pump, flush):
            with pytest.raises(LeaseLost):
                await waiting
        writer.put(said())
        await turns(5)
        assert disk.batches == []

    asyncio.run(scene())


def test_a_pump_that_is_cancelled_appends_no_more() -> None:
    async def scene() -> None:
        disk = Disk()
        writer = log(disk, [])
        pump = begun(writer)
        writer.put(said())
        await turns(5)
        writer.put(said())
        pump.cancel()
        disk.free.set()
        with pytest.raises(asyncio.CancelledError):
            await pump
        writer.put(said())
        await turns(5)
        assert len(disk.batches) == 1

    asyncio.run(scene())


def test_what_is_appended_is_appended_in_the_context_of_the_pump_and_not_in_that_of_who_said_it() -> None:
    speaker: ContextVar[str] = ContextVar("speaker")
    heard: list[str] = []

    async def scene() -> None:
        disk = Disk()
        disk.free.set()
        speaker.set("the executor")
        writer = LogWriter(
            cast(Store, disk),
            LEASE,
            limits=LogLimits(),
            on_append=lambda batch, seconds: heard.append(speaker.get()),
        )
        pump = begun(writer)
        await turns(5)
        speaker.set("a node")
        for _ in range(2):
            writer.put(said())
            writer.put(said())
            await writer.flush()
        writer.drain()
        await pump

    asyncio.run(scene())
    assert heard == ["the executor"] * 2


@pytest.mark.parametrize(("between", "sizes"), [(LINGER_TURNS // 2, [2]), (2 * LINGER_TURNS, [1, 1])])
def test_the_event_of_a_node_takes_along_what_follows_at_once_and_waits_for_nothing_else(
    between: int, sizes: list[int]
) -> None:
    async def scene() -> list[int]:
        disk = Disk()
        disk.free.set()
        writer = log(disk, [])
        pump = begun(writer)
        await turns(5)
        writer.put(said("node"))
        await turns(between)
        writer.put(said("token"))
        await writer.flush()
        writer.drain()
        await pump
        return list(map(len, disk.batches))

    assert asyncio.run(scene()) == sizes


def test_the_event_of_a_node_goes_into_the_end_that_follows_at_once() -> None:
    async def scene() -> None:
        disk = Disk()
        disk.free.set()
        writer = log(disk, [])
        pump = begun(writer)
        await turns(5)
        writer.put(said("node"))
        await turns(LINGER_TURNS // 2)
        writer.drain()
        await pump
        assert [event.kind for event in writer.remainder()] == ["node"]
        assert disk.batches == []

    asyncio.run(scene())


def test_who_waits_for_a_mark_does_not_wait_for_what_is_said_after_it() -> None:
    async def scene() -> None:
        disk = Disk()
        writer = log(disk, [])
        pump = begun(writer)
        writer.put(said("token"))
        await turns(5)
        mark = writer.mark
        writer.put(said("token"))
        all_of_it: asyncio.Task[None] = asyncio.create_task(writer.flush())  # noqa: TID251 as above
        await turns(5)
        disk.free.set()
        disk.free.clear()  # for the one append that waits
        await writer.flush(mark)
        await turns(5)
        assert not all_of_it.done()
        disk.free.set()
        await all_of_it
        writer.drain()
        await pump

    asyncio.run(scene())
