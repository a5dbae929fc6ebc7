"""What stands between a client and the server: a proxy that cuts, answers by itself, and loses headers."""

import json
import select
import socket
from collections.abc import Mapping, Sequence

from tests.e2e.proxy import SILENCE_SECONDS, Cut, CuttingProxy, Exchange

# any page may read them
HEADERS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "retry-after",
    "Connection": "close",
}


def answer(status: int, body: str, **headers: str) -> bytes:
    """An answer of HTTP/1.1."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**HEADERS, **headers}.items()]
    head = [f"HTTP/1.1 {status} Whatever", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body.encode()


def problem(status: int, code: str, **headers: str) -> bytes:
    """A problem as the server writes them."""
    body = {"title": code, "status": status, "detail": f"It is {code}.", "code": code}
    return answer(status, json.dumps(body), **{"Content-Type": "application/problem+json", **headers})


class Edge(CuttingProxy):
    """`answers` go to the first requests in place of the server's, which has got the request all the same.

    With `loses_cursor` no Last-Event-ID arrives.
    """

    def __init__(
        self, port: int, cuts: Sequence[Cut | None], *, answers: Sequence[bytes] = (), loses_cursor: bool = False
    ) -> None:
        self._answers = list(answers)
        self._loses_cursor = loses_cursor
        super().__init__(port, cuts)

    def _read_request(self, client: socket.socket) -> tuple[bytes, bytes]:
        head, body = super()._read_request(client)
        if self._loses_cursor:
            lines = head.split(b"\r\n")
            head = b"\r\n".join(line for line in lines if not line.lower().startswith(b"last-event-id:"))
        return head, body

    def _relay(self, client: socket.socket, server: socket.socket, exchange: Exchange, cut: Cut | None) -> None:
        if self._answers and exchange.method != "OPTIONS":
            while not select.select([server], [], [], 0)[0]:
                # the request's body may still be on its way; that the server begins to answer means that it has acted
                if client in select.select([client, server], [], [], SILENCE_SECONDS)[0]:
                    server.sendall(client.recv(65536))
            client.sendall(self._answers.pop(0))
            return
        super()._relay(client, server, exchange, cut)
