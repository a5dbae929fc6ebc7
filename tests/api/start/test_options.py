"""What a start may set beside its input (wire contract, section 1)."""

import uuid
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run


def told(client: httpx.Client, **body: Any) -> Any:
    frames = run(client, graph="told", input={}, include_output=True, **body)
    return frames[-1]["output"]["answer"]


def test_tags_metadata_and_configurable_reach_the_nodes(client: httpx.Client) -> None:
    config = {"tags": ["b", "a"], "metadata": {"own": [1, {"x": None}]}, "configurable": {"model": "small", "n": 1}}
    found = told(client, thread_id="told-1", config=config)
    assert found["tags"] == ["a", "b"]
    assert found["metadata"] == {"own": [1, {"x": None}]}
    assert found["configurable"] == {"model": "small", "n": 1, "thread_id": "told-1"}


def test_the_threads_own_id_may_stand_in_configurable(client: httpx.Client) -> None:
    body = {"thread_id": "told-2", "config": {"configurable": {"thread_id": "told-2"}}}
    assert told(client, **body)["configurable"] == {"thread_id": "told-2"}


@pytest.mark.parametrize("thread_id", ["another", "", 5, None])
def test_another_threads_id_in_configurable_is_refused(client: httpx.Client, thread_id: Any) -> None:
    body = {"thread_id": "told-3", "input": {}, "config": {"configurable": {"thread_id": thread_id}}}
    problem_of(client.post("/runs/stream", json={"graph": "told", **body}), 422, "invalid_request")


def test_a_thread_id_in_configurable_alone_is_refused(client: httpx.Client) -> None:
    body = {"graph": "told", "input": {}, "config": {"configurable": {"thread_id": "told-4"}}}
    problem_of(client.post("/runs/stream", json=body), 422, "invalid_request")


def test_the_context_reaches_the_nodes_with_its_defaults(client: httpx.Client) -> None:
    assert told(client, context={"city": "Kiel"})["context"] == {"city": "Kiel", "days": 1}
    assert told(client)["context"] is None


@pytest.mark.parametrize("context", [{"town": "Kiel"}, {"days": 2}, {"city": "Kiel", "more": 1}])
def test_a_context_that_the_graph_does_not_take_is_refused_before_anything_runs(
    server: RunningServer, client: httpx.Client, context: dict[str, Any]
) -> None:
    answer = client.post("/runs/stream", json={"graph": "told", "input": {}, "context": context})
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["body", "context"]


def test_metadata_is_kept_in_the_runs_row(client: httpx.Client) -> None:
    metadata = {"user": "u1", "nested": {"list": [1, 2.5, None, "\u2028"]}}
    run_id = run(client, graph="steps", input={}, metadata=metadata)[0]["run_id"]
    assert client.get(f"/runs/{run_id}").json()["metadata"] == metadata
    plain = run(client, graph="steps", input={})[0]["run_id"]
    assert client.get(f"/runs/{plain}").json()["metadata"] == {}


@pytest.mark.parametrize("limit", [1, 3])
def test_a_recursion_limit_ends_a_run_that_takes_more_steps(client: httpx.Client, limit: int) -> None:
    frames = run(client, graph="loops", input={}, config={"recursion_limit": limit})
    assert events(frames).count("node") == limit
    assert (frames[-1]["event"], frames[-1]["code"]) == ("error", "recursion_limit")
    row = client.get(f"/runs/{frames[0]['run_id']}").json()
    assert (row["status"], row["error"]["code"]) == ("error", "recursion_limit")


@pytest.mark.parametrize("config", [{"recursion_limit": 10**9}, {"recursion_limit": 101}, {}])
def test_the_servers_maximum_caps_the_recursion_limit(client: httpx.Client, config: dict[str, Any]) -> None:
    frames = run(client, graph="loops", input={}, config=config, stream_mode="updates", timeout_seconds=20)
    assert events(frames).count("node") == 100
    assert frames[-1]["code"] == "recursion_limit"


