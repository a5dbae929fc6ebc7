"""The form of a start's body: what is refused before the server looks at any thread (wire contract, section 1)."""

import uuid
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, problem_of, run

JSON = {"content-type": "application/json"}

WRONG: list[tuple[str, Any]] = [
    ("graph", 1),
    ("graph", ["steps"]),
    ("thread_id", ""),
    ("thread_id", "."),
    ("thread_id", ".."),
    ("thread_id", "a/b"),
    ("thread_id", "a b"),
    ("thread_id", "é"),
    ("thread_id", "a\n"),
    ("thread_id", "x" * 256),
    ("thread_id", 7),
    ("message", 5),
    ("message", {"content": "hi"}),
    ("message", ["hi"]),
    ("command", "goto"),
    ("command", {"nope": 1}),
    ("command", {"update": 5}),
    ("use_hitl", "yes"),
    ("use_hitl", 1),
    ("interrupt_before", "one"),
    ("interrupt_before", ["nope"]),
    ("interrupt_after", {"one": True}),
    ("interrupt_after", [1]),
    ("stream_mode", "update"),
    ("stream_mode", ["updates", "all"]),
    ("stream_mode", {"updates": True}),
    ("subgraphs", "true"),
    ("tokens", 5),
    ("checkpoint_id", 5),
    ("checkpoint_id", ""),
    ("config", []),
    ("config", {"nope": 1}),
    ("config", {"tags": "a"}),
    ("config", {"tags": [1]}),
    ("config", {"metadata": []}),
    ("config", {"recursion_limit": 0}),
    ("config", {"recursion_limit": "5"}),
    ("config", {"recursion_limit": 1.5}),
    ("config", {"configurable": []}),
    ("config", {"configurable": {"thread_id": "another"}}),
    ("config", {"configurable": {"checkpoint_id": "x"}}),
    ("config", {"configurable": {"checkpoint_ns": ""}}),
    ("config", {"configurable": {"checkpoint_map": {}}}),
    ("config", {"configurable": {"__pregel_resuming": True}}),
    ("context", 5),
    ("context", []),
    ("metadata", "x"),
    ("metadata", [1]),
    ("durability", "never"),
    ("run_id", "abc"),
    ("run_id", "0197e0b6"),
    ("run_id", 5),
    ("multitask_strategy", "wait"),
    ("on_disconnect", "stop"),
    ("if_not_exists", "ignore"),
    ("on_interrupted", "keep"),
    ("timeout_seconds", 0),
    ("timeout_seconds", -1),
    ("timeout_seconds", "5"),
    ("timeout_seconds", True),
    ("include_output", "true"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_a_wrong_value_is_refused_with_its_place(client: httpx.Client, path: str, field: str, value: Any) -> None:
    body = {"graph": "steps", **({} if field in ("message", "command") else {"input": {}}), field: value}
    answer = client.post(path, json=body)
    found = problem_of(answer, 422, "invalid_request")["errors"]
    assert all(set(error) == {"loc", "msg"} and isinstance(error["msg"], str) and error["msg"] for error in found)
    # what depends on several fields is said of the whole body
    assert any(error["loc"][:2] == ["body", field] or error["loc"] == ["body"] for error in found), found


@pytest.mark.parametrize("value", [[], [1], "text", 0, 5, True, False])
def test_input_that_is_no_object_is_refused_before_a_run_begins(client: httpx.Client, value: Any) -> None:
    answer = client.post("/runs/stream", json={"graph": "steps", "input": value})
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["body", "input"]


@pytest.mark.parametrize("field", ["inputs", "threadId", "streamMode", "stream_modes", "Graph", "hitl", "webhook"])
def test_a_field_that_is_not_known_is_refused_by_name(client: httpx.Client, field: str) -> None:
    answer = client.post("/runs/stream", json={"graph": "steps", "input": {}, field: None})
    assert problem_of(answer, 422, "invalid_request")["errors"][0]["loc"] == ["body", field]


def test_query_parameters_that_are_not_known_are_left_alone(client: httpx.Client) -> None:
    answer = client.post("/runs/stream?utm=1&graph=nope", json={"graph": "steps", "input": {}})
    assert answer.status_code == 200


def test_assistant_id_is_reserved_for_langgraphs_own_api(client: httpx.Client) -> None:
    answer = client.post("/runs/stream", json={"assistant_id": "steps", "input": {}})
    assert problem_of(answer, 422, "not_supported")["errors"][0]["loc"] == ["body", "assistant_id"]


ACTIONS: dict[str, Any] = {"message": "hi", "input": {"log": []}, "resume": None, "command": {"goto": "one"}}


@pytest.mark.parametrize("first", list(ACTIONS))
@pytest.mark.parametrize("second", list(ACTIONS))
def test_two_actions_in_one_request_are_refused(client: httpx.Client, first: str, second: str) -> None:
    if first == second:
        return
    body = {"graph": "steps", first: ACTIONS[first], second: ACTIONS[second]}
    problem_of(client.post("/runs/stream", json=body), 422, "invalid_request")


def test_empty_input_is_an_action_too(client: httpx.Client) -> None:
    problem_of(client.post("/runs/stream", json={"graph": "steps", "input": {}, "message": ""}), 422, "invalid_request")


def test_null_input_counts_as_no_action(client: httpx.Client) -> None:
    frames = run(client, graph="talk", input=None, message="hi", command=None)
    assert frames[-1]["event"] == "complete"


def test_a_null_resume_is_an_answer_and_not_nothing(client: httpx.Client) -> None:
    problem_of(client.post("/runs/stream", json={"graph": "steps", "resume": None}), 404, "thread_not_found")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
)
@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_a_body_that_another_site_could_send_is_refused(client: httpx.Client, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    found = problem_of(client.post(path, content=b'{"graph": "steps"}', headers=headers), 415, "unsupported_media_type")
    assert "application/json" in found["detail"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_is_taken_however_its_type_is_written(client: httpx.Client, kind: str) -> None:
    answer = client.post("/runs/invoke", content=b'{"graph": "steps", "input": {}}', headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"nope",
        b'{"graph": "steps",}',
        b"{'graph': 'steps'}",
        b'{"input": NaN}',
        b'{"input": "\\ud800"}',
        b'{"input": "\xff"}',
        b"[]",
        b'"text"',
        b"null",
        b'{"graph": "steps", "input": {"answer": %b}}' % (b"[" * 300 + b"]" * 300),
        b'{"graph": "steps", "input": {"answer": %b}}' % (b"[" * 5000 + b"]" * 5000),
    ],
)
def test_broken_json_is_refused_like_any_other_wrong_body(client: httpx.Client, content: bytes) -> None:
    found = problem_of(client.post("/runs/stream", content=content, headers=JSON), 422, "invalid_request")
    assert [error["loc"] for error in found["errors"]] == [["body"]]


def test_a_deep_value_that_is_taken_comes_back_whole(client: httpx.Client) -> None:
    deep: Any = "bottom"
    for _ in range(150):
        deep = [deep]
    frames = run(client, graph="steps", input={"answer": deep}, stream_mode="values", include_output=True)
    assert frames[-1]["output"]["answer"] == deep


def test_every_field_at_its_default_is_the_same_as_none_of_them(client: httpx.Client) -> None:
    defaults = {
        "use_hitl": False,
        "interrupt_before": [],
        "interrupt_after": [],
        "stream_mode": ["updates", "messages", "custom"],
        "subgraphs": False,
        "config": {},
        "metadata": {},
        "durability": "sync",
        "multitask_strategy": "reject",
        "on_disconnect": "cancel",
        "if_not_exists": "create",
        "on_interrupted": "reject",
        "include_output": False,
    }
    plain = run(client, graph="writers", input={})
    assert sorted(events(run(client, graph="writers", input={}, **defaults))) == sorted(events(plain))
    nothing = dict.fromkeys(
        ["tokens", "checkpoint_id", "context", "run_id", "timeout_seconds", "stream_mode", "config", "thread_id"]
    )
    assert sorted(events(run(client, graph="writers", input={}, **nothing))) == sorted(events(plain))
    assert {"start", "node", "custom", "complete"} == set(events(plain))


def test_no_node_runs_for_a_request_that_is_refused(server: RunningServer, client: httpx.Client) -> None:
    seen = len(server.trace())
    thread_id = str(uuid.uuid4())
    extras: list[dict[str, Any]] = [{"nope": 1}, {"use_hitl": "yes"}, {"assistant_id": "x"}, {"message": "x"}]
    for extra in extras:
        body = {"graph": "steps", "thread_id": thread_id, "input": {}, **extra}
        assert client.post("/runs/stream", json=body).status_code == 422
    assert len(server.trace()) == seen
    problem_of(client.get(f"/threads/{thread_id}"), 404, "thread_not_found")
