"""Answers to one interrupt, of every form and at every place (wire contract, section 1: `resume`)."""

from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run

ID = "0" * 32


def ask(client: httpx.Client, graph: str = "ask", **body: Any) -> tuple[str, list[dict[str, Any]]]:
    frames = run(client, graph=graph, input={}, **body)
    assert frames[-1]["event"] == "interrupt"
    return frames[0]["thread_id"], frames[-1]["interrupts"]


def answer_of(client: httpx.Client, thread_id: str) -> Any:
    return client.get(f"/threads/{thread_id}/state").json()["values"]["answer"]


ANSWERS: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1.5,
    2**53,
    "",
    "yes",
    "null",
    ID,
    [],
    [1, [2, {"a": None}]],
    [ID],
    {},
    {"approved": True},
    {"a": {"b": [{}, None]}},
    {"": ""},
    {"A" * 32: "capitals are no id"},
    {"0" * 31: "too short"},
    {"0" * 33: "too long"},
    {"g" * 32: "not hex"},
    {ID: "one key is an id", "other": "and one is not"},
    {"resume": 1, "update": {"log": ["x"]}, "goto": "after"},
    {"__type__": "x"},
    {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"], "kwargs": {"content": "x"}},
]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("form", ["bare", "map", "command"])
def test_any_json_value_is_an_answer_and_reaches_the_node_as_it_is(
    client: httpx.Client, form: str, answer: Any
) -> None:
    thread_id, interrupts = ask(client)
    by_id = {interrupts[0]["id"]: answer}
    body: dict[str, Any] = {
        "bare": {"resume": answer},
        "map": {"resume": by_id},
        "command": {"command": {"resume": answer}},
    }[form]
    rest = run(client, thread_id=thread_id, **body)
    assert events(rest) == ["start", "node", "node", "complete"]
    found = answer_of(client, thread_id)
    assert found == answer
    assert type(found) is type(answer)


@pytest.mark.parametrize("text", ["yes", "", "null", "  ", "two\nlines"])
def test_a_message_answers_the_only_interrupt(client: httpx.Client, text: str) -> None:
    thread_id, _ = ask(client)
    assert run(client, thread_id=thread_id, message=text)[-1]["event"] == "complete"
    assert answer_of(client, thread_id) == text


def test_the_interrupt_frame_says_what_is_asked_and_where(client: httpx.Client) -> None:
    frames = run(client, graph="ask", input={})
    interrupt = frames[-1]
    assert interrupt["next"] == ["question"]
    assert set(interrupt) == {"event", "next", "interrupts", "usage", "seq"}
    (pending,) = interrupt["interrupts"]
    assert set(pending) == {"id", "value", "node", "ns", "response_schema"}
    assert pending["value"] == {"question": "May I?"}
    assert (pending["node"], pending["ns"], pending["response_schema"]) == ("question", [], None)


MODES: list[Any] = [
    [],
    ["messages"],
    ["custom"],
    ["values"],
    ["tasks"],
    ["checkpoints"],
    ["debug"],
    ["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug"],
]


@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("graph", ["ask", "ask_both", "ask_below", "ask_far"])
@pytest.mark.parametrize("subgraphs", [False, True])
def test_one_interrupt_frame_whatever_the_modes_with_each_question_once(
    client: httpx.Client, graph: str, modes: list[str], subgraphs: bool
) -> None:
    frames = run(client, graph=graph, input={}, stream_mode=modes, subgraphs=subgraphs)
    assert events(frames).count("interrupt") == 1
    assert events(frames)[-1] == "interrupt"
    ids = [pending["id"] for pending in frames[-1]["interrupts"]]
    assert len(ids) == len(set(ids)) == (2 if graph in ("ask_both", "ask_far") else 1)


def test_an_interrupt_in_a_subgraph_names_its_node_and_place(client: httpx.Client) -> None:
    thread_id, (pending,) = ask(client, "ask_below", subgraphs=True)
    assert pending["node"] == "inner"
    (place,) = pending["ns"]
    assert place.startswith("child:")
    assert run(client, thread_id=thread_id, resume={"deep": True})[-1]["event"] == "complete"
    assert answer_of(client, thread_id) == {"deep": True}


