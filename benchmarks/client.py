"""A cheap client: raw sockets, one selector, and nothing looked at before the clock has stopped."""

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

SILENCE_SECONDS: Final = 60.0
LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
STREAMS_AN_ADDRESS: Final = 4000  # a client's address has 28,000 ports, and those of closed connections rest a minute

Query = dict[str, object]


def post(body: Query, *, path: str = "/runs/stream", accept: str = "*/*") -> bytes:
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(text), text)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@dataclass(slots=True)
class Answer:
    """What came for one request, and when. Times are those of `time.monotonic`."""

    sent_at: float
    parts: list[bytes] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    first_frame_at: float | None = None
    tail: bytes = b""

    def take(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.parts and not data.startswith(b"HTTP/1.1 200"):
            raise AssertionError(f"refused: {data[:300]!r}")
        self.parts.append(data)
        self.arrived_at.append(now)
        if self.first_frame_at is None and b"data: " in data:
            self.first_frame_at = now
        self.tail = data[-7:] if len(data) >= 7 else (self.tail + data)[-7:]

    @property
    def is_whole(self) -> bool:
        return self.tail == LAST_CHUNK

    @property
    def seconds(self) -> float:
        return self.arrived_at[-1] - self.sent_at

    @property
    def first_frame_seconds(self) -> float:
        assert self.first_frame_at is not None
        return self.first_frame_at - self.sent_at

    @property
    def raw(self) -> bytes:
        return b"".join(self.parts)

    @property
    def body(self) -> bytes:
        return b"".join(chunks(self.raw.partition(b"\r\n\r\n")[2]))


def chunks(raw: bytes) -> Iterator[bytes]:
    """The chunks of a chunked body, as far as it is there."""
    at = 0
    while (end := raw.find(b"\r\n", at)) > 0:
        size = int(raw[at:end], 16)
        at = end + 2 + size + 2
        yield raw[end + 2 : at - 2]


class Connection:
    """One connection, on which one request is answered after the other."""

    def __init__(self, port: int, *, number: int = 0, receive_bytes: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.bind((f"127.0.0.{2 + number // STREAMS_AN_ADDRESS}", 0))
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = Answer(0.0)

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, request: bytes) -> None:
        self.answer = Answer(time.monotonic())
        self._socket.sendall(request)

    def receive(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise AssertionError(f"cut off after {self.answer.raw[-200:]!r}")
        self.answer.take(data)

    def close(self) -> None:
        self._socket.close()


def connect(port: int, requests: Sequence[bytes]) -> list[Connection]:
    """So many connections, each with its request sent."""
    opened = []
    for number, request in enumerate(requests):
        connection = Connection(port, number=number)
        connection.ask(request)
        opened.append(connection)
    return opened


def read(connections: Sequence[Connection], is_enough: Callable[[Connection], bool]) -> None:
    """Read all of them until each has enough. `is_enough` may ask for more on its connection and say no."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(SILENCE_SECONDS)
            if not ready:
                raise AssertionError(f"{len(selector.get_map())} streams are silent")
            for key, _ in ready:
                connection = cast(Connection, key.fileobj)
                connection.receive()
                if is_enough(connection):
                    selector.unregister(connection)


def exchange(port: int, requests: Sequence[bytes]) -> list[Answer]:
    """All requests at once, each on a connection of its own; the answers in their order."""
    return [answers[0] for answers in converse(port, [[request] for request in requests])]


def converse(port: int, scripts: Sequence[Sequence[bytes]], *, rest_seconds: float = 0.0) -> list[list[Answer]]:
    """A connection for each script, which sends its requests one after the other, each when the last is answered."""
    given: dict[Connection, list[Answer]] = {}
    left = [iter(script) for script in scripts]
    connections = connect(port, [next(requests) for requests in left])
    follows = dict(zip(connections, left, strict=True))

    def is_done(connection: Connection) -> bool:
        if not connection.answer.is_whole:
            return False
        given.setdefault(connection, []).append(connection.answer)
        request = next(follows[connection], None)
        if request is None:
            return True
        time.sleep(rest_seconds)
        connection.ask(request)
        return False

    try:
        read(connections, is_done)
    finally:
        for connection in connections:
            connection.close()
    return [given[connection] for connection in connections]
