"""Whatever is sent to a socket: no 500, no hang, no memory that stays, and others are served meanwhile.

Every hand-made request and some thousand spoilt ones; fifty times as many with RUNSTREAM_LONG_TESTS=1.
"""

import itertools
import os
import re
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.api.malformed import HOST, JSON, hand_made, spoilt
from tests.raw_client import gauge
from tests.server import RunningServer, events, run, running, wait_until

IS_LONG: Final = os.environ.get("RUNSTREAM_LONG_TESTS") == "1"
SPOILT: Final = 50_000 if IS_LONG else 1_000
SENDERS: Final = 16
QUIET_SECONDS: Final = 0.05  # without an answer, after which a client says that nothing more comes
HANG_SECONDS: Final = 20.0
MAX_GROWTH_BYTES: Final = 60 * 1024 * 1024  # malloc keeps some of what was freed

# uvicorn's own: it answers the second of two requests on a connection that it has closed because of the third
WRITTEN_TOO_LATE: Final = "TCPTransport closed=True"
EXCEPTION: Final = re.compile(r"[\w.]+(Error|Exception|Disconnect|Group)\b")
STATUS: Final = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {
        "RUNSTREAM_HEADER_TIMEOUT_SECONDS": "2",
        "RUNSTREAM_BODY_TIMEOUT_SECONDS": "2",
        "RUNSTREAM_DISCONNECT_GRACE_SECONDS": "0",
        "RUNSTREAM_LOG_LEVEL": "warning",
    }
    with running(tmp_path_factory.mktemp("malformed") / "data", env=env) as server:
        with server.client() as client:
            known = {"thread_id": "known", "run_id": "00000000-0000-4000-8000-000000000001"}
            assert client.post("/runs/invoke", json={"graph": "steps", "input": {}, **known}).status_code == 200
        yield server


def answers_to(port: int, request: bytes) -> bytes:
    """All that a server says to some bytes, until it hangs up. Fails when it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as connection:
        said = b""
        with suppress(ConnectionError):
            connection.sendall(request)
            while select.select([connection], [], [], QUIET_SECONDS)[0]:
                piece = connection.recv(65536)
                said += piece
                if not piece:
                    return said
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                said += piece
        return said


def send_all(server: RunningServer, requests: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """The requests that were answered with a 5xx."""

    def send(request: bytes) -> tuple[bytes, bytes]:
        return request, answers_to(server.port, request)

    with ThreadPoolExecutor(SENDERS) as pool:
        sent = pool.map(send, requests)
        return [(request[:300], said[:500]) for request, said in sent if any(s >= b"5" for s in STATUS.findall(said))]


@contextmanager
def somebody_else(server: RunningServer) -> Iterator[list[int]]:
    """Who runs a graph again and again meanwhile; how many events each run had."""
    is_over, found = threading.Event(), list[int]()

    def work() -> None:
        with server.client() as client:
            while not is_over.is_set():
                found.append(len(events(run(client, graph="steps", input={}))))

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield found
        finally:
            is_over.set()
            working.result()


def resident_bytes(server: RunningServer) -> int:
    return int(Path(f"/proc/{server.process_id}/statm").read_text().split()[1]) * 4096


def open_files(server: RunningServer) -> int:
    return len(os.listdir(f"/proc/{server.process_id}/fd"))


@pytest.mark.timeout(0 if IS_LONG else 240)
def test_nothing_that_is_sent_breaks_or_holds_anything(server: RunningServer) -> None:
    assert send_all(server, hand_made()) == []
    files, memory = open_files(server), resident_bytes(server)
    with somebody_else(server) as done:
        assert send_all(server, itertools.islice(spoilt(seed=4), SPOILT)) == []
        assert send_all(server, hand_made()) == []
    assert done, "nobody else was served"
    assert set(done) == {5}
    with server.client() as client:
        wait_until(lambda: gauge(client, "runstream_active_runs") == 0, "nothing runs any more")
    wait_until(lambda: open_files(server) <= files + 2, "all connections are closed")
    assert resident_bytes(server) - memory < MAX_GROWTH_BYTES
    assert [line for line in server.log.splitlines() if EXCEPTION.match(line) and WRITTEN_TOO_LATE not in line] == []


def test_half_open_requests_keep_nobody_waiting_and_are_given_up(server: RunningServer) -> None:
    halves = [
        b"",
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: ",
        b"POST /runs/stream HTTP/1.1\r\n%b%bContent-Length: 50\r\n\r\n{" % (HOST, JSON),
        b"POST /runs/invoke HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n5\r\n{" % (HOST, JSON),
    ]
    files = open_files(server)
    connections = [socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) for _ in range(200)]
    for connection, half in zip(connections, itertools.cycle(halves)):
        connection.sendall(half)
    with server.client() as client:
        assert events(run(client, graph="steps", input={}))[-1] == "complete"
    said = [read_all(connection) for connection in connections]
    assert all(not text or text.startswith(b"HTTP/1.1 408 ") for text in said)
    assert sum(bool(text) for text in said) == 160  # all but those that had not begun
    wait_until(lambda: open_files(server) <= files + 2, "they are closed")


def read_all(connection: socket.socket) -> bytes:
    said = b""
    with connection, suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    return said


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a" * 10_000),
        (b"GET /health HTTP/1.1\r\nX: ", b"a" * 10_000),
        (b"GET /health HTTP/1.1\r\n", b"X: y\r\n" * 2_000),
        (b"POST /runs/stream HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n2;" % (HOST, JSON), b"a" * 10_000),
        (
            b"POST /runs/stream HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" % (HOST, JSON),
            b"X: y\r\n" * 2_000,
        ),
    ],
    ids=["address", "header", "headers", "extension", "trailers"],
)
def test_what_has_no_end_is_cut_off_before_it_takes_memory(server: RunningServer, begin: bytes, more: bytes) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), HANG_SECONDS) as connection, suppress(ConnectionError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        connection.sendall(begin)
        while sent < 100_000_000:
            connection.sendall(more)
            sent += len(more)
    assert sent < 20_000_000  # what was under way when it was cut off


def test_headers_that_are_too_large_are_a_problem(server: RunningServer) -> None:
    said = answers_to(server.port, b"GET /health HTTP/1.1\r\n%bX: %b" % (HOST, b"a" * 70_000))
    assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"), said
    assert b'"code":"headers_too_large"' in said
