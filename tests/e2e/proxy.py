"""A proxy that cuts connections where it is told to, and remembers what went through it."""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

SILENCE_SECONDS = 30.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Break a stream off after so many whole frames and some bytes of the next one, by TCP's RST or FIN.

    Or by a `stall`: nothing more comes, and the connection stays open on both sides until the client leaves.
    """

    frames: int
    torn_bytes: int = 0
    how: Literal["reset", "close", "stall"] = "close"


@dataclass(kw_only=True, slots=True)
class Exchange:
    """A request, and the bytes that the server sent for it (not all of which went on to the client)."""

    method: str
    path: str
    headers: dict[str, str]
    response: bytearray = field(default_factory=bytearray)

    @property
    def status(self) -> int:
        """0 while there is none."""
        parts = bytes(self.response[:64]).split(b" ", 2)
        return int(parts[1]) if len(parts) == 3 else 0


class CuttingProxy:
    """HTTP/1.1 on loopback, a request a connection. `cuts` are for the requests of a stream, in their order.

    `port` is where the server listens; it may change while the proxy runs.
    """

    def __init__(self, port: int, cuts: Sequence[Cut | None] = ()) -> None:
        self.port = port
        self.exchanges: list[Exchange] = []
        self._cuts = list(cuts)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = False
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "CuttingProxy":
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._closing = True
            for connection in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()

    @property
    def streams(self) -> list[Exchange]:
        """The requests for a stream; preflights are none."""
        return [found for found in self.exchanges if "/stream" in found.path and found.method != "OPTIONS"]

    @property
    def preflights(self) -> list[Exchange]:
        return [found for found in self.exchanges if found.method == "OPTIONS"]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        # a connection that breaks here is what the tests are about, never an error of theirs
        with client, contextlib.suppress(OSError):
            self._keep(client)
            head, body = self._read_request(client)
            if not head:
                return
            exchange, cut = self._record(head)
            with socket.create_connection(("127.0.0.1", self.port)) as server:
                self._keep(server)
                server.sendall(closing(head) + body)
                self._relay(client, server, exchange, cut)

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if self._closing:
                raise OSError("the proxy is closing")
            self._open = {known for known in self._open if known.fileno() >= 0} | {connection}

    def _read_request(self, client: socket.socket) -> tuple[bytes, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = client.recv(65536)
            if not piece:
                return b"", b""
            received += piece
        head, _, rest = received.partition(b"\r\n\r\n")
        return head, rest

    def _record(self, head: bytes) -> tuple[Exchange, Cut | None]:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        exchange = Exchange(method=method, path=path, headers=headers)
        with self._lock:
            self.exchanges.append(exchange)
            is_stream = "/stream" in path and method != "OPTIONS"
            return exchange, self._cuts.pop(0) if is_stream and self._cuts else None

    def _relay(self, client: socket.socket, server: socket.socket, exchange: Exchange, cut: Cut | None) -> None:
        sent = 0
        while True:
            ready, _, _ = select.select([client, server], [], [], SILENCE_SECONDS)
            if client in ready:
                piece = client.recv(65536)
                if not piece:
                    return
                server.sendall(piece)
            if server not in ready:
                continue
            piece = server.recv(65536)
            if not piece:
                return
            exchange.response += piece
            end = None if cut is None else end_of(exchange.response, cut)
            client.sendall(exchange.response[sent:end])
            if end is not None and cut is not None:
                if cut.how == "stall":
                    client.recv(1)
                if cut.how == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                return
            sent = len(exchange.response)


def closing(head: bytes) -> bytes:
    """The request's head, asking for a connection of its own."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def end_of(response: bytearray, cut: Cut) -> int | None:
    """Where a response is to be cut off, or None while that place has not come. Frames end with a blank line."""
    end = response.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    for _ in range(cut.frames):
        end = response.find(b"\n\n", end) + 2
        if end < 2:
            return None
    if cut.frames and cut.torn_bytes == 0:
        # with the end of the chunk that holds the frame, where the frame is the chunk's last one
        return end + 2 if response[end : end + 2] == b"\r\n" else end
    return end + cut.torn_bytes if len(response) >= end + cut.torn_bytes else None
