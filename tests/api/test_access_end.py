"""Access that ends: tokens of an issuer, stream tokens, and an authentication that changes its mind."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.api.test_access import authenticate, is_turned_away, turned_away
from tests.api.test_ws import opened
from tests.auth.test_jwt import AUDIENCE, ISSUER, KEYS, token
from tests.raw_client import EVENTSOURCE, data_of, frames_of, get, new_gate, post, run_id_of
from tests.server import RunningServer, problem_of, running

KEY = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {KEY}"}
MAX_STRANGERS = 5
LIFE_SECONDS = 4  # of a token that is to end in a test; on a busy machine a request takes a while
TEAM = {"Authorization": "Bearer team-core"}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with all three ways to say who asks."""
    folder = tmp_path_factory.mktemp("door")
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": KEYS}))
    env = {
        "RUNSTREAM_API_KEYS": f"ada:{KEY}",
        "RUNSTREAM_JWT__JWKS": str(keys),
        "RUNSTREAM_JWT__ISSUER": ISSUER,
        "RUNSTREAM_JWT__AUDIENCE": AUDIENCE,
        "RUNSTREAM_AUTH": "./auth.py:who",
        "RUNSTREAM_AUTH_RECHECK_SECONDS": "0.1",
        "RUNSTREAM_STREAM_TOKEN_SECONDS": "60",
        "RUNSTREAM_MAX_STREAMS": str(10 * MAX_STRANGERS),
        "RUNSTREAM_DISCONNECT_GRACE_SECONDS": "600",
    }
    with running(folder / "data", env=env) as server:
        yield server
        assert KEY not in server.log
        assert "eyJ" not in server.log


@pytest.fixture(scope="module")
def client(door: RunningServer) -> Iterator[httpx.Client]:
    with door.client() as client:
        yield client


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def gated(door: RunningServer) -> dict[str, Any]:
    return {"graph": "gated", "input": {"gate": new_gate(door)}}


def test_each_way_has_its_own_owners(client: httpx.Client) -> None:
    ways = [BEARER, bearer(token(sub="eve/../ada")), TEAM]
    for headers in ways:
        client.post("/runs/invoke", json={"graph": "steps", "input": {}, "thread_id": "same"}, headers=headers)
    found = [client.get("/runs", params={"thread_id": "same"}, headers=headers).json()["runs"] for headers in ways]

    assert [len(runs) for runs in found] == [1, 1, 1]
    turned_away(client.get("/runs", headers=bearer("core")))
    turned_away(client.get("/runs", headers=bearer(token(sub="ada", exp=time.time() - 1))))


def test_one_subject_is_one_owner_whatever_way_he_comes(client: httpx.Client) -> None:
    run_id = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers=BEARER).json()["run_id"]

    assert client.get(f"/runs/{run_id}", headers=bearer(token(sub="ada"))).status_code == 200
    assert client.get(f"/runs/{run_id}", headers=bearer("team-ada")).status_code == 200


def test_a_stream_is_broken_off_when_its_token_expires_and_goes_on_with_a_newer_one(
    door: RunningServer, client: httpx.Client
) -> None:
    old = bearer(token(exp=time.time() + LIFE_SECONDS))
    with post(door, gated(door), old) as exchange:
        exchange.read_all()
        assert exchange.is_dropped
        assert not exchange.is_ended
        run_id = run_id_of(exchange)
        seen = frames_of(exchange.body)
    assert data_of(seen[0])["event"] == "start"
    turned_away(client.get(f"/runs/{run_id}/stream", headers={**old, "Last-Event-ID": "1"}))
    client.post(f"/runs/{run_id}/cancel", headers=bearer(token()))
    rest = client.get(f"/runs/{run_id}/stream", headers={**bearer(token()), "Last-Event-ID": "1"})
    assert data_of(frames_of(rest.content)[-1])["event"] == "cancelled"


def test_a_stream_is_broken_off_when_the_authentication_changes_its_mind(
    door: RunningServer, client: httpx.Client
) -> None:
    name = f"team-{uuid.uuid4().hex}"
    with post(door, gated(door), bearer(name)) as exchange, opened(door, additional_headers=bearer(name)) as ws:
        exchange.read_frames(1)
        assert ws.hear_to_pong() == []
        Path(f"{door.trace_path}.banned").write_text(name)
        exchange.read_all()
        assert exchange.is_dropped
        assert is_turned_away(ws)
    turned_away(client.get(f"/runs/{run_id_of(exchange)}", headers=bearer(name)))


def test_a_socket_is_closed_when_its_token_expires(door: RunningServer) -> None:
    with opened(door, additional_headers=bearer(token(exp=time.time() + LIFE_SECONDS))) as ws:
        ws.start(**gated(door))
        assert ws.hear()["payload"]["event"] == "start"
        assert is_turned_away(ws)


def test_a_socket_lives_on_with_a_newer_token_of_the_same_owner(door: RunningServer) -> None:
    with opened(door) as ws:
        ends_at = time.time() + LIFE_SECONDS
        assert authenticate(ws, token(exp=ends_at))["type"] == "ack"
        assert authenticate(ws, token(sub="eve"))["payload"]["code"] == "unauthorized"
        assert authenticate(ws, token())["type"] == "ack"
        while time.time() < ends_at + 0.5:
            assert ws.hear_to_pong() == []


