"""The same request twice makes one run (wire contract, section 1: `run_id`)."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import ROOT, RunningServer, events, frames_of, problem_of, run, running, wait_until

Sent = tuple[dict[str, Any], dict[str, str]]


def keyed(form: str, body: dict[str, Any]) -> Sent:
    """A body and headers that carry a new key, in the one form or the other."""
    key = str(uuid.uuid4())
    return ({**body, "run_id": key}, {}) if form == "run_id" else (body, {"idempotency-key": key})


def send(client: httpx.Client, sent: Sent, path: str = "/runs/stream", **headers: str) -> httpx.Response:
    return client.post(path, json=sent[0], headers={**sent[1], **headers})


FORMS = pytest.mark.parametrize("form", ["run_id", "header"])


@FORMS
def test_the_same_request_again_is_the_same_run_and_executes_nothing(
    server: RunningServer, client: httpx.Client, form: str
) -> None:
    sent = keyed(form, {"graph": "talk", "thread_id": f"again-{form}", "message": "hi"})
    first = send(client, sent)
    seen = len(server.trace())
    for _ in range(3):
        second = send(client, sent)
        assert (second.status_code, second.content) == (200, first.content)
        assert second.headers["location"] == first.headers["location"]
    assert len(server.trace()) == seen
    assert len(client.get("/runs", params={"thread_id": f"again-{form}"}).json()["runs"]) == 1


def test_the_run_has_the_id_that_the_client_chose(client: httpx.Client) -> None:
    run_id = str(uuid.uuid4())
    assert run(client, graph="steps", input={}, run_id=run_id)[0]["run_id"] == run_id
    assert client.get(f"/runs/{run_id}").json()["status"] == "success"


@FORMS
def test_bodies_that_are_equal_as_json_are_the_same_request(
    server: RunningServer, client: httpx.Client, form: str
) -> None:
    first, headers = keyed(form, {"graph": "steps", "input": {"answer": {"a": 1, "b": [2, -0.0, 1e2]}}})
    text = json.dumps(first)
    assert client.post("/runs/stream", json=first, headers=headers).status_code == 200
    seen = len(server.trace())
    backwards = json.dumps(dict(reversed(first.items())), indent=3)
    numbers = text.replace('"a": 1', '"a": 1.0').replace("[2, -0.0, 100.0]", "[2.0, 0, 100]")
    escaped = text.replace('"steps"', '"\\u0073teps"')
    assert len({text, backwards, numbers, escaped}) == 4
    for content in (backwards, numbers, escaped):
        answer = client.post("/runs/stream", content=content, headers={**headers, "content-type": "application/json"})
        assert answer.status_code == 200, content
    assert len(server.trace()) == seen


OTHER: list[dict[str, Any]] = [
    {"input": {"answer": True}},
    {"input": {"answer": "1"}},
    {"input": {"answer": [1]}},
    {"input": {}},
    {"input": None},
    {"graph": "ask"},
    {"metadata": {"x": 1}},
    {"stream_mode": ["updates"]},
    {"nope": 1},
]


@FORMS
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
@pytest.mark.parametrize("other", OTHER)
def test_another_body_with_the_same_key_is_refused(
    server: RunningServer, client: httpx.Client, form: str, path: str, other: dict[str, Any]
) -> None:
    sent = keyed(form, {"graph": "steps", "input": {"answer": 1}})
    run_id = frames_of(send(client, sent).text)[0]["run_id"]
    seen = len(server.trace())
    found = problem_of(send(client, ({**sent[0], **other}, sent[1]), path), 409, "idempotency_conflict")
    assert found["run_id"] == run_id
    assert len(server.trace()) == seen


@FORMS
@pytest.mark.parametrize("turn", range(4))
def test_ten_equal_requests_at_once_make_one_run_and_equal_streams(
    server: RunningServer, client: httpx.Client, form: str, turn: int
) -> None:
    thread_id = f"{form}-{turn}"
    sent = keyed(form, {"graph": "ask", "thread_id": thread_id, "input": {}})
    seen = len(server.trace())
    with server.client() as many, ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: send(many, sent), range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert len({answer.content for answer in answers}) == 1
    assert server.trace()[seen:] == ["before", "question"]
    assert len(client.get("/runs", params={"thread_id": thread_id}).json()["runs"]) == 1


def test_equal_answers_at_once_have_their_effect_once(server: RunningServer, client: httpx.Client) -> None:
    for _ in range(4):
        thread_id = run(client, graph="ask", input={})[0]["thread_id"]
        sent = keyed("header", {"thread_id": thread_id, "resume": "yes"})
        seen = len(server.trace())
        with server.client() as many, ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _, sent=sent: send(many, sent), range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
        assert server.trace()[seen:].count("answered") == 1


@FORMS
def test_a_stream_and_an_invoke_with_one_key_are_one_run(
    server: RunningServer, client: httpx.Client, form: str
) -> None:
    sent = keyed(form, {"graph": "talk", "message": "hi"})
    frames = frames_of(send(client, sent).text)
    seen = len(server.trace())
    invoked = send(client, sent, "/runs/invoke").json()
    assert (invoked["run_id"], invoked["status"]) == (frames[0]["run_id"], "success")
    sent = keyed(form, {"graph": "steps", "input": {}})
    invoked = send(client, sent, "/runs/invoke").json()
    assert send(client, sent, "/runs/invoke").json() == invoked
    frames = frames_of(send(client, sent).text)
    assert frames[0]["run_id"] == invoked["run_id"]
    assert events(frames) == ["start", "node", "node", "node", "complete"]
    assert server.trace()[seen:] == ["one", "two", "three"]


@FORMS
def test_a_client_that_was_cut_off_goes_on_after_its_last_event(client: httpx.Client, form: str) -> None:
    sent = keyed(form, {"graph": "talk", "message": "hi"})
    whole = frames_of(send(client, sent).text)
    run_id = whole[0]["run_id"]
    for seq in (1, 3, len(whole) - 1):
        rest = send(client, sent, **{"last-event-id": f"{run_id}.{seq}"})
        assert frames_of(rest.text) == whole[seq:]
    at_the_end = send(client, sent, **{"last-event-id": f"{run_id}.{len(whole)}"})
    assert (at_the_end.status_code, at_the_end.content) == (200, b"")


def test_a_last_event_of_another_run_than_the_body_names_is_refused(client: httpx.Client) -> None:
    other = run(client, graph="steps", input={})[0]["run_id"]
    sent = keyed("run_id", {"graph": "steps", "input": {}})
    send(client, sent)
    problem_of(send(client, sent, **{"last-event-id": f"{other}.1"}), 400, "bad_event_id")


@FORMS
def test_a_repetition_while_the_run_goes_on_follows_it_to_its_end(
    server: RunningServer, client: httpx.Client, form: str
) -> None:
    sent = keyed(form, {"graph": "slow_sync", "thread_id": f"live-{form}", "input": {}})
    seen = len(server.trace())
    with client.stream("POST", "/runs/stream", json=sent[0], headers=sent[1]) as first:
        wait_until(lambda: "tick" in server.trace()[seen:], "the node works")
        # the thread is busy, which is no reason to refuse: the key is looked at first
        second = send(client, sent)
        first.read()
    assert second.content == first.content
    assert events(frames_of(second.text))[-1] == "complete"
    assert server.trace()[seen:].count("left") == 1


@FORMS
def test_a_repetition_is_looked_at_before_what_the_thread_waits_for(client: httpx.Client, form: str) -> None:
    sent = keyed(form, {"graph": "ask", "thread_id": f"paused-{form}", "input": {}})
    first = send(client, sent)
    assert send(client, sent).content == first.content
    answer = keyed(form, {"thread_id": f"paused-{form}", "resume": "yes"})
    second = send(client, answer)
    assert send(client, answer).content == second.content
    assert frames_of(second.text)[-1]["event"] == "complete"


def test_a_request_that_was_refused_leaves_its_key_free(client: httpx.Client) -> None:
    sent = keyed("header", {"graph": "steps", "thread_id": "free", "resume": 1})
    problem_of(send(client, sent), 404, "thread_not_found")
    assert send(client, ({"graph": "steps", "thread_id": "free", "input": {}}, sent[1])).status_code == 200


def test_two_keys_are_two_runs(client: httpx.Client) -> None:
    body = {"graph": "steps", "input": {}}
    ids = {frames_of(send(client, keyed(form, body)).text)[0]["run_id"] for form in ("header", "header", "run_id")}
    assert len(ids) == 3


def test_an_id_that_another_run_has_by_the_servers_choice_is_taken(client: httpx.Client) -> None:
    run_id = run(client, graph="steps", input={})[0]["run_id"]
    body = {"graph": "steps", "input": {}, "run_id": run_id}
    problem_of(client.post("/runs/stream", json=body), 409, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_empty_or_too_long_is_refused(client: httpx.Client, key: str) -> None:
    answer = send(client, ({"graph": "steps", "input": {}}, {"idempotency-key": key}))
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["header", "idempotency-key"]


def test_a_key_goes_with_its_thread(client: httpx.Client) -> None:
    sent = keyed("header", {"graph": "steps", "thread_id": "gone", "input": {}})
    first = frames_of(send(client, sent).text)[0]["run_id"]
    assert client.delete("/threads/gone").status_code in (200, 204)
    assert frames_of(send(client, sent).text)[0]["run_id"] != first


def test_a_key_outlives_the_process_and_its_graph(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "langgraph.json"
    graphs = {name: f"{ROOT}/tests/project/graphs.py:{name}" for name in ("form", "steps")}
    config.write_text(json.dumps({"graphs": graphs, "default_graph": "steps"}))
    sent = keyed("header", {"thread_id": "t", "input": {}})
    with running(data, config=config) as server, server.client() as client:
        first = send(client, sent)
        assert frames_of(first.text)[0]["graph"] == "steps"
        assert server.stop() == 0
    config.write_text(json.dumps({"graphs": {"steps": f"{ROOT}/tests/project/missing.py:steps"}}))
    with running(data, config=config) as server, server.client() as client:
        problem_of(client.post("/runs/stream", json={"thread_id": "t", "input": {}}), 503, "graph_unavailable")
        assert send(client, sent).content == first.content
        # an invoke's output is read through the graph, which is not there
        problem_of(send(client, sent, "/runs/invoke"), 503, "graph_unavailable")
