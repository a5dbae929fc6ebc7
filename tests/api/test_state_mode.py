"""Live state over real sockets: whatever happens to a run, the mirror ends as the state (wire contract, section 5)."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import jsonpatch
import pytest

from tests.raw_client import data_of, frames_of, get, new_gate, post, run_id_of
from tests.server import Frame, RunningServer, events, run, wait_until
from tests.streaming.serving import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("state") / "data") as server:
        yield server


def mirrored(frames: Sequence[Frame]) -> list[Any]:
    """The mirror after each `state` frame, applied as a client does."""
    states: list[Any] = []
    for frame in frames:
        if frame["event"] != "state":
            continue
        data = frame["data"]
        assert len(data) == 1
        if "snapshot" in data:
            states.append(data["snapshot"])
        else:
            assert {operation["op"] for operation in data["patch"]} <= {"add", "replace", "remove"}
            states.append(jsonpatch.apply_patch(states[-1], data["patch"]))
    return states


def values_of(client: httpx.Client, thread_id: str) -> Any:
    return client.get(f"/threads/{thread_id}/state").json()["values"]


def start(client: httpx.Client, thread_id: str, **input: Any) -> list[Frame]:
    return run(client, graph="mirrored", thread_id=thread_id, input=input, stream_mode="state")


def test_the_mirror_is_the_threads_state_after_reducers_branches_and_deletions(client: httpx.Client) -> None:
    frames = start(client, "whole")
    assert set(events(frames)) == {"start", "state", "complete"}
    states = mirrored(frames)
    assert states[-1] == values_of(client, "whole")
    assert states[-1]["counts"] == {"both": 3}
    assert states[-1]["tree"] == {"a/b": {"~": [1, {"deep": 1}]}, "same": [1, True, None, 1.0]}
    assert sorted(states[-1]["log"]) == sorted(["plan", "left", "right", "turn", "last"])
    assert next(list(frame["data"]) for frame in frames if frame["event"] == "state") == ["snapshot"]
    assert [state.get("log", []) for state in states][:2] == [[], ["plan"]]


def test_a_next_run_on_the_thread_begins_with_a_snapshot_of_what_is_there(client: httpx.Client) -> None:
    start(client, "twice")
    states = mirrored(start(client, "twice"))
    assert len(states[0]["log"]) == 5
    assert states[-1] == values_of(client, "twice")
    assert len(states[-1]["log"]) == 10


def test_at_an_interrupt_and_after_its_answer_the_mirror_is_the_state(client: httpx.Client) -> None:
    paused = start(client, "asks", then="ask")
    assert events(paused)[-1] == "interrupt"
    assert mirrored(paused)[-1] == values_of(client, "asks")
    resumed = run(client, thread_id="asks", resume="yes", stream_mode="state")
    assert mirrored(resumed)[0] == mirrored(paused)[-1]
    assert mirrored(resumed)[-1] == values_of(client, "asks")
    assert mirrored(resumed)[-1]["log"][-1] == "answer yes"


def test_of_a_run_that_fails_the_mirror_keeps_the_finished_steps(client: httpx.Client) -> None:
    failed = start(client, "fails", then="fail")
    assert events(failed)[-1] == "error"
    assert mirrored(failed)[-1] == values_of(client, "fails")
    assert mirrored(failed)[-1]["log"][-1] == "turn"


@pytest.mark.parametrize("keep_partial", [False, True])
def test_of_a_run_that_is_stopped_in_mid_message_the_mirror_is_what_stays(
    server: RunningServer, client: httpx.Client, keep_partial: bool
) -> None:
    gate, thread_id = new_gate(server, 2), f"stopped-{keep_partial}"
    body = {
        "graph": "mirrored",
        "thread_id": thread_id,
        "input": {"then": "wait", "gate": gate},
        "stream_mode": "state",
        "tokens": {"in_state": True},
    }
    with post(server, body) as exchange:
        exchange.read_until(lambda body: b"word0" in body)
        client.post(f"/runs/{run_id_of(exchange)}/cancel", params={"wait": True}, json={"keep_partial": keep_partial})
        frames = [data_of(frame) for frame in frames_of(exchange.read_all().body)]
    states = mirrored(frames)
    spoken = [state["streaming"] for state in states if "streaming" in state]
    assert spoken[-1]["partial"].startswith("word0 ")
    assert states[-1] == values_of(client, thread_id)
    patches = [frame["data"]["patch"] for frame in frames if frame["event"] == "state" and "patch" in frame["data"]]
    assert patches[-1] == [{"op": "remove", "path": "/streaming"}]
    said = [message["content"] for message in states[-1]["messages"]]
    assert said == ["I am right.", *(["word0 word1 "] if keep_partial else [])]


def test_while_a_model_speaks_the_mirror_carries_the_message_so_far_and_drops_it_before_the_end(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = new_gate(server, 1)
    body = {
        "graph": "mirrored",
        "thread_id": "speaks",
        "input": {"then": "wait", "gate": gate},
        "stream_mode": ["state", "messages"],
        "tokens": {"in_state": True},
    }
    with post(server, body) as exchange:
        for level in range(2, 21):
            exchange.read_until(lambda body, word=f"word{level - 2} ": word.encode() in body)  # type: ignore[misc]
            server.open_gate(gate, level)
        frames = [data_of(frame) for frame in frames_of(exchange.read_all().body)]
    states = mirrored(frames)
    shown = [state["streaming"] for state in states if "streaming" in state]
    for streaming in shown:
        assert set(streaming) == {"node", "message_id", "partial", "last_token", "token_count", "progress"}
        assert streaming["partial"].endswith(streaming["last_token"])
    waited = [streaming for streaming in shown if streaming["node"] == "last"]
    assert waited[-1]["token_count"] == 20
    assert waited[-1]["partial"] == "".join(f"word{number} " for number in range(20))
    assert {streaming["progress"]["message"] for streaming in shown if streaming["progress"]} == {"left"}
    patches = [frame["data"]["patch"] for frame in frames if frame["event"] == "state" and "patch" in frame["data"]]
    assert patches[-1] == [{"op": "remove", "path": "/streaming"}]
    assert states[-1] == values_of(client, "speaks")


@pytest.mark.parametrize("graph", ["agent", "mute"])
def test_models_that_speak_in_blocks_and_models_that_speak_at_once_are_shown_too(
    client: httpx.Client, graph: str
) -> None:
    frames = run(client, graph=graph, message="hi", stream_mode=["state", "messages"], tokens={"in_state": True})
    shown = [state["streaming"]["partial"] for state in mirrored(frames) if "streaming" in state]
    assert set(shown) >= ({"I add.", "It is 4."} if graph == "agent" else {"all at once"})
    assert "streaming" not in mirrored(frames)[-1]


def test_a_state_that_has_a_key_of_that_name_keeps_it(client: httpx.Client) -> None:
    body = {"input": {}, "stream_mode": ["state", "messages"], "tokens": {"in_state": True}}
    frames = run(client, graph="own_key", thread_id="own", **body)
    states = mirrored(frames)
    assert states[-1] == values_of(client, "own")
    assert states[-1]["streaming"] == "mine"


def test_a_reader_that_comes_late_or_again_gets_the_same_frames(server: RunningServer, client: httpx.Client) -> None:
    frames = start(client, "again", then="ask")
    path = f"/runs/{frames[0]['run_id']}/stream"
    for frame in frames:
        with get(server, f"{path}?after={frame['seq']}") as exchange:
            rest = [data_of(late) for late in frames_of(exchange.read_all().body)]
        assert rest == [late for late in frames if late["seq"] > frame["seq"]]


def test_after_a_crash_the_mirror_begins_again_with_a_snapshot_and_ends_as_the_state(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data_dir = tmp_path_factory.mktemp("crash") / "data"
    with serving(data_dir) as server:
        gate = new_gate(server, 1)
        body = {
            "graph": "mirrored",
            "thread_id": "crash",
            "input": {"then": "wait", "gate": gate},
            "stream_mode": ["state", "messages"],
            "tokens": {"in_state": True},
        }
        with post(server, body) as exchange:
            exchange.read_until(lambda body: b"word0" in body)
            run_id = run_id_of(exchange)
        server.kill()
    with serving(data_dir, env={"RUNSTREAM_LEASE_SECONDS": "1"}) as server, server.client() as client:
        server.open_gate(gate, 20)
        wait_until(lambda: client.get(f"/runs/{run_id}").json()["status"] == "success", "the run ends", 60)
        frames = client.get(f"/runs/{run_id}/events", params={"limit": 5000}).json()["events"]
        assert "restart" in events(frames)
        before, after = (list(mirrored(frames[:at] if at else frames)) for at in (events(frames).index("restart"), 0))
        assert "streaming" in before[-1]
        assert len([frame for frame in frames if "snapshot" in frame.get("data", {})]) == 2
        assert after[-1] == values_of(client, "crash")
        assert after[-1]["log"][-1] == "waited"
