"""The API's own description: whole, true, and with examples that run (/openapi.json, /docs)."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import ROOT, RunningServer, events, frames_of, running

ROUTES = {
    ("post", "/runs/stream"),
    ("get", "/runs/stream"),
    ("post", "/runs/invoke"),
    ("get", "/runs"),
    ("get", "/runs/{run_id}"),
    ("get", "/runs/{run_id}/stream"),
    ("get", "/runs/{run_id}/events"),
    ("post", "/runs/{run_id}/cancel"),
    ("post", "/threads"),
    ("get", "/threads/{thread_id}"),
    ("patch", "/threads/{thread_id}"),
    ("delete", "/threads/{thread_id}"),
    ("post", "/threads/search"),
    ("post", "/threads/count"),
    ("post", "/threads/{thread_id}/copy"),
    ("get", "/threads/{thread_id}/state"),
    ("post", "/threads/{thread_id}/state"),
    ("get", "/threads/{thread_id}/state/{checkpoint_id}"),
    ("post", "/threads/{thread_id}/state/checkpoint"),
    ("get", "/threads/{thread_id}/history"),
    ("post", "/threads/{thread_id}/history"),
    ("get", "/threads/{thread_id}/runs/stream"),
    ("get", "/graphs"),
    ("get", "/graphs/{name}"),
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/metrics"),
}

FIELDS = {
    "graph",
    "thread_id",
    "input",
    "message",
    "resume",
    "command",
    "use_hitl",
    "interrupt_before",
    "interrupt_after",
    "stream_mode",
    "subgraphs",
    "tokens",
    "checkpoint_id",
    "config",
    "context",
    "metadata",
    "durability",
    "run_id",
    "multitask_strategy",
    "on_disconnect",
    "if_not_exists",
    "on_interrupted",
    "timeout_seconds",
    "include_output",
}


@pytest.fixture(scope="module")
def examples_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The graphs that the repository brings, and its scripted model."""
    data = tmp_path_factory.mktemp("examples") / "data"
    with running(data, config=ROOT / "langgraph.json", env={"OPENAI_API_KEY": ""}) as server:
        yield server


@pytest.fixture(scope="module")
def document(examples_server: RunningServer) -> dict[str, Any]:
    with examples_server.client() as client:
        answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def nested(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nested(item)
    elif isinstance(value, list):
        for item in value:
            yield from nested(item)


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {"title", "version"} <= document["info"].keys()
    assert {(method, path) for method, path, _ in operations(document)} >= ROUTES


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for node in nested(document):
        if isinstance(reference := node.get("$ref"), str):
            target: Any = document
            assert reference.startswith("#/")
            for part in reference[2:].split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]


def test_operations_have_ids_of_their_own_and_say_what_they_do(document: dict[str, Any]) -> None:
    found = list(operations(document))
    ids = [operation["operationId"] for _, _, operation in found]
    assert len(ids) == len(set(ids))
    for _, path, operation in found:
        assert operation.get("description") or operation.get("summary"), path
        assert operation["responses"], path


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        assert all(p["required"] for p in operation.get("parameters", []) if p["in"] == "path")


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_the_body_of_a_start_lists_every_field_with_its_meaning(document: dict[str, Any], path: str) -> None:
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"].keys() == FIELDS
    assert schema["additionalProperties"] is False
    assert all(field.get("description") for field in schema["properties"].values())
    assert schema["properties"]["durability"]["default"] == "sync"


def parameters(document: dict[str, Any], method: str, path: str) -> set[tuple[str, str]]:
    return {(p["in"], p["name"]) for p in document["paths"][path][method].get("parameters", [])}


def test_a_start_by_query_lists_its_fields(document: dict[str, Any]) -> None:
    fields = {name for place, name in parameters(document, "get", "/runs/stream") if place == "query"}
    assert fields == {
        "graph",
        "message",
        "thread_id",
        "run_id",
        "use_hitl",
        "stream_mode",
        "subgraphs",
        "tokens",
        "on_disconnect",
    }


def test_the_headers_that_find_a_run_again_are_listed(document: dict[str, Any]) -> None:
    again = {("header", "Idempotency-Key"), ("header", "Last-Event-ID")}
    assert parameters(document, "post", "/runs/stream") == again
    assert again <= parameters(document, "get", "/runs/stream")
    assert parameters(document, "post", "/runs/invoke") == {("header", "Idempotency-Key")}


def test_errors_are_described_as_problems_and_as_nothing_else(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document.get("components", {}).get("schemas", {})
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                assert "application/problem+json" in response["content"], (path, status)


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_the_examples_run_as_they_are_in_their_order(
    examples_server: RunningServer, document: dict[str, Any], path: str
) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert len(content["examples"]) >= 3
    with examples_server.client() as client:
        client.delete("/threads/trip")
        for name, example in content["examples"].items():
            assert example["summary"]
            answer = client.post(path, json=example["value"])
            assert answer.status_code == 200, (name, answer.text)
            if path == "/runs/stream":
                kinds = events(frames_of(answer.text))
                assert kinds[0] == "start"
                assert kinds[-1] in ("complete", "interrupt"), name
            else:
                assert answer.json()["status"] in ("success", "interrupted"), name


def test_the_examples_of_answers_have_the_form_of_real_ones(
    examples_server: RunningServer, document: dict[str, Any]
) -> None:
    def example(method: str, path: str) -> Any:
        return document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["example"]

    with examples_server.client() as client:
        invoked = client.post("/runs/invoke", json={"graph": "chat", "message": "hi"}).json()
        assert example("post", "/runs/invoke").keys() == invoked.keys()
        run_id = invoked["run_id"]
        assert example("get", "/runs/{run_id}").keys() == client.get(f"/runs/{run_id}").json().keys()
        listed = client.get("/runs").json()
        assert example("get", "/runs").keys() == listed.keys()
        page = client.get(f"/runs/{run_id}/events").json()
        assert example("get", "/runs/{run_id}/events").keys() == page.keys()


def test_the_example_of_a_stream_is_one(document: dict[str, Any]) -> None:
    content = document["paths"]["/runs/stream"]["post"]["responses"]["200"]["content"]
    frames = frames_of(content["text/event-stream"]["example"])
    assert frames[0]["event"] == "start"
    assert {"run_id", "thread_id", "graph", "attempt", "seq"} <= frames[0].keys()


def test_the_docs_page_shows_this_document(examples_server: RunningServer) -> None:
    with examples_server.client() as client:
        answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in answer.text


def test_the_document_of_other_graphs_is_the_same(client: httpx.Client, document: dict[str, Any]) -> None:
    assert client.get("/openapi.json").json() == document