def test_sockets_that_do_not_say_who_they_are_leave_seats_to_those_who_do(
    door: RunningServer, client: httpx.Client
) -> None:
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(opened(door)) for _ in range(MAX_STRANGERS)]
        with pytest.raises(InvalidStatus) as caught, opened(door):
            pass
        assert caught.value.response.status_code == 429
        with opened(door, additional_headers=BEARER) as ws:
            assert ws.hear_to_pong() == []
        assert authenticate(strangers[0], KEY)["type"] == "ack"
        with opened(door) as ws:
            assert authenticate(ws, KEY)["type"] == "ack"
    assert 'runstream_refused_requests_total{code="unauthorized"}' in client.get("/metrics", headers=BEARER).text


# -- stream tokens ----------------------------------------------------------------------------------------------------


def issued(client: httpx.Client, path: str, headers: dict[str, str] = BEARER, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body or None, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def run(client: httpx.Client) -> dict[str, Any]:
    """A run of Ada's that has ended."""
    found: dict[str, Any] = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers=BEARER).json()
    return found


def test_a_run_is_streamed_with_a_token_in_the_url(client: httpx.Client, run: dict[str, Any]) -> None:
    made = issued(client, f"/runs/{run['run_id']}/token")
    answer = client.get(f"/runs/{run['run_id'].upper()}/stream", params={"token": made["token"]}, headers=EVENTSOURCE)

    assert data_of(frames_of(answer.content)[-1])["event"] == "complete"
    assert made["token"] not in str(answer.headers)


def test_a_token_is_for_one_stream_and_nothing_else(client: httpx.Client, run: dict[str, Any]) -> None:
    params = {"token": issued(client, f"/runs/{run['run_id']}/token")["token"]}
    other = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers=BEARER).json()

    for method, path in [
        ("GET", f"/runs/{other['run_id']}/stream"),
        ("GET", f"/threads/{run['thread_id']}/runs/stream"),
        ("GET", f"/runs/{run['run_id']}"),
        ("GET", f"/runs/{run['run_id']}/events"),
        ("POST", f"/runs/{run['run_id']}/cancel"),
        ("POST", f"/runs/{run['run_id']}/token"),
        ("GET", "/runs/stream"),
        ("GET", "/runs"),
    ]:
        turned_away(client.request(method, path, params=params))
    turned_away(client.get("/runs/stream", params={**params, "run_id": run["run_id"]}, headers=EVENTSOURCE))
    turned_away(client.get(f"/runs/{run['run_id']}/stream", headers=bearer(params["token"])))
    turned_away(client.get(f"/runs/{run['run_id']}/stream", params=params, headers=bearer("wrong")))


def test_a_start_token_starts_the_run_that_it_names(client: httpx.Client) -> None:
    made = issued(client, "/runs/token")
    query = {"graph": "steps", "message": "hi", "run_id": made["run_id"], "token": made["token"]}
    first = client.get("/runs/stream", params=query, headers=EVENTSOURCE)
    again = client.get("/runs/stream", params=query, headers={**EVENTSOURCE, "Last-Event-ID": f"{made['run_id']}.1"})

    assert data_of(frames_of(first.content)[0])["run_id"] == made["run_id"]
    assert frames_of(again.content) == frames_of(first.content)[1:]
    assert client.get(f"/runs/{made['run_id']}", headers=BEARER).json()["status"] in ("success", "error")
    turned_away(client.get("/runs/stream", params={**query, "run_id": str(uuid.uuid4())}, headers=EVENTSOURCE))
    chosen = str(uuid.uuid4())
    assert issued(client, "/runs/token", run_id=chosen)["run_id"] == chosen


def test_a_threads_stream_is_broken_off_when_its_token_expires(door: RunningServer, client: httpx.Client) -> None:
    thread_id = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers=BEARER).json()["thread_id"]
    made = issued(client, f"/threads/{thread_id}/token", bearer(token(exp=time.time() + LIFE_SECONDS)))
    with get(door, f"/threads/{thread_id}/runs/stream?token={made['token']}", EVENTSOURCE) as exchange:
        exchange.read_all()
        assert exchange.status == 200
        assert exchange.is_dropped
    turned_away(client.get(f"/threads/{thread_id}/runs/stream", params={"token": made["token"]}))


def test_a_stream_token_ends_with_the_access_that_it_was_asked_for_with(client: httpx.Client) -> None:
    ends_at = time.time() + LIFE_SECONDS
    made = issued(client, "/runs/token", bearer(token(exp=ends_at)))

    assert made["expires_at"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ends_at)))


@pytest.mark.parametrize("path", ["/runs/{}/token", "/threads/{}/token"])
def test_there_is_no_token_for_what_is_somebody_elses(client: httpx.Client, run: dict[str, Any], path: str) -> None:
    id_of = run["run_id"] if path.startswith("/runs") else run["thread_id"]
    foreign = client.post(path.format(id_of), headers=TEAM)
    unknown = client.post(path.format("nope"), headers=TEAM)

    problem_of(foreign, 404, foreign.json()["code"])
    assert foreign.text.replace(id_of, "nope") == unknown.text


def test_the_secret_is_kept_for_this_user_alone_and_over_a_restart(tmp_path: Path) -> None:
    env = {"RUNSTREAM_API_KEYS": f"ada:{KEY}"}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        run_id = client.post("/runs/invoke", json={"graph": "steps", "input": {}}, headers=BEARER).json()["run_id"]
        params = {"token": issued(client, f"/runs/{run_id}/token")["token"]}
        assert (tmp_path / "data" / "stream-token.key").stat().st_mode & 0o777 == 0o600
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        assert client.get(f"/runs/{run_id}/stream", params=params).status_code == 200
