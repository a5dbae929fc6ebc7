"""An HTTP/1.1 client down to its socket: it keeps every chunk as it came, and can be cut off at any byte."""

import json
import re
import socket
import struct
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from tests.server import RunningServer

PLAIN: dict[str, str] = {}
EVENTSOURCE = {"Accept": "text/event-stream"}
DIALECTS = {"plain": PLAIN, "eventsource": EVENTSOURCE}
RECEIVE_BYTES = 65536


class RawExchange:
    """One request on a connection of its own, and its answer as far as it was read.

    `chunks` are the body's chunks, whole ones only; `body` is all of it that has come. `is_ended` says that the
    answer came to its proper end, `is_dropped` that the connection went away before. The socket's timeout is the
    timeout of every read.
    """

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json_body: Any = None,
        receive_buffer_bytes: int | None = None,
        timeout_seconds: float = 20.0,
    ) -> None:
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(timeout_seconds)
        self._socket.connect(("127.0.0.1", port))
        self._pending = b""
        self._is_chunked = False
        self._length: int | None = None
        self.chunks: list[bytes] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_ended = False
        self.is_dropped = False
        self._send(method, path, {"Host": f"127.0.0.1:{port}", **(headers or {})}, json_body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def read_head(self) -> Self:
        """Read the status and the headers."""
        while b"\r\n\r\n" not in self._pending:
            if not self._receive():
                raise ConnectionError("no answer")
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in self.headers, f"{name} comes twice"
            self.headers[name.lower()] = value
        self._is_chunked = self.headers.get("transfer-encoding") == "chunked"
        self._length = int(self.headers["content-length"]) if "content-length" in self.headers else None
        if self.status in (204, 304):
            self._length = 0
        return self

    def read_until(self, is_enough: Callable[[bytes], bool]) -> Self:
        """Read chunk by chunk until the body is enough, or the answer ends, or the connection does."""
        if not self.status:
            self.read_head()
        self._take()
        while not (self.is_ended or self.is_dropped or is_enough(self.body)):
            self._receive()
            self._take()
        return self

    def read_frames(self, count: int) -> Self:
        """Read until so many frames, or one chunk more, are there."""
        return self.read_until(lambda body: len(frames_of(body)) >= count)

    def read_all(self) -> Self:
        """Read until the answer ends, or the connection does."""
        if not self.status:
            self.read_head()
        self._take()
        while not (self.is_ended or self.is_dropped):
            self._receive()
            self._take()
        return self

    def cut(self, how: str) -> None:
        """Go away: `RST` as a crashed client does, `FIN` as one that closes."""
        if how == "RST":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _send(self, method: str, path: str, headers: Mapping[str, str], json_body: Any) -> None:
        content = b"" if json_body is None else json.dumps(json_body).encode()
        length = {} if json_body is None else {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**length, **headers}.items())]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    def _receive(self) -> bool:
        try:
            received = self._socket.recv(RECEIVE_BYTES)
        except ConnectionError:
            received = b""
        self._pending += received
        self.is_dropped = not received
        return bool(received)

    def _take(self) -> None:
        """Move what has come whole from the pending bytes to the chunks."""
        if not self._is_chunked:
            if self._pending:
                self.chunks.append(self._pending)
            self._pending = b""
            self.is_ended = self._length is not None and len(self.body) >= self._length
            return
        while b"\r\n" in self._pending and not self.is_ended:
            size_line, _, rest = self._pending.partition(b"\r\n")
            size = int(size_line, 16)
            if len(rest) < size + 2:
                return
            assert rest[size : size + 2] == b"\r\n"
            self._pending = rest[size + 2 :]
            if size:
                self.chunks.append(rest[:size])
            else:
                self.is_ended = True


def frames_of(body: bytes) -> list[bytes]:
    """The whole frames of a body of either dialect, each with the blank line that ends it; heartbeats are left out."""
    *blocks, _ = body.replace(b": ping\n\n", b"").split(b"\n\n")
    return [strip_pings(block) + b"\n\n" for block in blocks]


def strip_pings(block: bytes) -> bytes:
    """Without the comment lines in front of a frame."""
    while block.startswith(b": ping\n"):
        block = block[len(b": ping\n") :]
    return block


def whole(body: bytes) -> bytes:
    """The part of a body that ends with a whole frame."""
    return body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b""


def data_of(frame: bytes) -> dict[str, Any]:
    """The JSON of a frame."""
    lines = [line for line in frame.decode().split("\n") if line.startswith("data: ")]
    assert len(lines) == 1, frame
    value: dict[str, Any] = json.loads(lines[0][len("data: ") :])
    return value


def id_of(frame: bytes) -> str | None:
    """The id of a frame, if its dialect has ids."""
    found = [line[len("id: ") :] for line in frame.decode().split("\n") if line.startswith("id: ")]
    return found[0] if found else None


def post(server: RunningServer, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> RawExchange:
    return RawExchange(server.port, "POST", "/runs/stream", json_body=body, headers=headers)


def get(server: RunningServer, path: str, headers: Mapping[str, str] | None = None) -> RawExchange:
    return RawExchange(server.port, "GET", path, headers=headers)


def run_id_of(exchange: RawExchange) -> str:
    """The run that a stream is of, by its headers."""
    return exchange.headers["location"].split("/")[2]


def uncut(server: RunningServer, run_id: str, headers: Mapping[str, str]) -> bytes:
    """All bytes of a run's stream."""
    with get(server, f"/runs/{run_id}/stream", headers) as exchange:
        exchange.read_all()
        assert exchange.is_ended
        return exchange.body


def ended_run(server: RunningServer, **body: Any) -> str:
    """The id of a run that was started and read to its end."""
    with post(server, body) as exchange:
        return run_id_of(exchange.read_all())


def new_gate(server: RunningServer, level: int = 0) -> str:
    """The name of a gate that nobody has (tests/project, `gated`), opened as far as `level`."""
    gate = f"g{uuid.uuid4().hex}"
    if level:
        server.open_gate(gate, level)
    return gate


def run_count(server: RunningServer) -> int:
    with server.client() as client:
        return len(client.get("/runs", params={"limit": 1000}).json()["runs"])


def gauge(client: httpx.Client, name: str) -> int:
    """A number that the server counts (`/metrics`)."""
    found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return int(float(found[1]))


def open_streams(client: httpx.Client) -> int:
    return gauge(client, "runstream_open_streams")
