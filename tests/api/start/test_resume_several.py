"""Several interrupts at once, and answers that do not fit (wire contract, section 1: `resume`)."""

from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run

ID = "0" * 32


def ask_both(client: httpx.Client, graph: str = "ask_both") -> tuple[str, dict[str, str]]:
    frames = run(client, graph=graph, input={})
    assert frames[-1]["event"] == "interrupt"
    return frames[0]["thread_id"], {pending["node"]: pending["id"] for pending in frames[-1]["interrupts"]}


def nodes(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["node"] for frame in frames if frame["event"] == "node"]


def log(client: httpx.Client, thread_id: str) -> list[str]:
    found: list[str] = client.get(f"/threads/{thread_id}/state").json()["values"]["log"]
    return found


def test_two_parallel_interrupts_are_reported_together(client: httpx.Client) -> None:
    frames = run(client, graph="ask_both", input={})
    assert events(frames) == ["start", "interrupt"]
    assert sorted(frames[-1]["next"]) == ["left", "right"]
    asked = {pending["node"]: pending["value"] for pending in frames[-1]["interrupts"]}
    assert asked == {"left": {"from": "left"}, "right": {"from": "right"}}


@pytest.mark.parametrize("form", ["resume", "command"])
def test_both_are_answered_together_by_their_ids(client: httpx.Client, form: str) -> None:
    thread_id, ids = ask_both(client)
    answers: dict[str, Any] = {ids["left"]: None, ids["right"]: {}}
    body: dict[str, Any] = {"resume": answers} if form == "resume" else {"command": {"resume": answers}}
    rest = run(client, thread_id=thread_id, **body)
    assert sorted(nodes(rest)) == ["after", "left", "right"]
    assert log(client, thread_id) == ["left=None", "right={}", "after"]


@pytest.mark.parametrize(("first", "second"), [("left", "right"), ("right", "left")])
def test_both_are_answered_one_by_one_and_no_node_that_ended_runs_again(
    server: RunningServer, client: httpx.Client, first: str, second: str
) -> None:
    thread_id, ids = ask_both(client)
    seen = len(server.trace())
    frames = run(client, thread_id=thread_id, resume={ids[first]: 1})
    assert nodes(frames) == [first]
    assert frames[-1]["next"] == [second]
    (left_over,) = frames[-1]["interrupts"]
    assert (left_over["node"], left_over["id"]) == (second, ids[second])
    # one is left, so a bare value is enough
    rest = run(client, thread_id=thread_id, resume=2)
    assert nodes(rest) == [second, "after"]
    assert sorted(log(client, thread_id)) == sorted(["after", f"{first}=1", f"{second}=2"])
    ran = server.trace()[seen:]
    assert ran.count(f"got {first}") == ran.count(f"got {second}") == ran.count("after") == 1


def test_the_state_names_only_what_still_waits(client: httpx.Client) -> None:
    thread_id, ids = ask_both(client)
    run(client, thread_id=thread_id, resume={ids["left"]: 1})
    state = client.get(f"/threads/{thread_id}/state").json()
    assert state["next"] == ["right"]
    assert [pending["id"] for pending in state["interrupts"]] == [ids["right"]]


def test_two_interrupts_in_subgraphs_of_different_depth_are_answered_by_their_ids(client: httpx.Client) -> None:
    frames = run(client, graph="ask_far", input={})
    thread_id = frames[0]["thread_id"]
    near, far = sorted(frames[-1]["interrupts"], key=lambda pending: len(pending["ns"]))
    frames = run(client, thread_id=thread_id, resume={far["id"]: "deep"})
    assert [pending["id"] for pending in frames[-1]["interrupts"]] == [near["id"]]
    assert run(client, thread_id=thread_id, resume=None)[-1]["event"] == "complete"


BARE: list[Any] = [None, "yes", {}, {"approved": True}, [], {ID: 1, "other": 2}]


@pytest.mark.parametrize("answer", BARE)
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_a_bare_answer_to_several_is_ambiguous(
    server: RunningServer, client: httpx.Client, path: str, answer: Any
) -> None:
    thread_id, ids = ask_both(client)
    seen = len(server.trace())
    for body in ({"resume": answer}, {"command": {"resume": answer}}):
        found = problem_of(client.post(path, json={"thread_id": thread_id, **body}), 409, "ambiguous_resume")
        assert {pending["node"]: pending["id"] for pending in found["interrupts"]} == ids
    assert len(server.trace()) == seen


def test_a_message_to_several_is_ambiguous(server: RunningServer, client: httpx.Client) -> None:
    thread_id, ids = ask_both(client)
    seen = len(server.trace())
    answer = client.post("/runs/stream", json={"thread_id": thread_id, "message": "yes"})
    found = problem_of(answer, 409, "ambiguous_resume")
    assert {pending["id"] for pending in found["interrupts"]} == set(ids.values())
    assert set(found["interrupts"][0]) == {"id", "value", "node", "ns", "response_schema"}
    assert len(server.trace()) == seen