def test_a_run_that_reached_its_limit_can_be_continued(client: httpx.Client) -> None:
    thread_id = run(client, graph="loops", input={}, config={"recursion_limit": 2})[0]["thread_id"]
    frames = run(client, thread_id=thread_id, config={"recursion_limit": 3})
    assert frames[-1]["code"] == "recursion_limit"
    log = client.get(f"/threads/{thread_id}/state").json()["values"]["log"]
    assert len(log) == 2 + events(frames).count("node") >= 5


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("graph", ["steps", "fan", "below"])
def test_every_durability_gives_the_same_frames_and_state(client: httpx.Client, graph: str, durability: str) -> None:
    body: dict[str, Any] = {"message": "hi"} if graph == "below" else {"input": {}}
    frames = run(client, graph=graph, durability=durability, stream_mode="updates", **body)
    plain = run(client, graph=graph, stream_mode="updates", **body)
    assert [(f["event"], f.get("node")) for f in frames] == [(f["event"], f.get("node")) for f in plain]
    state = client.get(f"/threads/{frames[0]['thread_id']}/state").json()
    assert state["next"] == []
    assert state["values"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_every_durability_keeps_a_pause(client: httpx.Client, durability: str) -> None:
    frames = run(client, graph="ask", input={}, durability=durability)
    assert frames[-1]["event"] == "interrupt"
    rest = run(client, thread_id=frames[0]["thread_id"], resume="yes", durability=durability)
    assert rest[-1]["event"] == "complete"
    values = client.get(f"/threads/{frames[0]['thread_id']}/state").json()["values"]
    assert values["log"] == ["before", "answered", "after"]


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_a_run_that_takes_longer_than_its_timeout_is_stopped(
    server: RunningServer, client: httpx.Client, path: str
) -> None:
    thread_id = str(uuid.uuid4())
    body = {"graph": "slow", "thread_id": thread_id, "input": {}, "timeout_seconds": 0.3}
    answer = client.post(path, json=body)
    if path == "/runs/stream":
        last = answer.text.strip().split("\n\n")[-1]
        assert '"event":"error"' in last
        assert '"code":"timeout"' in last
    else:
        found = problem_of(answer, 504, "timeout")
        assert found["thread_id"] == thread_id
    (row,) = client.get("/runs", params={"thread_id": thread_id}).json()["runs"]
    assert (row["status"], row["error"]["code"]) == ("timeout", "timeout")
    assert server.trace()[-1] == "left"
    state = client.get(f"/threads/{thread_id}/state").json()
    assert state["next"] == ["tick"]
    assert state["values"]["log"] == ["before"]


def test_a_timeout_that_is_not_reached_changes_nothing(client: httpx.Client) -> None:
    assert run(client, graph="steps", input={}, timeout_seconds=30)[-1]["event"] == "complete"


def test_the_output_is_in_the_complete_frame_only_when_it_was_asked_for(client: httpx.Client) -> None:
    assert "output" not in run(client, graph="steps", input={})[-1]
    output = run(client, graph="steps", input={}, include_output=True)[-1]["output"]
    assert output["log"] == ["one", "two", "three"]


MODES: dict[str, set[str]] = {
    "updates": {"node"},
    "messages": {"token"},
    "values": {"values"},
    "tasks": {"node_start"},
    "checkpoints": {"checkpoint"},
    "debug": {"debug"},
}


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("form", ["text", "list", "twice"])
def test_a_stream_mode_may_be_a_name_or_a_list(client: httpx.Client, mode: str, form: str) -> None:
    asked: Any = {"text": mode, "list": [mode], "twice": [mode, mode]}[form]
    frames = run(client, graph="talk", message="hi", stream_mode=asked)
    assert set(events(frames)) == {"start", "complete"} | MODES[mode]
    seqs = [frame["seq"] for frame in frames]
    assert seqs == list(range(1, len(frames) + 1))


def test_no_stream_mode_at_all_still_sends_the_start_and_the_end(client: httpx.Client) -> None:
    assert events(run(client, graph="talk", message="hi", stream_mode=[])) == ["start", "complete"]
    assert events(run(client, graph="fails", input={}, stream_mode=[])) == ["start", "error"]
