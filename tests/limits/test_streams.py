"""How many streams there may be, how long one lasts, and connections that never get to their request."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.raw_client import RawExchange, gauge, new_gate, open_streams
from tests.server import RunningServer, frames_of, problem_of, running, wait_until

PER_OWNER = 3
MAX = 5
SECONDS = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {
        "RUNSTREAM_MAX_STREAMS_PER_OWNER": str(PER_OWNER),
        "RUNSTREAM_MAX_STREAMS": str(MAX),
        "RUNSTREAM_HEADER_TIMEOUT_SECONDS": "0.5",
    }
    with running(tmp_path_factory.mktemp("streams") / "data", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def full(server: RunningServer, client: httpx.Client) -> Iterator[RawExchange]:
    """As many readers of one run as an owner may have; the last of them."""
    wait_until(lambda: gauge(client, "runstream_open_streams") == 0, "no stream is left of another test")
    body = {"graph": "gated", "input": {"gate": new_gate(server)}, "on_disconnect": "continue"}
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(RawExchange(server.port, "POST", "/runs/stream", json_body=body)).read_frames(1)
        path = first.headers["location"]
        for _ in range(PER_OWNER - 1):
            last = stack.enter_context(RawExchange(server.port, "GET", path)).read_frames(1)
        yield last


def socket_to(server: RunningServer) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/ws", open_timeout=SECONDS)


def say(connection: ClientConnection, kind: str, **payload: Any) -> Any:
    connection.send(json.dumps({"type": kind, "payload": payload}))
    return json.loads(connection.recv(timeout=SECONDS))


def test_a_start_beyond_the_limit_is_refused_before_anything_runs(client: httpx.Client, full: RawExchange) -> None:
    before = client.get("/runs", params={"limit": 1000}).json()["runs"]
    for path in ("/runs/stream", "/runs/invoke"):
        answer = client.post(path, json={"graph": "steps", "input": {"log": []}})
        problem_of(answer, 429, "too_many_streams")
        assert int(answer.headers["retry-after"]) >= 1
    accept = {"accept": "text/event-stream"}
    problem_of(client.get("/runs/stream?graph=talk&message=hi", headers=accept), 429, "too_many_streams")
    assert client.get("/runs", params={"limit": 1000}).json()["runs"] == before


def test_every_way_to_look_on_counts(client: httpx.Client, full: RawExchange) -> None:
    run_id = full.headers["location"].split("/")[2]
    thread_id = full.headers["content-location"].split("/")[2]
    problem_of(client.get(f"/runs/{run_id}/stream"), 429, "too_many_streams")
    problem_of(client.get(f"/runs/{run_id}/events?wait_seconds=1"), 429, "too_many_streams")
    problem_of(client.get(f"/threads/{thread_id}/runs/stream"), 429, "too_many_streams")
    assert client.get(f"/runs/{run_id}").status_code == 200


def test_a_place_is_free_again_when_a_reader_leaves(client: httpx.Client, full: RawExchange) -> None:
    path = full.headers["location"]
    full.cut("RST")

    def opens() -> bool:
        with client.stream("GET", path) as answer:
            return answer.status_code == 200

    wait_until(opens, "the place of the one that left is free")


def test_a_refused_start_keeps_no_place(server: RunningServer, client: httpx.Client) -> None:
    wait_until(lambda: open_streams(client) == 0, "the streams of other tests are closed")
    for _ in range(MAX + 1):
        problem_of(client.post("/runs/stream", json={"graph": "nowhere"}), 404, "graph_not_found")
        assert client.post("/runs/stream", json={"graph": "steps", "input": {"log": []}}).status_code == 200


def test_starts_at_once_get_no_more_places_than_there_are(server: RunningServer) -> None:
    gate = new_gate(server)
    statuses: list[int] = []

    def start() -> None:
        body = {"graph": "gated", "input": {"gate": gate}}
        with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
            statuses.append(exchange.read_head().status)
            everybody.wait(SECONDS)

    everybody = threading.Barrier(12)
    threads = [threading.Thread(target=start) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(statuses) == [200] * PER_OWNER + [429] * (12 - PER_OWNER)


def test_a_subscription_counts_and_a_socket_counts_towards_all(server: RunningServer, full: RawExchange) -> None:
    run_id = full.headers["location"].split("/")[2]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket_to(server)) for _ in range(MAX - PER_OWNER)]
        answer = say(sockets[0], "subscribe_execution", executionId=run_id)
        assert (answer["type"], answer["payload"]["code"]) == ("error", "too_many_streams")
        assert say(sockets[0], "ping")["type"] == "pong"
        with pytest.raises(InvalidStatus) as refused:
            socket_to(server)
        assert refused.value.response.status_code == 429


def test_subscribing_anew_takes_no_second_place(server: RunningServer, client: httpx.Client) -> None:
    wait_until(lambda: gauge(client, "runstream_open_streams") == 0, "no stream is left of another test")
    body = {"graph": "gated", "input": {"gate": new_gate(server)}}
    with socket_to(server) as connection:
        ack = say(connection, "start_run", **body)
        for _ in range(PER_OWNER * 2):
            said = say(connection, "subscribe_execution", executionId=ack["executionId"])
            while said["payload"].get("event") != "start":
                assert said["type"] != "error", said
                said = json.loads(connection.recv(timeout=SECONDS))


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose streams last for half a second."""
    with running(tmp_path_factory.mktemp("brief") / "data", env={"RUNSTREAM_MAX_STREAM_SECONDS": "0.5"}) as server:
        yield server


