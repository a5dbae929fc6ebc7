"""Every error of every route is an RFC 9457 problem (wire contract, section 6)."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, problem_of, run, running, wait_until

LIMIT = 1024 * 1024


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("POST", "/nope"),
        ("GET", "/runs/stream/more/and/more"),
        ("GET", "/threads/x/y/z"),
        ("DELETE", "/nope?x=1"),
        ("GET", "/%F0%9F%99%82"),
        ("OPTIONS", "/nope"),
    ],
)
def test_an_unknown_route_is_a_problem(client: httpx.Client, method: str, path: str) -> None:
    problem_of(client.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/runs/stream", "GET, POST"),
        ("DELETE", "/runs/stream", "GET, POST"),
        ("HEAD", "/runs/stream", "GET, POST"),
        ("GET", "/runs/x/cancel", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("TRACE", "/openapi.json", "GET, HEAD"),
        ("PUT", "/threads", "POST"),
        ("PUT", "/threads/x", "GET, PATCH, DELETE"),
        ("OPTIONS", "/threads/x/state", "GET, POST"),
        ("POST", "/graphs", "GET"),
    ],
)
def test_another_method_is_refused_with_all_that_are_allowed(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":  # which has no body
        problem_of(answer, 405, "method_not_allowed")


UNKNOWN: list[tuple[str, str, str]] = [
    ("GET", "/runs/nope", "run_not_found"),
    ("GET", "/runs/nope/stream", "run_not_found"),
    ("GET", "/runs/nope/events", "run_not_found"),
    ("POST", "/runs/nope/cancel", "run_not_found"),
    ("GET", "/threads/nope", "thread_not_found"),
    ("GET", "/threads/nope/state", "thread_not_found"),
    ("GET", "/threads/nope/history", "thread_not_found"),
    ("GET", "/graphs/nope", "graph_not_found"),
]


@pytest.mark.parametrize(("method", "path", "code"), UNKNOWN)
def test_what_is_not_there_is_a_problem_with_a_code_of_its_own(
    client: httpx.Client, method: str, path: str, code: str
) -> None:
    problem_of(client.request(method, path), 404, code)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/runs?limit=0", ["query", "limit"]),
        ("/runs?limit=many", ["query", "limit"]),
        ("/runs?status=done", ["query", "status"]),
        ("/runs?cursor=x", ["query", "cursor"]),
        ("/runs/{run}/events?limit=5001", ["query", "limit"]),
        ("/runs/{run}/events?after=-1", ["query", "after"]),
        ("/runs/{run}/events?wait_seconds=31", ["query", "wait_seconds"]),
        ("/runs/{run}/stream?stream_mode=values", ["query", "stream_mode"]),
    ],
)
def test_a_wrong_query_parameter_is_told_with_its_place(client: httpx.Client, path: str, place: list[str]) -> None:
    run_id = client.post("/runs/invoke", json={"graph": "steps", "input": {}}).json()["run_id"]
    answer = client.get(path.replace("{run}", run_id))
    code = "mode_not_recorded" if "stream_mode" in path else "invalid_request"
    found = problem_of(answer, 422, code)["errors"]
    assert [error["loc"] for error in found] == [place]
    assert all(set(error) == {"loc", "msg"} for error in found)


JSON_ROUTES = [
    ("POST", "/runs/stream"),
    ("POST", "/runs/invoke"),
    ("POST", "/threads"),
    ("POST", "/threads/search"),
    ("POST", "/threads/{thread}/state"),
    ("POST", "/threads/{thread}/history"),
    ("PATCH", "/threads/{thread}"),
]


@pytest.fixture(scope="module")
def thread_id(client: httpx.Client) -> str:
    found: str = client.post("/runs/invoke", json={"graph": "steps", "input": {}}).json()["thread_id"]
    return found


@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
def test_broken_json_is_a_problem_on_every_route(client: httpx.Client, thread_id: str, method: str, path: str) -> None:
    url, headers = path.replace("{thread}", thread_id), {"content-type": "application/json"}
    for content in (b"{", b"[1]", b'"x"', b"\xff", b"[" * 10_000):
        found = problem_of(client.request(method, url, content=content, headers=headers), 422, "invalid_request")
        assert found["errors"], found


@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
@pytest.mark.parametrize("has_length", [True, False])
def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(
    client: httpx.Client, thread_id: str, method: str, path: str, has_length: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(LIMIT // 65536 + 1):
            yield b" " * 65536

    content: Any = b" " * (LIMIT + 1) if has_length else pieces()
    headers = {"content-type": "application/json"}
    answer = client.request(method, path.replace("{thread}", thread_id), content=content, headers=headers)
    problem_of(answer, 413, "body_too_large")


def test_a_body_of_just_the_limit_is_read(client: httpx.Client) -> None:
    body = b'{"graph": "steps", "input": {"answer": "%b"}}'
    content = body % (b"x" * (LIMIT - len(body) + 2))
    assert len(content) == LIMIT
    answer = client.post("/runs/invoke", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200


@contextmanager
def half_sent(server: RunningServer, head: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head)
        yield connection


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One with narrow limits, that shows what exceptions say."""
    env = {
        "RUNSTREAM_BODY_TIMEOUT_SECONDS": "0.2",
        "RUNSTREAM_MAX_CONCURRENT_RUNS": "1",
        "RUNSTREAM_EXPOSE_ERRORS": "true",
    }
    with running(tmp_path_factory.mktemp("narrow") / "data", env=env) as server:
        yield server


