"""The one file that speaks SSE over HTTP: a run's log as a response.

A response of our own: sse-starlette's and FastAPI's can't do the contract's bytes (docs/decisions/001-sse-response.md).
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.protocols.sse import HEARTBEATS, MEDIA_TYPE, Dialect, encode
from app.protocols.view import Reading, View
from app.runs.model import Run
from app.runs.service import Slice
from app.runs.store import Patience

STREAM_HEADERS: Mapping[str, str] = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


def run_headers(run: Run) -> dict[str, str]:
    """Where the run is to be found again."""
    return {
        "Location": f"/runs/{run.run_id}/stream",
        "Content-Location": f"/threads/{run.thread_id}/runs/{run.run_id}",
    }


class Streams:
    """The open streams of a process, so that they can be broken off when it stops."""

    def __init__(self) -> None:
        self._open: set[anyio.CancelScope] = set()
        self._closed = False

    @contextmanager
    def opened(self) -> Iterator[anyio.CancelScope]:
        """A scope for what a client waits for."""
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            if self._closed:
                scope.cancel()
            try:
                yield scope
            finally:
                self._open.discard(scope)

    def break_off(self) -> None:
        """End every stream without its closing chunk: a client sees a drop and comes back, not an end."""
        self._closed = True
        for scope in list(self._open):
            scope.cancel()

    @property
    def count(self) -> int:
        return len(self._open)


@asynccontextmanager
async def while_connected(streams: Streams, receive: Receive) -> AsyncIterator[None]:
    """The body is broken off, without an error, when the client leaves or the process is about to stop."""
    with streams.opened() as scope:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, scope)
                yield
                scope.cancel()
        except ExceptionGroup as errors:
            # a task group wraps even the one error of its body
            raise errors.exceptions[0] from None


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class EventStream(Response):
    """Slices of logs as frames, heartbeats in silence.

    `follow` makes the slices, and looks on at their run as long as the client is there; `view_of` says what this
    reader sees of a run. `send` waits while a slow client's buffer is full, and nothing is read for it meanwhile: it
    costs its own window and slows nobody.
    """

    def __init__(
        self,
        follow: Callable[[Patience], AsyncGenerator[Slice, None]],
        streams: Streams,
        *,
        headers: Mapping[str, str],
        view_of: Callable[[Run], View],
        dialect: Dialect,
        heartbeat_seconds: float,
    ) -> None:
        super().__init__(status_code=200, headers={**STREAM_HEADERS, **headers})
        # Response counts the body that it does not have
        self.raw_headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        self._follow = follow
        self._streams = streams
        self._view_of = view_of
        self._dialect: Dialect = dialect
        self._heartbeat_seconds = heartbeat_seconds
        self._sent_at = 0.0
        self._run: Run | None = None
        self._reading: Reading | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_finished = False
        async with while_connected(self._streams, receive), aclosing(self._follow(self._patience)) as slices:
            await self._send_frames(slices, send)
            is_finished = True
        if is_finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _patience(self) -> float:
        """Seconds of silence until something is to be sent: a heartbeat, or tokens that were held back."""
        now = time.monotonic()
        wait = self._sent_at + self._heartbeat_seconds - now
        if self._reading is not None and self._reading.due_at is not None:
            wait = min(wait, self._reading.due_at - now)
        return max(wait, 0.0)

    async def _send_frames(self, slices: AsyncGenerator[Slice, None], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._sent_at = time.monotonic()
        async for piece in slices:
            if body := self._body(piece):
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._sent_at = time.monotonic()

    def _body(self, piece: Slice) -> bytes:
        now = time.monotonic()
        if piece.run is not None:
            if self._reading is None or piece.run is not self._run:
                self._run, self._reading = piece.run, Reading(self._view_of(piece.run))
            shown = self._reading.select(piece.events, now=now, is_behind=piece.is_behind)
            if shown:
                return encode(shown, piece.run.run_id, self._dialect)
        return HEARTBEATS[self._dialect] if now - self._sent_at >= self._heartbeat_seconds else b""
