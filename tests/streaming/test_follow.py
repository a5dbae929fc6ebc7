"""Following a thread: several readers, silence, policies, and runs that are over before anybody looks."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.model import Admission
from app.runs.service import RunService, Slice
from app.storage.memory import MemoryStore
from tests.conformance.harness import COMPLETE, START, SUCCESS, new_run, new_thread
from tests.raw_client import EVENTSOURCE, RawExchange, data_of, ended_run, frames_of, get, id_of, new_gate, post
from tests.runs.scripted import ScriptedEngine
from tests.server import RunningServer, events, run, wait_until
from tests.streaming.serving import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("follow") / "data", env={"RUNSTREAM_HEARTBEAT_SECONDS": "0.2"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def thread_of(server: RunningServer) -> str:
    """A thread with a run that is over."""
    thread_id = f"t-{uuid.uuid4()}"
    ended_run(server, graph="steps", input={}, thread_id=thread_id)
    return thread_id


def follow(server: RunningServer, thread_id: str, last_id: str | None = None) -> RawExchange:
    headers = EVENTSOURCE if last_id is None else {**EVENTSOURCE, "Last-Event-ID": last_id}
    return get(server, f"/threads/{thread_id}/runs/stream", headers).read_head()


def of(exchange: RawExchange) -> list[dict[str, Any]]:
    return [data_of(frame) for frame in frames_of(exchange.body)]


def test_two_readers_and_one_that_comes_late_get_the_same_of_the_active_run(server: RunningServer) -> None:
    gate, thread_id = new_gate(server, 1), f"t-{uuid.uuid4()}"
    body = {"graph": "stalls", "input": {"gate": gate, "messages": []}, "thread_id": thread_id}
    with post(server, body) as starter:
        starter.read_frames(2)
        with follow(server, thread_id) as first, follow(server, thread_id) as second:
            first.read_frames(2)
            server.open_gate(gate, 2)
            second.read_frames(3)
            with follow(server, thread_id) as late:
                late.read_frames(3)
                server.open_gate(gate, 3)
                count = len(frames_of(starter.read_all().body))
                bodies = {b"".join(frames_of(reader.read_frames(count).body)) for reader in (first, second, late)}
    assert len(bodies) == 1
    assert of(first) == of(starter)


def test_in_silence_before_between_and_after_runs_heartbeats_come_in_the_dialects_own_form(
    server: RunningServer,
) -> None:
    thread_id = thread_of(server)
    with follow(server, thread_id) as reader:
        for number in range(3):
            pings = reader.body.count(b": ping\n")
            reader.read_until(lambda body, seen=pings: body.count(b": ping\n") >= seen + 2)  # type: ignore[misc]
            ended_run(server, input={}, thread_id=thread_id)
            reader.read_frames(5 * (number + 1))
    assert events(of(reader)) == ["start", "node", "node", "node", "complete"] * 3
    assert b": ping\n\n" not in reader.body


def test_what_happened_while_nobody_looked_is_all_there_afterwards_each_frame_with_its_id(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = thread_of(server)
    seen = run(client, input={}, thread_id=thread_id)
    missed = [run(client, input={}, thread_id=thread_id) for _ in range(3)]
    last_id = f"{seen[0]['run_id']}.3"
    with follow(server, thread_id, last_id) as reader:
        reader.read_frames(2 + 15)
        frames = frames_of(reader.body)
    expected = [(seen[0]["run_id"], frame) for frame in seen[3:]]
    expected += [(frames[0]["run_id"], frame) for frames in missed for frame in frames]
    assert [data_of(frame) for frame in frames] == [frame for _, frame in expected]
    assert [id_of(frame) for frame in frames] == [f"{run_id}.{frame['seq']}" for run_id, frame in expected]


def test_each_run_is_shown_with_the_token_policy_it_was_started_with(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = f"t-{uuid.uuid4()}"
    run(client, graph="talk", message="hi", thread_id=thread_id)
    with follow(server, thread_id) as reader:
        joined = run(client, message="hi", thread_id=thread_id, tokens={"flush": {"count": 100}})
        each = run(client, message="hi", thread_id=thread_id)
        reader.read_frames(len(joined) + len(each))
    assert of(reader) == [*joined, *each]
    assert (len(joined), len(each)) == (4, 13)


def test_what_is_held_back_of_a_message_that_was_cut_comes_before_the_runs_end(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id, gate = f"t-{uuid.uuid4()}", new_gate(server, 2)
    body = {"graph": "stalls", "input": {"gate": gate, "messages": []}, "thread_id": thread_id}
    with post(server, {**body, "tokens": {"flush": {"ms": 60_000}}}) as starter:
        run_id = of(starter.read_frames(1))[0]["run_id"]
        with follow(server, thread_id) as reader:
            wait_until(lambda: client.get(f"/runs/{run_id}").json()["last_seq"] >= 3, "two words are in the log")
            client.post(f"/runs/{run_id}/cancel", params={"wait": True})
            starter.read_all()
            reader.read_frames(3)
    assert of(reader) == of(starter)
    assert [frame.get("data", {}).get("content") for frame in of(reader)] == [None, "one two ", None]


# -- a run that begins and ends before a reader that waits for it gets its turn ---------------------------------------


async def followed(*, earlier: bool) -> list[str]:
    """The kinds of what a reader gets who waits on a thread, when a run was over before he could look."""
    store = MemoryStore()
    engine = ScriptedEngine(lambda put: asyncio.sleep(0))
    executor = RunExecutor(store, engine, ExecutorLimits(disconnect_grace_seconds=60), durable=False)
    service = RunService(store, engine, executor, worker="w", admission=Admission(max_active=10))
    await store.create_thread(new_thread())

    async def over(run_id: str) -> None:
        accepted = await store.accept(new_run(run_id), worker="w", start=START, admission=Admission(max_active=10))
        assert accepted.lease is not None
        await store.finish(accepted.lease, [COMPLETE], SUCCESS)

    if earlier:
        await over("before")

    async def next_piece() -> Slice:
        slices = service.follow_thread("owner", "thread-1", past=None, after=0, patience=lambda: 0.5)
        try:
            return await anext(slices)
        finally:
            await slices.aclose()

    reader = asyncio.get_running_loop().create_task(next_piece())
    for _ in range(10):
        await asyncio.sleep(0)
    await over("missed")
    return [event.kind for event in (await reader).events]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_run_that_is_over_before_a_waiting_reader_gets_its_turn_is_not_missed(earlier: bool) -> None:
    assert asyncio.run(followed(earlier=earlier)) == ["start", "complete"]
