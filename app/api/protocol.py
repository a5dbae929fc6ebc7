"""uvicorn's HTTP/1.1, which waits for ever for the headers of a request that was begun, with an end to that."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.problem import problem_of
from app.errors import HeadersTooLarge, HeaderTimeout, RunstreamError

MAX_HEADER_BYTES: Final = 64 * 1024


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection on which no request comes, or one that does not get to the end of its headers.

    The parser keeps headers, trailers and whatever stands round the chunks of a body for as long as they go on.
    """

    # not in the object's dict, which would grow to 1.2 KB: so many attributes have their names shared, and no more
    __slots__ = ("_deadline", "_has_begun", "_header_seconds", "_idle_bytes", "_on_refused")

    def __init__(self, *args: Any, header_seconds: float, on_refused: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_seconds = header_seconds
        self._on_refused = on_refused
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._idle_bytes = 0  # since a request's headers, or a piece of its body, was whole

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MAX_HEADER_BYTES:
            self._idle_bytes = 0
            self._refuse(HeadersTooLarge(f"The headers may have {MAX_HEADER_BYTES} bytes."))

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        if self._deadline is None:
            self._wait_for_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        self._idle_bytes = 0
        super().on_headers_complete()

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(self._header_seconds, self._give_up)

    def _headers_came(self) -> None:
        self._has_begun = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self._refuse(HeaderTimeout(f"The headers did not arrive within {self._header_seconds:g} seconds."))

    def _refuse(self, error: RunstreamError) -> None:
        """Answer, where a request has begun and no other is being answered, and hang up."""
        self._on_refused(error.code)
        if self._has_begun and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(refusal(error))
        self.transport.close()


def refusal(error: RunstreamError) -> bytes:
    answer = problem_of(error)
    status = b"HTTP/1.1 %d %b" % (answer.status_code, HTTPStatus(answer.status_code).phrase.encode())
    lines = [status, *(b"%b: %b" % header for header in answer.raw_headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body)
