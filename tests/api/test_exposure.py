"""What a registration hides, on every way out (docs/streaming.md; wire contract, section 4).

All that is hidden in the graph `guarded` holds the word SECRET; `open` is the same graph, and hides nothing.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import Frame, RunningServer, events, run, spoken, wait_until
from tests.streaming.serving import ALL_MODES, serving

SECRET = "SECRET"
RECORDED: dict[str, Any] = {
    "stream_mode": ALL_MODES,
    "subgraphs": True,
    "include_output": True,
    "tokens": {"in_state": True},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """It exposes the text of exceptions: of hidden nodes, not even then."""
    with serving(tmp_path_factory.mktemp("exposure") / "data", env={"RUNSTREAM_EXPOSE_ERRORS": "true"}) as server:
        yield server


def ran(client: httpx.Client, graph: str, thread_id: str, then: str = "end") -> list[Frame]:
    return run(client, graph=graph, thread_id=thread_id, input={"then": then}, **RECORDED)


def with_secrets(frames: list[Frame]) -> set[str]:
    """The kinds of frames that hold what is hidden."""
    return {frame["event"] for frame in frames if SECRET in json.dumps(frame)}


def places(client: httpx.Client, thread_id: str) -> dict[str, str]:
    """Everything else that tells of a thread."""
    asked = {
        "thread": client.get(f"/threads/{thread_id}"),
        "search": client.post("/threads/search", json={"ids": [thread_id], "extract": {"x": "values.internal"}}),
        "state": client.get(f"/threads/{thread_id}/state", params={"subgraphs": True}),
        "history": client.get(f"/threads/{thread_id}/history", params={"limit": 100}),
        "posted history": client.post(f"/threads/{thread_id}/history", json={"limit": 100}),
        "runs": client.get("/runs", params={"thread_id": thread_id}),
    }
    assert {answer.status_code for answer in asked.values()} == {200}
    return {name: answer.text for name, answer in asked.items()}


def test_of_a_graph_that_hides_nothing_every_way_out_shows_all_of_it(client: httpx.Client) -> None:
    frames = ran(client, "open", "shown")
    assert events(frames)[-1] == "complete"
    kinds = {"token", "node", "custom", "progress", "values", "checkpoint", "debug", "state", "tool_result", "complete"}
    assert with_secrets(frames) == kinds
    assert {name for name, text in places(client, "shown").items() if SECRET in text} >= {"thread", "state", "history"}
    assert SECRET in client.post("/runs/invoke", json={"graph": "open", "input": {}}).text


@pytest.mark.parametrize("then", ["end", "fail", "ask"])
def test_what_is_hidden_is_in_no_frame_of_any_mode_nor_in_the_log(client: httpx.Client, then: str) -> None:
    frames = ran(client, "guarded", f"hidden-{then}", then)
    assert events(frames)[-1] == {"end": "complete", "fail": "error", "ask": "interrupt"}[then]
    assert with_secrets(frames) == set()
    log = client.get(f"/runs/{frames[0]['run_id']}/events", params={"limit": 5000}).text
    assert SECRET not in log
    assert {name for name, text in places(client, f"hidden-{then}").items() if SECRET in text} == set()


def test_what_is_not_hidden_is_all_there(client: httpx.Client) -> None:
    frames = ran(client, "guarded", "visible")
    assert set(events(frames)) >= {"node", "token", "custom", "progress", "values", "checkpoint", "debug", "state"}
    assert list(spoken(frames).values()) == ["said aloud"]
    assert [frame["data"] for frame in frames if frame["event"] == "custom"] == ["hello", "from below"]
    nodes = [(frame["node"], bool(frame.get("ns"))) for frame in frames if frame["event"] == "node"]
    visible = [("shown", False), ("inner", True), ("child", False), ("scatter", False), *[("worker", False)] * 2]
    assert nodes == [*visible, ("closing", False)]
    tasks = [frame["data"]["payload"] for frame in frames if frame["event"] == "debug" and frame.get("ns")]
    assert {payload["name"] for payload in tasks if payload and "name" in payload} == {"inner"}
    notes = ["shown", "shown", "visible", "scatter", *["one", "two"] * 2, "closing"]
    assert frames[-1]["output"].keys() == {"notes", "messages"}
    assert sorted(frames[-1]["output"]["notes"]) == sorted(notes)
    state = client.get("/threads/visible/state").json()["values"]
    assert state == frames[-1]["output"]
    assert state == [frame for frame in frames if frame["event"] == "values" and "ns" not in frame][-1]["data"]


def test_a_question_from_inside_an_exposed_node_is_in_the_state_with_its_task(client: httpx.Client) -> None:
    frames = ran(client, "guarded", "below", "ask below")
    assert [asked["value"] for asked in frames[-1]["interrupts"]] == ["a question from below"]
    (task,) = client.get("/threads/below/state", params={"subgraphs": True}).json()["tasks"]
    (inner,) = task["state"]["tasks"]
    assert (task["name"], inner["name"], len(inner["interrupts"])) == ("child", "inner", 1)
    assert SECRET not in json.dumps(task)


def test_an_invokes_output_has_the_exposed_keys_alone(client: httpx.Client) -> None:
    answer = client.post("/runs/invoke", json={"graph": "guarded", "input": {}})
    assert answer.json()["output"].keys() == {"notes", "messages"}
    assert SECRET not in answer.text


def test_an_error_of_a_hidden_node_names_neither_it_nor_what_it_said(client: httpx.Client) -> None:
    frames = ran(client, "guarded", "failing", "fail")
    assert (frames[-1]["error"], frames[-1]["node"]) == ("The graph failed.", None)
    answer = client.post("/runs/invoke", json={"graph": "guarded", "input": {"then": "fail"}})
    assert answer.status_code == 500
    assert SECRET not in answer.text
    exposed = ran(client, "open", "failing-open", "fail")
    assert (exposed[-1]["error"], exposed[-1]["node"]) == ("ValueError: SECRET error", "hidden")


def test_what_a_hidden_model_had_said_is_not_told_when_the_run_is_stopped(
    server: RunningServer, client: httpx.Client
) -> None:
    mark = len(server.trace())
    body = {"graph": "guarded", "thread_id": "stopped", "input": {"then": "wait"}, **RECORDED}
    with client.stream("POST", "/runs/stream", json=body) as stream:
        run_id = stream.headers["location"].split("/")[2]
        wait_until(lambda: "waiting" in server.trace()[mark:], "the hidden node speaks")
        client.post(f"/runs/{run_id}/cancel", params={"wait": True}, json={"keep_partial": True})
        text = stream.read().decode()
    assert '"event":"cancelled","reason":"user","partial":{}' in text
    assert SECRET not in text
    assert SECRET not in client.get("/threads/stopped/state").text


def test_the_state_of_a_hidden_nodes_subgraph_is_not_to_be_had_by_its_place(client: httpx.Client) -> None:
    def checkpoints(graph: str, node: str) -> tuple[httpx.Response, httpx.Response]:
        frames = ran(client, graph, f"place-{graph}-{node}")
        page = client.get(f"/threads/place-{graph}-{node}/history", params={"limit": 100}).json()
        ids = [task["checkpoint"]["checkpoint_ns"] for state in page for task in state["tasks"] if task["checkpoint"]]
        ids += [frame["ns"][0] for frame in frames if "ns" in frame]
        ids = [ns for ns in ids if ns.startswith(f"{node}:")] or [f"{node}:1d2e"]
        place = {"thread_id": f"place-{graph}-{node}", "checkpoint_ns": ids[0]}
        url = f"/threads/place-{graph}-{node}"
        return (
            client.post(f"{url}/state/checkpoint", json={"checkpoint": place}),
            client.post(f"{url}/history", json={"checkpoint": place}),
        )

    state, history = checkpoints("guarded", "hidden_child")
    assert (state.status_code, state.json()["code"], history.json()) == (404, "checkpoint_not_found", [])
    state, history = checkpoints("guarded", "child")
    assert state.status_code == history.status_code == 200
    state, history = checkpoints("open", "hidden_child")
    assert state.status_code == history.status_code == 200


def test_a_registration_may_hide_nodes_alone_and_then_the_state_is_whole(client: httpx.Client) -> None:
    frames = ran(client, "nodes_only", "nodes-only")
    assert {frame["node"] for frame in frames if "node" in frame and not frame.get("ns")} == {"child", "closing"}
    assert {frame["ns"][0].partition(":")[0] for frame in frames if "ns" in frame} == {"child"}
    assert spoken(frames) == {}
    assert frames[-1]["output"].keys() >= {"internal", "hushed", "notes"}


def test_a_model_whose_tag_is_hidden_is_heard_by_no_client(client: httpx.Client) -> None:
    frames = run(client, graph="duet_quiet", message="hi", tokens={"flush": "each"})
    assert {frame["node"] for frame in frames if frame["event"] == "token"} == {"draft", "sum"}
    assert {frame["node"] for frame in frames if frame["event"] == "node"} == {"draft", "review", "sum"}


def test_a_model_that_is_tagged_nostream_is_not_streamed_as_in_langgraph_itself(client: httpx.Client) -> None:
    frames = run(client, graph="hushes", message="hi")
    # the message that the node returns comes whole, at its end
    assert [frame["data"]["content"] for frame in frames if frame["event"] == "token"] == ["not streamed"]
    assert frames[-2]["data"]["message"]["content"] == "not streamed"
    hidden = run(client, graph="hushes_hidden", message="hi")
    assert events(hidden) == ["start", "node", "complete"]


@pytest.mark.parametrize("graph", ["unstreamed", "disabled"])
def test_a_model_whose_streaming_is_switched_off_says_all_at_once(client: httpx.Client, graph: str) -> None:
    frames = run(client, graph=graph, message="hi")
    [said] = [frame["data"] for frame in frames if frame["event"] == "token"]
    assert (said["content"], said["last"]) == ("not streamed", True)
    assert frames[-2]["data"]["message"]["id"] == said["id"]