def test_a_stream_that_has_lasted_long_enough_is_broken_off_and_loses_nothing(brief: RunningServer) -> None:
    gate = new_gate(brief)
    body = {"graph": "gated", "input": {"gate": gate}}
    accept = {"Accept": "text/event-stream"}
    with RawExchange(brief.port, "POST", "/runs/stream", json_body=body, headers=accept) as exchange:
        exchange.read_all()
        assert (exchange.is_dropped, exchange.is_ended) == (True, False)
        last = re.findall(rb"id: (\S+)", exchange.body)[-1].decode()
    brief.open_gate(gate, 6)
    again = {**accept, "Last-Event-ID": last}
    with RawExchange(brief.port, "GET", exchange.headers["location"], headers=again) as exchange:
        exchange.read_all()
    assert exchange.is_ended
    assert b'"complete"' in exchange.body
    assert "Traceback" not in brief.log
    assert "without completing" not in brief.log


def test_a_socket_that_has_lasted_long_enough_is_told_to_come_back(brief: RunningServer) -> None:
    with socket_to(brief) as connection, pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_an_invoke_may_wait_for_longer_than_a_stream_lasts(brief: RunningServer) -> None:
    with brief.client() as client:
        answer = client.post("/runs/invoke", json={"graph": "slow_sync", "input": {"log": []}})
    assert answer.status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_connection_that_does_not_get_to_the_end_of_its_headers_is_closed(server: RunningServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer == b"" if not sent else b" 408 " in answer
    if sent:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head
        assert json.loads(body)["code"] == "header_timeout"


def test_a_kept_connection_has_the_same_time_for_its_next_request(server: RunningServer) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: a\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(request + b"\r\n")
        assert b" 200 " in connection.recv(65536)
        connection.sendall(request)
        assert b" 408 " in b"".join(iter(lambda: connection.recv(65536), b""))


def test_an_answer_that_takes_longer_than_headers_may_is_not_cut(server: RunningServer) -> None:
    with (
        server.client() as client,
        client.stream("POST", "/runs/stream", json={"graph": "slow_sync", "input": {"log": []}}) as answer,
    ):
        assert frames_of(answer.read().decode())[-1]["event"] == "complete"
