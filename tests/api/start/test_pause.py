"""Breakpoints: where a run pauses without asking, and how it goes on (wire contract, section 1)."""

from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run


def nodes(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["node"] for frame in frames if frame["event"] == "node"]


def pause(client: httpx.Client, **body: Any) -> tuple[str, list[dict[str, Any]]]:
    frames = run(client, **{"graph": "steps", "input": {}, **body})
    assert frames[-1]["event"] == "interrupt"
    assert frames[-1]["interrupts"] == []
    return frames[0]["thread_id"], frames


def values(client: httpx.Client, thread_id: str) -> Any:
    return client.get(f"/threads/{thread_id}/state").json()["values"]


PAUSES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"interrupt_before": ["two"]}, ["one"], ["two"]),
    ({"interrupt_after": ["two"]}, ["one", "two"], ["three"]),
    ({"interrupt_before": ["one"]}, [], ["one"]),
    ({"interrupt_before": ["three"], "interrupt_after": ["one"]}, ["one"], ["two"]),
    ({"interrupt_before": ["three", "two"]}, ["one"], ["two"]),
    ({"interrupt_before": "*"}, [], ["one"]),
    ({"interrupt_after": "*"}, ["one"], ["two"]),
    ({"use_hitl": True}, ["one"], ["two"]),
    ({"use_hitl": True, "interrupt_before": ["one"]}, [], ["one"]),
]


@pytest.mark.parametrize(("body", "ran", "next_nodes"), PAUSES)
def test_a_run_pauses_where_it_was_told_to(
    client: httpx.Client, body: dict[str, Any], ran: list[str], next_nodes: list[str]
) -> None:
    thread_id, frames = pause(client, **body)
    assert nodes(frames) == ran
    assert frames[-1]["next"] == next_nodes
    assert client.get(f"/threads/{thread_id}/state").json()["next"] == next_nodes
    assert client.get(f"/threads/{thread_id}").json()["status"] == "interrupted"


@pytest.mark.parametrize("going_on", [{}, {"input": None}, {"resume": None}, {"resume": "anything"}, {"message": ""}])
def test_a_run_steps_through_its_graph_with_a_star(client: httpx.Client, going_on: dict[str, Any]) -> None:
    thread_id, frames = pause(client, interrupt_before="*")
    seen = [nodes(frames)]
    while frames[-1]["event"] == "interrupt":
        frames = run(client, thread_id=thread_id, interrupt_before="*", **going_on)
        seen.append(nodes(frames))
    assert seen == [[], ["one"], ["two"], ["three"]]
    assert values(client, thread_id)["log"] == ["one", "two", "three"]


def test_use_hitl_pauses_after_every_node_but_not_after_the_end(client: httpx.Client) -> None:
    thread_id, frames = pause(client, use_hitl=True)
    seen = [nodes(frames)]
    while frames[-1]["event"] == "interrupt":
        frames = run(client, thread_id=thread_id, use_hitl=True)
        seen.append(nodes(frames))
    assert seen == [["one"], ["two"], ["three"]]


def test_use_hitl_pauses_only_where_the_graphs_registration_says(client: httpx.Client) -> None:
    thread_id, frames = pause(client, graph="paused", use_hitl=True)
    assert nodes(frames) == ["one", "two"]
    assert nodes(run(client, thread_id=thread_id, use_hitl=True)) == ["three"]


def test_a_graphs_registration_alone_pauses_nothing(client: httpx.Client) -> None:
    assert nodes(run(client, graph="paused", input={})) == ["one", "two", "three"]


def test_breakpoints_are_the_requests_own_and_do_not_last(client: httpx.Client) -> None:
    thread_id, _ = pause(client, interrupt_before=["two", "three"])
    assert nodes(run(client, thread_id=thread_id)) == ["two", "three"]


