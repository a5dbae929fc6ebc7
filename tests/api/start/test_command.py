"""The long form, and going on from another checkpoint (wire contract, section 1: `command`, `checkpoint_id`)."""

from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run

Frames = list[dict[str, Any]]


def nodes(frames: Frames) -> list[str]:
    return [frame["node"] for frame in frames if frame["event"] == "node"]


def values(client: httpx.Client, thread_id: str) -> Any:
    return client.get(f"/threads/{thread_id}/state").json()["values"]


def ask(client: httpx.Client, graph: str = "ask") -> str:
    frames = run(client, graph=graph, input={})
    assert frames[-1]["event"] == "interrupt"
    thread_id: str = frames[0]["thread_id"]
    return thread_id


def pause(client: httpx.Client, **body: Any) -> str:
    frames = run(client, **{"graph": "steps", "input": {}, "interrupt_after": ["one"], **body})
    assert frames[-1]["event"] == "interrupt"
    thread_id: str = frames[0]["thread_id"]
    return thread_id


def checkpoints(client: httpx.Client, thread_id: str) -> list[dict[str, Any]]:
    """Newest first."""
    found: list[dict[str, Any]] = client.get(f"/threads/{thread_id}/history", params={"limit": 50}).json()
    return found


@pytest.mark.parametrize("answer", ["yes", None, {}, False])
def test_a_command_answers_and_edits_in_one_call(client: httpx.Client, answer: Any) -> None:
    thread_id = ask(client)
    rest = run(client, thread_id=thread_id, command={"resume": answer, "update": {"log": ["edited"]}})
    assert rest[-1]["event"] == "complete"
    found = values(client, thread_id)
    assert found["log"] == ["before", "edited", "answered", "after"]
    assert found["answer"] == answer


def test_a_commands_update_at_a_breakpoint_is_an_edit_and_the_run_continues(client: httpx.Client) -> None:
    thread_id = pause(client)
    assert nodes(run(client, thread_id=thread_id, command={"update": {"log": ["edited"]}})) == ["two", "three"]
    assert values(client, thread_id)["log"] == ["one", "edited", "two", "three"]


