"""The one file that speaks SSE over HTTP: a run's log as a response.

A response of our own: sse-starlette's and FastAPI's can't do the contract's bytes (docs/decisions/001-sse-response.md).
"""

import time
from collections.abc import Mapping

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.protocols.sse import HEARTBEATS, MEDIA_TYPE, Dialect, encode
from app.protocols.view import View
from app.runs.model import Run
from app.runs.service import RunService

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

    def add(self, scope: anyio.CancelScope) -> None:
        self._open.add(scope)
        if self._closed:
            scope.cancel()

    def remove(self, scope: anyio.CancelScope) -> None:
        self._open.discard(scope)

    def break_off(self) -> None:
        """End every stream without its closing chunk: a client sees a drop and comes back, not an end."""
        self._closed = True
        for scope in list(self._open):
            scope.cancel()

    @property
    def count(self) -> int:
        return len(self._open)


class EventStream(Response):
    """A run's frames after a cursor, then live to the end; heartbeats in silence.

    The run is looked on at (`RunService.attach`) as long as the client is there. `send` waits while a slow client's
    buffer is full, and nothing is read for it meanwhile: it costs its own window and slows nobody.
    """

    def __init__(
        self,
        service: RunService,
        streams: Streams,
        run: Run,
        *,
        after: int,
        view: View,
        dialect: Dialect,
        heartbeat_seconds: float,
    ) -> None:
        super().__init__(status_code=200, headers={**STREAM_HEADERS, **run_headers(run)})
        # Response counts the body that it does not have
        self.raw_headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        self._service = service
        self._streams = streams
        self._run = run
        self._after = after
        self._view = view
        self._dialect: Dialect = dialect
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        finished = False
        with self._service.attach(self._run):
            async with anyio.create_task_group() as group:
                self._streams.add(group.cancel_scope)
                try:
                    group.start_soon(self._until_gone, receive, group.cancel_scope)
                    await self._send_frames(send)
                    finished = True
                    group.cancel_scope.cancel()
                finally:
                    self._streams.remove(group.cancel_scope)
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send_frames(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent_at = time.monotonic()
        pages = self._service.tail(self._run, after=self._after, silence_seconds=self._heartbeat_seconds)
        async for page in pages:
            shown = self._view.select(page.events)
            if shown:
                body = encode(shown, self._run.run_id, self._dialect)
            elif time.monotonic() - sent_at >= self._heartbeat_seconds:
                body = HEARTBEATS[self._dialect]
            else:
                continue
            await send({"type": "http.response.body", "body": body, "more_body": True})
            sent_at = time.monotonic()
