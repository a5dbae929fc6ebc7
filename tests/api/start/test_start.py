"""Which graph, which thread, with what: a start that is well-formed (wire contract, section 1)."""

import uuid
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run, wait_until


def state(client: httpx.Client, thread_id: str) -> dict[str, Any]:
    answer = client.get(f"/threads/{thread_id}/state")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def said(client: httpx.Client, thread_id: str) -> list[str]:
    return [message["content"] for message in state(client, thread_id)["values"]["messages"]]


def test_the_first_graph_is_meant_when_none_is_named(client: httpx.Client) -> None:
    assert run(client, input={})[0]["graph"] == "steps"


def test_the_threads_own_graph_is_meant_when_none_is_named(client: httpx.Client) -> None:
    thread_id = run(client, graph="form", input={"topic": "tides"})[0]["thread_id"]
    assert run(client, thread_id=thread_id, input={"topic": "more"})[0]["graph"] == "form"


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_an_unknown_graph_is_refused_with_the_names(client: httpx.Client, path: str) -> None:
    found = problem_of(client.post(path, json={"graph": "nope", "input": {}}), 404, "graph_not_found")
    assert {"steps", "talk", "broken"} <= set(found["graphs"])


def test_another_graph_than_the_threads_is_refused(server: RunningServer, client: httpx.Client) -> None:
    thread_id = run(client, graph="form", input={"topic": "tides"})[0]["thread_id"]
    seen = len(server.trace())
    problem_of(
        client.post("/runs/stream", json={"graph": "steps", "thread_id": thread_id, "input": {}}), 409, "graph_mismatch"
    )
    assert len(server.trace()) == seen
    assert run(client, graph="form", thread_id=thread_id, input={"topic": "more"})[-1]["event"] == "complete"


def test_a_graph_that_does_not_load_is_unavailable_and_the_reason_is_told(client: httpx.Client) -> None:
    answer = client.post("/runs/stream", json={"graph": "broken", "input": {}})
    found = problem_of(answer, 503, "graph_unavailable")
    assert "missing.py" in found["reason"]
    assert int(answer.headers["retry-after"]) >= 0


THREAD_IDS = ["a", "A-Z_0.9:x", "...", "x" * 255, "0", "-", "user:42.chat_7"]


@pytest.mark.parametrize("thread_id", THREAD_IDS)
def test_a_thread_id_may_be_any_text_of_its_alphabet(client: httpx.Client, thread_id: str) -> None:
    frames = run(client, graph="steps", thread_id=thread_id, input={})
    assert frames[0]["thread_id"] == thread_id
    assert state(client, thread_id)["values"]["log"] == ["one", "two", "three"]


def test_the_server_makes_a_uuid_for_a_thread_without_an_id(client: httpx.Client) -> None:
    first, second = (run(client, graph="steps", input={})[0]["thread_id"] for _ in range(2))
    assert str(uuid.UUID(first)) == first
    assert first != second


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_an_unknown_thread_can_be_refused_and_is_not_made_then(client: httpx.Client, path: str) -> None:
    thread_id = str(uuid.uuid4())
    body = {"graph": "steps", "thread_id": thread_id, "input": {}, "if_not_exists": "reject"}
    problem_of(client.post(path, json=body), 404, "thread_not_found")
    problem_of(client.get(f"/threads/{thread_id}"), 404, "thread_not_found")
    run(client, graph="steps", thread_id=thread_id, input={})
    assert client.post(path, json=body).status_code == 200


def test_a_thread_made_beforehand_takes_its_first_run(client: httpx.Client) -> None:
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    assert run(client, graph="steps", thread_id=thread_id, input={}, if_not_exists="reject")[-1]["event"] == "complete"


def test_a_run_without_anything_to_do_makes_no_thread(client: httpx.Client) -> None:
    thread_id = str(uuid.uuid4())
    problem_of(client.post("/runs/stream", json={"thread_id": thread_id}), 409, "nothing_to_continue")
    problem_of(client.get(f"/threads/{thread_id}"), 404, "thread_not_found")


NOTHING: list[dict[str, Any]] = [{}, {"input": None}, {"message": None}, {"command": None}]


@pytest.mark.parametrize("nothing", NOTHING)
def test_there_is_nothing_to_continue_on_a_fresh_or_finished_thread(
    client: httpx.Client, nothing: dict[str, Any]
) -> None:
    problem_of(client.post("/runs/stream", json={"graph": "steps", **nothing}), 409, "nothing_to_continue")
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    body = {"graph": "steps", "thread_id": thread_id, **nothing}
    problem_of(client.post("/runs/stream", json=body), 409, "nothing_to_continue")
    run(client, graph="steps", thread_id=thread_id, input={})
    problem_of(client.post("/runs/stream", json=body), 409, "nothing_to_continue")