@pytest.mark.parametrize("graph", ["ask", "ask_both", "ask_below"])
def test_an_unknown_interrupt_id_is_refused_with_the_pending_ones(
    server: RunningServer, client: httpx.Client, graph: str
) -> None:
    thread_id, ids = ask_both(client, graph)
    seen = len(server.trace())
    some = next(iter(ids.values()))
    for answers in ({ID: 1}, {ID: 1, some: 2}):
        found = problem_of(
            client.post("/runs/stream", json={"thread_id": thread_id, "resume": answers}), 409, "unknown_interrupt"
        )
        assert {pending["id"] for pending in found["interrupts"]} == set(ids.values())
        assert ID in found["detail"]
    assert len(server.trace()) == seen


def test_an_answer_that_was_given_is_not_taken_for_the_next_question(
    server: RunningServer, client: httpx.Client
) -> None:
    frames = run(client, graph="ask_twice", input={})
    thread_id, first = frames[0]["thread_id"], frames[-1]["interrupts"][0]["id"]
    second = run(client, thread_id=thread_id, resume={first: "a"})[-1]["interrupts"][0]["id"]
    assert first != second
    found = problem_of(
        client.post("/runs/stream", json={"thread_id": thread_id, "resume": {first: "a"}}), 409, "unknown_interrupt"
    )
    assert [pending["id"] for pending in found["interrupts"]] == [second]


def test_an_answer_that_was_given_does_not_pass_the_next_breakpoint(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id, ids = ask_both(client, "ask")
    frames = run(client, thread_id=thread_id, resume={ids["question"]: "yes"}, interrupt_before=["after"])
    assert frames[-1]["next"] == ["after"]
    seen = len(server.trace())
    again = client.post("/runs/stream", json={"thread_id": thread_id, "resume": {ids["question"]: "yes"}})
    assert problem_of(again, 409, "unknown_interrupt")["interrupts"] == []
    assert len(server.trace()) == seen


WRONG: list[dict[str, Any]] = [{"resume": "x"}, {"resume": None}, {"resume": {ID: 1}}, {"command": {"resume": "x"}}]


@pytest.mark.parametrize("body", WRONG)
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_there_is_nothing_to_resume_on_a_finished_thread_or_one_that_never_ran(
    server: RunningServer, client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    finished = run(client, graph="steps", input={})[0]["thread_id"]
    made = client.post("/threads", json={}).json()["thread_id"]
    seen = len(server.trace())
    for thread_id in (finished, made):
        problem_of(client.post(path, json={"thread_id": thread_id, **body}), 409, "nothing_to_resume")
    assert len(server.trace()) == seen


OTHER: list[dict[str, Any]] = [
    {"input": {}},
    {"input": {"log": ["x"]}},
    {},
    {"input": None},
    {"command": {"update": {"log": ["x"]}}},
]


@pytest.mark.parametrize("body", OTHER)
def test_what_is_no_answer_is_refused_while_a_question_waits(
    server: RunningServer, client: httpx.Client, body: dict[str, Any]
) -> None:
    thread_id, ids = ask_both(client)
    seen = len(server.trace())
    found = problem_of(client.post("/runs/stream", json={"thread_id": thread_id, **body}), 409, "thread_interrupted")
    assert {pending["id"] for pending in found["interrupts"]} == set(ids.values())
    assert len(server.trace()) == seen
    assert client.get(f"/threads/{thread_id}/state").json()["values"]["log"] == []


def test_input_may_discard_what_waits(client: httpx.Client) -> None:
    thread_id, old = ask_both(client, "ask")
    frames = run(client, thread_id=thread_id, input={}, on_interrupted="discard")
    assert nodes(frames) == ["before"]
    assert frames[-1]["interrupts"][0]["id"] != old["question"]
    body = {"thread_id": thread_id, "resume": {old["question"]: "late"}}
    problem_of(client.post("/runs/stream", json=body), 409, "unknown_interrupt")
    assert run(client, thread_id=thread_id, resume="yes")[-1]["event"] == "complete"


def test_both_questions_are_answered_by_the_ids_they_had_before_an_edit(client: httpx.Client) -> None:
    thread_id, ids = ask_both(client)
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["edited"]}})
    assert edit.status_code == 200, edit.text
    answer = client.post("/runs/stream", json={"thread_id": thread_id, "resume": "both?"})
    found = problem_of(answer, 409, "ambiguous_resume")
    assert {pending["node"]: pending["id"] for pending in found["interrupts"]} == ids
    answer = client.post("/runs/stream", json={"thread_id": thread_id, "resume": {ID: 1}})
    problem_of(answer, 409, "unknown_interrupt")
    rest = run(client, thread_id=thread_id, resume={ids["left"]: None, ids["right"]: 2})
    assert rest[-1]["event"] == "complete"
    assert log(client, thread_id) == ["edited", "left=None", "right=2", "after"]


@pytest.mark.parametrize("answer", [None, {}, False, [], {"a": 1}])
def test_every_answer_counts_after_an_edit(client: httpx.Client, answer: Any) -> None:
    thread_id, _ = ask_both(client, "ask")
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["edited"]}})
    assert edit.status_code == 200, edit.text
    assert run(client, thread_id=thread_id, resume=answer)[-1]["event"] == "complete"
    assert client.get(f"/threads/{thread_id}/state").json()["values"]["answer"] == answer