@pytest.mark.parametrize("field", ["interrupt_before", "interrupt_after"])
@pytest.mark.parametrize("name", ["nope", "__start__", "*"])
def test_a_breakpoint_on_a_node_that_is_not_there_is_refused(client: httpx.Client, field: str, name: str) -> None:
    answer = client.post("/runs/stream", json={"graph": "steps", "input": {}, field: ["one", name]})
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["body", field]


def test_an_empty_message_at_a_breakpoint_continues_and_adds_nothing(client: httpx.Client) -> None:
    thread_id, _ = pause(client, interrupt_after=["one"])
    assert nodes(run(client, thread_id=thread_id, message="")) == ["two", "three"]
    assert values(client, thread_id)["log"] == ["one", "two", "three"]
    assert values(client, thread_id).get("messages", []) == []


def test_a_message_at_a_breakpoint_is_added_to_the_messages_and_the_run_continues(client: httpx.Client) -> None:
    thread_id, _ = pause(client, interrupt_after=["one"])
    assert nodes(run(client, thread_id=thread_id, message="shorter, please")) == ["two", "three"]
    found = values(client, thread_id)
    assert found["log"] == ["one", "two", "three"]
    assert [(m["type"], m["content"]) for m in found["messages"]] == [("human", "shorter, please")]


def test_a_message_at_a_breakpoint_continues_a_graph_whose_state_has_no_messages(client: httpx.Client) -> None:
    thread_id, _ = pause(client, graph="form", input={"topic": "tides"}, interrupt_before=["fill"])
    assert nodes(run(client, thread_id=thread_id, message="go on")) == ["fill"]
    assert values(client, thread_id)["topic"] == "tides"


def test_a_message_before_the_first_node_is_added_too(client: httpx.Client) -> None:
    thread_id, _ = pause(client, interrupt_before=["one"])
    assert nodes(run(client, thread_id=thread_id, message="hello")) == ["one", "two", "three"]
    assert [m["content"] for m in values(client, thread_id)["messages"]] == ["hello"]


@pytest.mark.parametrize("body", [{"input": {}}, {"input": {"log": ["x"]}}])
def test_input_for_a_thread_at_a_breakpoint_is_refused_unless_it_is_to_be_discarded(
    server: RunningServer, client: httpx.Client, body: dict[str, Any]
) -> None:
    thread_id, _ = pause(client, interrupt_after=["one"])
    seen = len(server.trace())
    found = problem_of(client.post("/runs/stream", json={"thread_id": thread_id, **body}), 409, "thread_interrupted")
    assert found["interrupts"] == []
    assert len(server.trace()) == seen
    rest = run(client, thread_id=thread_id, on_interrupted="discard", **body)
    assert nodes(rest) == ["one", "two", "three"]


def test_an_edit_at_a_breakpoint_is_what_the_next_node_sees(client: httpx.Client) -> None:
    thread_id, _ = pause(client, interrupt_after=["one"])
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["edited"]}})
    assert edit.status_code == 200, edit.text
    rest = run(client, thread_id=thread_id, resume=None)
    assert events(rest) == ["start", "node", "node", "complete"]
    assert values(client, thread_id)["log"] == ["one", "edited", "two", "three"]


def test_a_breakpoint_in_parallel_branches_pauses_all_of_them(client: httpx.Client) -> None:
    frames = run(client, graph="writers", input={}, interrupt_before=["left"])
    assert sorted(frames[-1]["next"]) == ["left", "right"]
    assert nodes(frames) == []
    rest = run(client, thread_id=frames[0]["thread_id"])
    assert sorted(nodes(rest)) == ["left", "right"]


def test_an_interrupt_after_a_breakpoint_is_asked_when_the_run_gets_there(client: httpx.Client) -> None:
    thread_id, _ = pause(client, graph="ask", interrupt_before=["question"])
    frames = run(client, thread_id=thread_id, resume="too early")
    assert frames[-1]["interrupts"][0]["value"] == {"question": "May I?"}
    assert run(client, thread_id=thread_id, resume="yes")[-1]["event"] == "complete"
    assert values(client, thread_id)["answer"] == "yes"