def test_a_commands_update_on_a_finished_thread_edits_its_state_and_runs_nothing(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = run(client, graph="steps", input={})[0]["thread_id"]
    seen = len(server.trace())
    assert events(run(client, thread_id=thread_id, command={"update": {"log": ["more"]}})) == ["start", "complete"]
    assert values(client, thread_id)["log"] == ["one", "two", "three", "more"]
    assert len(server.trace()) == seen


@pytest.mark.parametrize("goto", ["three", ["three"], {"node": "three"}, [{"node": "three"}]])
def test_a_command_goes_to_a_node_of_a_finished_thread(client: httpx.Client, goto: Any) -> None:
    thread_id = run(client, graph="steps", input={})[0]["thread_id"]
    rest = run(client, thread_id=thread_id, command={"goto": goto, "update": {"log": ["jumped"]}})
    assert nodes(rest) == ["three"]
    assert values(client, thread_id)["log"] == ["one", "two", "three", "jumped", "three"]


def test_a_command_sends_a_node_an_input_of_its_own(client: httpx.Client) -> None:
    thread_id = run(client, graph="fan", input={})[0]["thread_id"]
    goto = [{"node": "worker", "input": {"log": [name]}} for name in ("a", "b")]
    rest = run(client, thread_id=thread_id, command={"goto": goto})
    assert nodes(rest)[:2] == ["worker", "worker"]
    assert {"worker a", "worker b"} <= set(values(client, thread_id)["log"])


@pytest.mark.parametrize("goto", ["nope", ["three", "nope"], {"node": "nope"}, "", "__start__"])
def test_a_goto_to_a_node_that_is_not_there_is_refused(server: RunningServer, client: httpx.Client, goto: Any) -> None:
    thread_id = pause(client)
    seen = len(server.trace())
    answer = client.post("/runs/stream", json={"thread_id": thread_id, "command": {"goto": goto}})
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["body", "command", "goto"]
    assert len(server.trace()) == seen


@pytest.mark.parametrize("goto", [5, [5], {"nope": "three"}, [["three"]], {"node": 1}])
def test_a_goto_of_another_form_is_refused(client: httpx.Client, goto: Any) -> None:
    answer = client.post("/runs/stream", json={"graph": "steps", "command": {"goto": goto}})
    found = problem_of(answer, 422, "invalid_request")
    assert all(error["loc"][:3] == ["body", "command", "goto"] for error in found["errors"])


def test_an_empty_command_is_refused(client: httpx.Client) -> None:
    problem_of(client.post("/runs/stream", json={"graph": "steps", "command": {}}), 422, "invalid_request")


def test_a_thread_starts_over_from_a_checkpoint_and_runs_what_came_after_it_again(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = run(client, graph="steps", input={})[0]["thread_id"]
    old = next(c for c in checkpoints(client, thread_id) if c["next"] == ["two"])
    seen = len(server.trace())
    rest = run(client, thread_id=thread_id, checkpoint_id=old["checkpoint_id"])
    assert nodes(rest) == ["two", "three"]
    assert server.trace()[seen:] == ["two", "three"]
    assert values(client, thread_id)["log"] == ["one", "two", "three"]


def test_new_input_at_a_checkpoint_branches_off_there(client: httpx.Client) -> None:
    thread_id = run(client, graph="talk", message="one")[0]["thread_id"]
    first_end = client.get(f"/threads/{thread_id}/state").json()["checkpoint_id"]
    run(client, thread_id=thread_id, message="two")
    run(client, thread_id=thread_id, message="three", checkpoint_id=first_end)
    said = [m["content"] for m in values(client, thread_id)["messages"] if m["type"] == "human"]
    assert said == ["one", "three"]
    later = {c["checkpoint_id"] for c in checkpoints(client, thread_id)}
    assert first_end in later


@pytest.mark.parametrize("going_on", [{}, {"resume": "no"}])
def test_a_question_that_was_answered_is_asked_again_at_its_checkpoint(
    client: httpx.Client, going_on: dict[str, Any]
) -> None:
    # the first answer is stored with that checkpoint, and LangGraph would go on with it whatever comes now
    thread_id = ask(client)
    asked = client.get(f"/threads/{thread_id}/state").json()["checkpoint_id"]
    run(client, thread_id=thread_id, resume="yes")
    frames = run(client, thread_id=thread_id, checkpoint_id=asked, **going_on)
    assert frames[-1]["interrupts"][0]["value"] == {"question": "May I?"}
    assert run(client, thread_id=thread_id, resume="no")[-1]["event"] == "complete"
    assert values(client, thread_id)["answer"] == "no"


@pytest.mark.parametrize("checkpoint_id", ["nope", "1f1e5b74-a711-6b37-8001-5b3dc6dbeb56", "../x"])
@pytest.mark.parametrize("body", [{}, {"input": {}}, {"resume": 1}, {"message": ""}])
def test_an_unknown_checkpoint_is_refused(
    server: RunningServer, client: httpx.Client, checkpoint_id: str, body: dict[str, Any]
) -> None:
    thread_id = pause(client)
    seen = len(server.trace())
    asked = {"thread_id": thread_id, "checkpoint_id": checkpoint_id, **body}
    problem_of(client.post("/runs/stream", json=asked), 404, "checkpoint_not_found")
    assert len(server.trace()) == seen


def test_a_checkpoint_of_another_thread_is_unknown(client: httpx.Client) -> None:
    mine, other = pause(client), pause(client)
    checkpoint_id = client.get(f"/threads/{other}/state").json()["checkpoint_id"]
    answer = client.post("/runs/stream", json={"thread_id": mine, "checkpoint_id": checkpoint_id})
    problem_of(answer, 404, "checkpoint_not_found")


def test_a_checkpoint_without_a_thread_is_unknown(client: httpx.Client) -> None:
    answer = client.post("/runs/stream", json={"graph": "steps", "input": {}, "checkpoint_id": "x"})
    assert answer.status_code == 404
