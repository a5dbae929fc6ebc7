"""Nobody comes in unknown: every route, every stream and the socket, by API key."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from app.api.access import OPEN_PATHS
from tests.api.test_openapi import ROUTES
from tests.api.test_ws import Client, opened
from tests.server import PROJECT, ROOT, RunningServer, frames_of, problem_of, running

KEY = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {KEY}"}
ENV = {"RUNSTREAM_API_KEYS": f"ada:{KEY}", "RUNSTREAM_SOCKET_AUTH_SECONDS": "2"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that lets only Ada in."""
    with running(tmp_path_factory.mktemp("closed") / "data", env=ENV) as server:
        yield server
        assert KEY not in server.log


@pytest.fixture(scope="module")
def nobody(closed: RunningServer) -> Iterator[httpx.Client]:
    with closed.client() as client:
        yield client


@pytest.fixture(scope="module")
def ada(closed: RunningServer) -> Iterator[httpx.Client]:
    with closed.client(headers=BEARER) as client:
        yield client


def turned_away(answer: httpx.Response) -> None:
    problem_of(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


CLOSED = sorted((method, path) for method, path in ROUTES if path not in OPEN_PATHS)


@pytest.mark.parametrize(("method", "path"), [*CLOSED, ("get", "/nope"), ("put", "/runs/stream"), ("get", "/redoc")])
def test_every_route_that_is_not_open_asks_who_is_there(nobody: httpx.Client, method: str, path: str) -> None:
    turned_away(nobody.request(method, path))
    turned_away(nobody.request(method, path, headers={"Authorization": "Bearer wrong"}))
    turned_away(nobody.request(method, path, headers={"Cookie": f"token={KEY}; Authorization=Bearer {KEY}"}))
    turned_away(nobody.request(method, path, params={"token": KEY, "api_key": KEY}))


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_what_says_nothing_of_anybody_is_open(nobody: httpx.Client, path: str) -> None:
    assert nobody.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["//health", "/health/", "/health/../runs", "/runs?/health", "/docs/../runs", "/%72uns"]
)
def test_a_path_that_only_looks_open_is_closed(closed: RunningServer, path: str) -> None:
    request = httpx.Request("GET", closed.url, extensions={"target": path.encode()})
    with closed.client() as client:
        turned_away(client.send(request))


@pytest.mark.parametrize("headers", [BEARER, {"Authorization": f"bearer {KEY}"}, {"X-Api-Key": KEY}])
def test_a_key_lets_its_owner_in(nobody: httpx.Client, headers: dict[str, str]) -> None:
    answer = nobody.post("/runs/stream", json={"graph": "steps", "input": {}}, headers=headers)
    assert frames_of(answer.text)[-1]["event"] == "complete"
    assert nobody.get("/runs", headers=headers).json()["runs"]


def test_who_is_not_known_is_told_so_before_the_body_is_read(closed: RunningServer) -> None:
    with closed.client() as client:
        turned_away(client.post("/runs/stream", content=b" " * 3_000_000, headers={"content-type": "text/plain"}))


# -- the socket -------------------------------------------------------------------------------------------------------


def test_a_socket_opens_with_the_header(closed: RunningServer) -> None:
    with opened(closed, additional_headers=BEARER) as ws:
        assert ws.hear_to_pong() == []
        ws.start(graph="steps", input={})
        ws.hear_to("complete")


def test_a_socket_with_a_wrong_header_is_no_socket(closed: RunningServer) -> None:
    with pytest.raises(InvalidStatus) as caught, opened(closed, additional_headers={"X-Api-Key": "wrong"}):
        pass
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body or b"")["code"] == "unauthorized"


def authenticate(ws: Client, token: str) -> Any:
    ws.say("authenticate", token=token)
    return ws.hear()


def test_a_socket_without_a_header_opens_with_its_first_message(closed: RunningServer, ada: httpx.Client) -> None:
    run_id = ada.post("/runs/invoke", json={"graph": "steps", "input": {}}).json()["run_id"]
    with opened(closed) as ws:
        assert authenticate(ws, KEY)["type"] == "ack"
        ws.say("subscribe_execution", executionId=run_id)
        ws.hear_to("complete")
        assert ws.hear_to_pong() == []


def is_turned_away(ws: Client) -> bool:
    error = ws.hear()
    return (error["type"], error["payload"]["code"], ws.close_code()) == ("error", "unauthorized", 1008)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("start_run", {"graph": "steps", "input": {}}),
        ("subscribe_execution", {"executionId": "x"}),
        ("unsubscribe_execution", {"executionId": "x"}),
        ("cancel_run", {"executionId": "x"}),
        ("ping", {}),
        ("authenticate", {"token": "wrong"}),
        ("authenticate", {"token": ""}),
        ("authenticate", {"token": "x" * 100_000}),
    ],
)
def test_a_socket_that_says_something_else_first_is_closed(
    closed: RunningServer, ada: httpx.Client, kind: str, payload: dict[str, Any]
) -> None:
    before = ada.get("/runs", params={"limit": 1000}).json()
    with opened(closed) as ws:
        ws.say(kind, **payload)
        assert is_turned_away(ws)
    assert ada.get("/runs", params={"limit": 1000}).json() == before


def test_a_socket_that_says_nothing_is_closed(closed: RunningServer) -> None:
    with opened(closed) as ws:
        assert is_turned_away(ws)


def test_a_socket_that_is_known_stays_when_it_shows_a_wrong_token(closed: RunningServer) -> None:
    with opened(closed, additional_headers=BEARER) as ws:
        assert authenticate(ws, "wrong")["payload"]["code"] == "unauthorized"
        assert ws.hear_to_pong() == []


# -- without authentication -------------------------------------------------------------------------------------------


def outcome(data_dir: Path, host: str, **env: str) -> tuple[int, str]:
    """The exit code of a server that does not start, and what it said."""
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--config", str(PROJECT), "--host", host]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)],
        cwd=ROOT, env={"PATH": "", **env}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_server_that_asks_nobody_does_not_listen_beyond_this_machine(tmp_path: Path) -> None:
    code, said = outcome(tmp_path / "data", "0.0.0.0")

    assert code == 1
    assert "RUNSTREAM_API_KEYS" in said
    assert "RUNSTREAM_ALLOW_ANONYMOUS=true" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("env", [{"RUNSTREAM_ALLOW_ANONYMOUS": "true"}, {"RUNSTREAM_API_KEYS": f"ada:{KEY}"}])
def test_it_does_when_it_asks_or_is_told_so(tmp_path: Path, env: dict[str, str]) -> None:
    with running(tmp_path / "data", env=env, arguments=["--host", "0.0.0.0"]) as server:
        assert server.url.startswith("http://0.0.0.0:")


def test_a_wrong_key_in_the_settings_is_not_repeated(tmp_path: Path) -> None:
    code, said = outcome(tmp_path / "data", "127.0.0.1", RUNSTREAM_API_KEYS=f"ada:sha256:{KEY}")

    assert code == 1
    assert said.startswith("RUNSTREAM_API_KEYS: ")
    assert KEY not in said
