"""A thread's stream: its active run, then the next ones, until the client leaves (wire contract, section 4)."""

import uuid
from collections.abc import Mapping

import httpx
import pytest

from tests.raw_client import (
    DIALECTS,
    EVENTSOURCE,
    RawExchange,
    data_of,
    ended_run,
    frames_of,
    get,
    id_of,
    new_gate,
    open_streams,
    post,
    run_id_of,
    uncut,
)
from tests.server import RunningServer, problem_of, run, wait_until


def new_thread() -> str:
    return f"t-{uuid.uuid4()}"


def follow(server: RunningServer, thread_id: str, headers: Mapping[str, str] | None = None) -> RawExchange:
    return get(server, f"/threads/{thread_id}/runs/stream", headers)


def joined(server: RunningServer, run_ids: list[str], headers: Mapping[str, str]) -> bytes:
    return b"".join(uncut(server, run_id, headers) for run_id in run_ids)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_threads_stream_shows_the_active_run_whole_and_then_each_next_one(
    server: RunningServer, dialect: str
) -> None:
    thread_id, gate, headers = new_thread(), new_gate(server, 2), DIALECTS[dialect]
    ended_run(server, graph="gated", input={"gate": new_gate(server, 6)}, thread_id=thread_id)
    with post(server, {"graph": "gated", "input": {"gate": gate}, "thread_id": thread_id}) as active:
        run_ids = [run_id_of(active.read_frames(3))]
        with follow(server, thread_id, headers) as reader:
            reader.read_frames(3)
            server.open_gate(gate, 6)
            active.read_all()
            for _ in range(3):
                run_ids.append(ended_run(server, input={"gate": gate}, thread_id=thread_id))
                reader.read_frames(9 * len(run_ids))
            assert reader.body == joined(server, run_ids, headers)
            assert not reader.is_ended
    assert reader.headers["content-type"] == "text/event-stream"
    assert reader.headers["cache-control"] == "no-cache, no-transform"
    if dialect == "eventsource":
        expected = [f"{run_id}.{seq}" for run_id in run_ids for seq in range(1, 10)]
        assert [id_of(frame) for frame in frames_of(reader.body)] == expected


def test_on_an_idle_thread_the_stream_waits_for_the_next_run(server: RunningServer) -> None:
    thread_id = new_thread()
    ended_run(server, graph="steps", input={}, thread_id=thread_id)
    with follow(server, thread_id, EVENTSOURCE) as reader:
        reader.read_head()
        run_id = ended_run(server, input={}, thread_id=thread_id)
        assert reader.read_frames(5).body == uncut(server, run_id, EVENTSOURCE)


@pytest.mark.parametrize("how", ["RST", "FIN"])
def test_cut_after_every_frame_it_gives_what_came_since_later_runs_included(server: RunningServer, how: str) -> None:
    thread_id = new_thread()
    ended_run(server, graph="steps", input={}, thread_id=thread_id)
    with follow(server, thread_id, EVENTSOURCE) as first:
        first.read_head()
        run_ids = [ended_run(server, input={}, thread_id=thread_id) for _ in range(3)]
        everything = first.read_frames(15).body
        first.cut(how)
    assert everything == joined(server, run_ids, EVENTSOURCE)
    frames = frames_of(everything)
    for seen in range(1, 16):
        last_id = id_of(frames[seen - 1])
        with follow(server, thread_id, {**EVENTSOURCE, "Last-Event-ID": str(last_id)}) as second:
            second.read_head()
            assert b"".join(frames[:seen]) + second.read_frames(15 - seen).body == everything
            second.cut(how)


def test_runs_of_other_threads_are_not_shown(server: RunningServer) -> None:
    thread_id = new_thread()
    ended_run(server, graph="steps", input={}, thread_id=thread_id)
    with follow(server, thread_id) as reader:
        reader.read_head()
        ended_run(server, graph="steps", input={})
        run_id = ended_run(server, input={}, thread_id=thread_id)
        found = [data_of(frame) for frame in frames_of(reader.read_frames(5).body)]
    assert (found[0]["run_id"], found[0]["thread_id"]) == (run_id, thread_id)


def test_a_paused_threads_stream_goes_on_with_the_run_that_answers(server: RunningServer, client: httpx.Client) -> None:
    thread_id = new_thread()
    run(client, graph="ask", input={}, thread_id=thread_id)
    with follow(server, thread_id) as reader:
        reader.read_head()
        answered = run(client, thread_id=thread_id, resume=True)
        assert [data_of(frame) for frame in frames_of(reader.read_frames(len(answered)).body)] == answered


def test_ids_are_checked_as_everywhere(server: RunningServer, client: httpx.Client) -> None:
    thread_id = new_thread()
    run_id = ended_run(server, graph="steps", input={}, thread_id=thread_id)
    other_id = ended_run(server, graph="steps", input={})
    path = f"/threads/{thread_id}/runs/stream"
    problem_of(client.get(f"/threads/{new_thread()}/runs/stream"), 404, "thread_not_found")
    for last_id, status, code in (
        ("nonsense", 400, "bad_event_id"),
        ("3", 400, "bad_event_id"),
        (f"{other_id}.3", 400, "bad_event_id"),
        (f"{uuid.uuid4()}.3", 404, "run_not_found"),
        (f"{run_id}.6", 409, "event_id_ahead"),
    ):
        problem_of(client.get(path, headers={"Last-Event-ID": last_id}), status, code)


def test_a_client_that_left_is_noticed_in_silence(server: RunningServer, client: httpx.Client) -> None:
    thread_id = new_thread()
    ended_run(server, graph="steps", input={}, thread_id=thread_id)
    wait_until(lambda: open_streams(client) == 0, "earlier streams are closed")
    with follow(server, thread_id) as reader:
        reader.read_head()
        wait_until(lambda: open_streams(client) == 1, "the stream is open")
        reader.cut("RST")
    wait_until(lambda: open_streams(client) == 0, "the stream is closed")