def test_interrupts_two_levels_down_name_the_whole_way(client: httpx.Client) -> None:
    _, interrupts = ask(client, "ask_far")
    ways = sorted([place.split(":")[0] for place in pending["ns"]] for pending in interrupts)
    assert ways == [["far", "child"], ["near"]]
    assert {pending["node"] for pending in interrupts} == {"inner"}


def test_two_interrupts_of_one_node_are_asked_one_after_the_other(client: httpx.Client) -> None:
    thread_id, (first,) = ask(client, "ask_twice")
    assert first["value"] == "first?"
    frames = run(client, thread_id=thread_id, resume={first["id"]: "a"})
    (second,) = frames[-1]["interrupts"]
    assert second["value"] == "second?"
    assert events(run(client, thread_id=thread_id, resume=None)) == ["start", "node", "complete"]
    assert answer_of(client, thread_id) == ["a", None]


def test_a_node_that_has_ended_does_not_run_again_after_an_answer(server: RunningServer, client: httpx.Client) -> None:
    seen = len(server.trace())
    thread_id, _ = ask(client)
    run(client, thread_id=thread_id, resume="yes")
    assert server.trace()[seen:] == ["before", "question", "question", "answered", "after"]


@pytest.mark.parametrize("form", [{"resume": "yes"}, {"message": "yes"}, {"command": {"resume": "yes"}}])
@pytest.mark.parametrize("graph", ["ask", "ask_below"])
def test_a_state_edited_while_it_waits_is_resumed_with_the_edit(
    client: httpx.Client, graph: str, form: dict[str, Any]
) -> None:
    thread_id, _ = ask(client, graph)
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["edited"]}})
    assert edit.status_code == 200, edit.text
    rest = run(client, thread_id=thread_id, **form)
    assert rest[-1]["event"] == "complete", rest[-1]
    values = client.get(f"/threads/{thread_id}/state").json()["values"]
    assert "edited" in values["log"]
    assert values["log"][-1] == "after"
    assert values["answer"] == "yes"


@pytest.mark.parametrize("going_on", [{}, {"resume": "another"}])
def test_a_node_that_failed_after_its_answer_runs_again_with_it(
    server: RunningServer, client: httpx.Client, going_on: dict[str, Any]
) -> None:
    thread_id, _ = ask(client, "ask_fail")
    assert run(client, thread_id=thread_id, resume="fail")[-1]["code"] == "graph_error"
    assert client.get(f"/threads/{thread_id}").json()["status"] == "error"
    seen = len(server.trace())
    assert run(client, thread_id=thread_id, **going_on)[-1]["code"] == "graph_error"
    assert server.trace()[seen:] == ["answered fail"]


def test_an_edit_after_a_failure_lets_the_question_be_answered_anew(client: httpx.Client) -> None:
    thread_id, _ = ask(client, "ask_fail")
    run(client, thread_id=thread_id, resume="fail")
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["edited"]}})
    assert edit.status_code == 200, edit.text
    assert run(client, thread_id=thread_id, resume="well")[-1]["event"] == "complete"
    assert answer_of(client, thread_id) == "well"


@pytest.mark.parametrize("count", [200])
def test_the_answer_may_come_the_instant_the_interrupt_frame_does(client: httpx.Client, count: int) -> None:
    thread_id, _ = ask(client, "drill")
    for turn in range(count):
        answer = "stop" if turn == count - 1 else turn
        with client.stream("POST", "/runs/stream", json={"thread_id": thread_id, "resume": answer}) as stream:
            # the next answer is sent as soon as the frame is there, before this response has come to its end
            last = next(line for line in stream.iter_lines() if '"event":"interrupt"' in line or '"complete"' in line)
            assert stream.status_code == 200
            with client.stream("GET", f"/threads/{thread_id}") as thread:
                assert thread.read()
                assert thread.json()["status"] != "busy"
    assert '"event":"complete"' in last
    values = client.get(f"/threads/{thread_id}/state").json()["values"]
    assert values["log"] == [*map(str, range(count - 1)), "stop"]


@pytest.mark.parametrize("form", [{"resume": "x"}, {"resume": {ID: "x"}}, {"command": {"resume": "x"}}])
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_an_answer_on_an_unknown_thread_is_refused(client: httpx.Client, path: str, form: dict[str, Any]) -> None:
    body = {"graph": "ask", "thread_id": "never-seen", **form}
    problem_of(client.post(path, json=body), 404, "thread_not_found")
    problem_of(client.get("/threads/never-seen"), 404, "thread_not_found")