def test_a_body_that_takes_too_long_is_given_up(narrow: RunningServer) -> None:
    kind = b"Host: x\r\nContent-Type: application/json\r\n"
    heads = [
        b"POST /runs/stream HTTP/1.1\r\n%bContent-Length: 50\r\n\r\n{" % kind,
        b"POST /runs/invoke HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % kind,
        b"POST /threads HTTP/1.1\r\n%bContent-Length: 50\r\n\r\n{" % kind,
    ]
    for head in heads:
        with half_sent(narrow, head) as connection:
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert b"application/problem+json" in answer
        assert b'"code":"body_timeout"' in answer


def test_a_stream_may_last_longer_than_a_body_may_take(narrow: RunningServer) -> None:
    with narrow.client() as client:
        stream = client.post("/runs/stream", json={"graph": "slow_sync", "input": {}})
    assert '"complete"' in stream.text


def test_the_text_of_an_exception_is_shown_where_errors_are_exposed(narrow: RunningServer) -> None:
    with narrow.client() as client:
        frames = run(client, graph="fails", input={})
        assert frames[-1]["error"] == "ValueError: password=hunter2"
        row = client.get(f"/runs/{frames[0]['run_id']}").json()
        assert row["error"] == {"code": "graph_error", "message": "ValueError: password=hunter2"}
        answer = client.post("/runs/invoke", json={"graph": "fails", "input": {}})
        assert problem_of(answer, 500, "graph_error")["detail"] == "ValueError: password=hunter2"


def test_more_runs_than_the_server_works_on_are_refused_for_now(narrow: RunningServer) -> None:
    body = {"graph": "slow", "input": {}, "thread_id": "one"}
    seen = len(narrow.trace())
    with narrow.client() as client:
        with client.stream("POST", "/runs/stream", json=body) as stream:
            run_id = stream.headers["location"].split("/")[2]
            wait_until(lambda: "before" in narrow.trace()[seen:], "the node works")
            for path in ("/runs/stream", "/runs/invoke"):
                answer = client.post(path, json={"graph": "steps", "input": {}, "thread_id": "two"})
                problem_of(answer, 429, "too_many_runs")
                assert int(answer.headers["retry-after"]) >= 1
            problem_of(client.get("/threads/two"), 404, "thread_not_found")
            # which thread is busy is the more useful answer
            problem_of(client.post("/runs/stream", json={"thread_id": "one", "input": {}}), 409, "thread_busy")
            client.post(f"/runs/{run_id}/cancel", params={"wait": "true"})
        assert "one" not in narrow.trace()[seen:]
        assert client.post("/runs/stream", json={"graph": "steps", "input": {}}).status_code == 200


def test_a_problem_closes_no_connection_that_can_go_on(server: RunningServer) -> None:
    with server.client() as client:
        for _ in range(3):
            problem_of(client.post("/runs/stream", json={"nope": 1}), 422, "invalid_request")
            problem_of(client.get("/nope"), 404, "not_found")
        assert client.get("/health").status_code == 200


def test_many_refusals_at_once_leave_the_server_well(server: RunningServer, client: httpx.Client) -> None:
    def ask() -> None:
        with server.client() as own:
            for _ in range(10):
                own.post("/runs/stream", content=b"{", headers={"content-type": "application/json"})

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert client.get("/ready").status_code == 200
    assert "Traceback" not in server.log.split("listens on", 1)[1]
