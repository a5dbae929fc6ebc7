"""Wait for the end and get it as one answer (wire contract, section 1: `/runs/invoke`)."""

import uuid
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, frames_of, problem_of, run, wait_until

KEYS = {"run_id", "thread_id", "status", "output", "interrupts", "next", "usage"}


def invoke(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/runs/invoke", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    assert set(found) == KEYS
    assert answer.headers["location"] == f"/runs/{found['run_id']}/stream"
    assert answer.headers["content-location"] == f"/threads/{found['thread_id']}/runs/{found['run_id']}"
    return found


def test_a_success_has_the_graphs_output_and_what_the_models_used(client: httpx.Client) -> None:
    found = invoke(client, graph="talk", message="hi", thread_id="invoked")
    assert (found["status"], found["thread_id"]) == ("success", "invoked")
    assert (found["interrupts"], found["next"]) == ([], [])
    types = [message["type"] for message in found["output"]["messages"]]
    assert types == ["human", "ai"]
    assert found["usage"]["speaker"]["input_tokens"] == 3
    assert found["usage"]["speaker"]["total_tokens"] == 3 + found["usage"]["speaker"]["output_tokens"]
    assert client.get(f"/runs/{found['run_id']}").json()["usage"] == found["usage"]


def test_the_output_is_what_the_graph_gives_out_and_not_its_whole_state(client: httpx.Client) -> None:
    found = invoke(client, graph="form", input={"topic": "tides"})
    streamed = run(client, graph="form", input={"topic": "tides"}, include_output=True)
    assert found["output"] == {**streamed[-1]["output"], "secret": found["output"]["secret"]}
    assert found["output"]["result"] == "TIDES"


def test_usage_is_null_when_no_model_told_any(client: httpx.Client) -> None:
    assert invoke(client, graph="steps", input={})["usage"] is None
    assert invoke(client, graph="mute", message="hi")["usage"] is None


def test_usage_is_summed_over_subgraphs_too(client: httpx.Client) -> None:
    assert invoke(client, graph="below", message="hi")["usage"].keys() == {"speaker"}


def test_an_interrupt_is_an_answer_with_its_questions(client: httpx.Client) -> None:
    found = invoke(client, graph="ask_both", input={})
    assert found["status"] == "interrupted"
    assert sorted(found["next"]) == ["left", "right"]
    assert {pending["node"] for pending in found["interrupts"]} == {"left", "right"}
    assert set(found["interrupts"][0]) == {"id", "value", "node", "ns", "response_schema"}
    assert found["output"]["log"] == []
    answers = {pending["id"]: 1 for pending in found["interrupts"]}
    again = invoke(client, thread_id=found["thread_id"], resume=answers)
    assert (again["status"], again["output"]["log"]) == ("success", ["left=1", "right=1", "after"])


def test_a_question_in_a_subgraph_is_told_with_its_place(client: httpx.Client) -> None:
    (pending,) = invoke(client, graph="ask_below", input={})["interrupts"]
    assert pending["node"] == "inner"
    assert [place.split(":")[0] for place in pending["ns"]] == ["child"]


def test_a_breakpoint_has_no_questions_and_the_state_so_far(client: httpx.Client) -> None:
    found = invoke(client, graph="steps", input={}, interrupt_after=["one"])
    assert (found["status"], found["interrupts"], found["next"]) == ("interrupted", [], ["two"])
    assert found["output"]["log"] == ["one"]
    assert invoke(client, thread_id=found["thread_id"])["status"] == "success"


def test_a_run_that_is_cancelled_answers_what_it_had(server: RunningServer, client: httpx.Client) -> None:
    run_id = str(uuid.uuid4())
    seen = len(server.trace())
    body = {"graph": "slow", "input": {}, "run_id": run_id}
    with client.stream("POST", "/runs/stream", json=body):
        wait_until(lambda: "tick" in server.trace()[seen:], "the node works")
        client.post(f"/runs/{run_id}/cancel", params={"wait": "true"})
    found = invoke(client, **body)
    assert (found["run_id"], found["status"], found["next"]) == (run_id, "cancelled", ["tick"])
    assert found["output"]["log"] == ["before"]
    assert found["interrupts"] == []


FAILURES: list[tuple[dict[str, Any], int, str]] = [
    ({"graph": "fails", "input": {}}, 500, "graph_error"),
    ({"graph": "fails_below", "input": {}}, 500, "graph_error"),
    ({"graph": "model_fails", "message": "hi", "stream_mode": "messages"}, 500, "model_error"),
    ({"graph": "loops", "input": {}, "config": {"recursion_limit": 2}}, 500, "recursion_limit"),
    ({"graph": "slow", "input": {}, "timeout_seconds": 0.2}, 504, "timeout"),
]


@pytest.mark.parametrize(("body", "status", "code"), FAILURES)
def test_a_failure_is_a_problem_that_names_its_run(
    client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    thread_id = str(uuid.uuid4())
    answer = client.post("/runs/invoke", json={**body, "thread_id": thread_id})
    found = problem_of(answer, status, code)
    assert found["thread_id"] == thread_id
    row = client.get(f"/runs/{found['run_id']}").json()
    assert row["error"] == {"code": code, "message": found["detail"]}
    assert row["status"] == ("timeout" if status == 504 else "error")
    # the stream of the same run ends with the same words
    last = frames_of(client.get(f"/runs/{found['run_id']}/stream").text)[-1]
    assert (last["event"], last["code"], last["error"]) == ("error", code, found["detail"])
    assert last["run_id"] == found["run_id"]


def test_the_error_frame_names_the_node_that_failed(client: httpx.Client) -> None:
    assert run(client, graph="fails", input={})[-1]["node"] == "fail"
    assert run(client, graph="model_fails", message="hi")[-1]["node"] == "speak"
    assert run(client, graph="model_fails", message="hi")[-1]["retryable"] is True
    assert run(client, graph="fails", input={})[-1]["retryable"] is False


def test_an_invoke_records_node_events_unless_it_asks_for_more(client: httpx.Client) -> None:
    plain = invoke(client, graph="talk", message="hi")
    assert events(frames_of(client.get(f"/runs/{plain['run_id']}/stream").text)) == ["start", "node", "complete"]
    more = invoke(client, graph="talk", message="hi", stream_mode=["messages"])
    frames = frames_of(client.get(f"/runs/{more['run_id']}/stream").text)
    assert set(events(frames)) == {"start", "token", "complete"}


def test_odd_values_come_out_as_strict_json(client: httpx.Client) -> None:
    answer = client.post("/runs/invoke", json={"graph": "odd", "input": {}})
    output = frames_of(f"data: {answer.text}\n\n")[0]["output"]
    assert output["colour"] == "red"
    assert output["point"] == {"x": 1, "y": None}
    assert output["plain"]["delta"] == 90


def test_accept_does_not_matter_to_an_invoke(client: httpx.Client) -> None:
    for accept in ("text/event-stream", "application/json", "*/*"):
        answer = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers={"accept": accept})
        assert answer.headers["content-type"] == "application/json"
