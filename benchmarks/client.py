"""A cheap client: raw sockets, and a look at every stream for being whole and in order."""

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

WORD = re.compile(rb'"content": ?"((?:w\d+ )+)"')


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds until the first frame and until the last of each stream, and bytes in all."""

    first_seconds: Sequence[float]
    seconds: float
    bytes: int


def request(body: dict[str, object]) -> bytes:
    text = json.dumps(body).encode()
    head = b"POST /runs/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(text), text)


def stream(port: int, tokens: int, streams: int) -> Measured:
    """Open so many streams of so many tokens at once and read them to their ends. Raises when one is not whole."""
    begun = time.perf_counter()
    received: dict[socket.socket, list[bytes]] = {}
    first: dict[socket.socket, float] = {}
    selector = selectors.DefaultSelector()
    for _ in range(streams):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request({"message": str(tokens)}))
        connection.setblocking(False)
        received[connection] = []
        selector.register(connection, selectors.EVENT_READ)
    open_streams = streams
    while open_streams:
        for key, _ in selector.select():
            connection = cast(socket.socket, key.fileobj)
            data = connection.recv(1 << 20)
            if not data:
                selector.unregister(connection)
                connection.close()
                open_streams -= 1
                continue
            received[connection].append(data)
            if connection not in first and b"data: " in data:
                first[connection] = time.perf_counter() - begun
    seconds = time.perf_counter() - begun
    texts = [b"".join(parts) for parts in received.values()]
    for text in texts:
        check(text, tokens)
    return Measured(first_seconds=sorted(first.values()), seconds=seconds, bytes=sum(map(len, texts)))


def check(text: bytes, tokens: int) -> None:
    """Raise unless every word is there once, in order, and the end as well."""
    body = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", text.partition(b"\r\n\r\n")[2])
    said = b"".join(WORD.findall(body)[: tokens or None]).split()
    expected = [b"w%d" % index for index in range(tokens)]
    if said[:tokens] != expected or b'"complete"' not in body:
        raise AssertionError(f"a stream is not whole: {len(said)} of {tokens} words")