@pytest.mark.parametrize("nothing", NOTHING)
def test_nothing_continues_a_thread_that_is_paused_at_a_breakpoint(
    client: httpx.Client, nothing: dict[str, Any]
) -> None:
    frames = run(client, graph="steps", input={}, interrupt_after=["one"])
    assert frames[-1]["next"] == ["two"]
    rest = run(client, thread_id=frames[0]["thread_id"], **nothing)
    assert [frame["node"] for frame in rest if frame["event"] == "node"] == ["two", "three"]


def test_nothing_continues_a_failed_thread_from_the_node_that_failed(
    server: RunningServer, client: httpx.Client
) -> None:
    frames = run(client, graph="mendable", input={})
    assert frames[-1]["event"] == "error"
    thread_id = frames[0]["thread_id"]
    seen = len(server.trace())
    assert run(client, thread_id=thread_id)[-1]["event"] == "error"
    edit = client.post(f"/threads/{thread_id}/state", json={"values": {"answer": "mended"}})
    assert edit.status_code == 200, edit.text
    rest = run(client, thread_id=thread_id, include_output=True)
    assert events(rest) == ["start", "node", "complete"]
    assert rest[-1]["output"]["log"] == ["before", "once"]
    assert server.trace()[seen:] == ["fail_once", "fail_once"]


def test_nothing_continues_a_cancelled_thread_from_the_node_in_flight(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = str(uuid.uuid4())
    seen = len(server.trace())
    with client.stream("POST", "/runs/stream", json={"graph": "slow", "thread_id": thread_id, "input": {}}) as stream:
        run_id = stream.headers["location"].split("/")[2]
        wait_until(lambda: "tick" in server.trace()[seen:], "the node works")
        cancelled = client.post(f"/runs/{run_id}/cancel", params={"wait": "true"}).json()
        assert cancelled["status"] == "cancelled"
    again = len(server.trace())
    body = {"thread_id": thread_id, "interrupt_after": ["tick"]}
    with client.stream("POST", "/runs/stream", json=body) as stream:
        assert stream.status_code == 200
        run_id = stream.headers["location"].split("/")[2]
        wait_until(lambda: len(server.trace()) > again, "the node works again")
        client.post(f"/runs/{run_id}/cancel", params={"wait": "true"})
    assert server.trace()[again] == "tick"


def test_new_input_on_a_failed_thread_begins_at_the_start(server: RunningServer, client: httpx.Client) -> None:
    thread_id = run(client, graph="mendable", input={})[0]["thread_id"]
    seen = len(server.trace())
    assert run(client, thread_id=thread_id, input={"answer": "mended"})[-1]["event"] == "complete"
    assert server.trace()[seen:] == ["before", "fail_once"]


def test_a_message_is_chat_input_on_an_idle_thread(client: httpx.Client) -> None:
    thread_id = run(client, graph="talk", message="one")[0]["thread_id"]
    run(client, thread_id=thread_id, message="two")
    messages = state(client, thread_id)["values"]["messages"]
    assert [(m["type"], m["content"]) for m in messages[::2]] == [("human", "one"), ("human", "two")]


def test_a_message_fills_the_only_required_text_of_an_input_without_messages(client: httpx.Client) -> None:
    answer = client.post("/runs/invoke", json={"graph": "form", "message": "tides"}).json()
    assert answer["output"]["result"] == "TIDES"


def test_a_message_that_fits_no_field_of_the_input_is_refused(client: httpx.Client) -> None:
    found = problem_of(client.post("/runs/stream", json={"graph": "odd", "message": "hi"}), 422, "invalid_request")
    assert found["errors"][0]["loc"] == ["body", "message"]


@pytest.mark.parametrize("text", ["", " ", "a\u2028b\u0085c\x00d", "🙂" * 1000])
def test_a_message_arrives_as_it_was_written(client: httpx.Client, text: str) -> None:
    thread_id = run(client, graph="talk", message=text)[0]["thread_id"]
    assert said(client, thread_id)[0] == text


def test_input_with_keys_the_graph_does_not_know_is_taken(client: httpx.Client) -> None:
    assert run(client, graph="steps", input={"nope": 1})[-1]["event"] == "complete"
