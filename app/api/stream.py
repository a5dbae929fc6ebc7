"""The one file that speaks SSE over HTTP: a run's log as a response.

A response of our own: sse-starlette's and FastAPI's can't do the contract's bytes (docs/decisions/001-sse-response.md).
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import EventsExpired, TooManyStreams
from app.protocols.sse import HEARTBEATS, MEDIA_TYPE, Dialect, encode
from app.protocols.view import Reading, View
from app.runs.model import Run
from app.runs.service import Slice
from app.runs.store import Patience

logger = logging.getLogger(__name__)

STREAM_HEADERS: Mapping[str, str] = {
    "Content-Type": MEDIA_TYPE,
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


HOST: Final = "runstream.stream_host"  # in the scope of a request
JITTER: Final = 0.1
SHARE_OF_STRANGERS: Final = 0.1


def run_headers(run: Run) -> dict[str, str]:
    """Where the run is to be found again."""
    return {
        "Location": f"/runs/{run.run_id}/stream",
        "Content-Location": f"/threads/{run.thread_id}/runs/{run.run_id}",
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamLimits:
    """How many streams there may be, of each owner and of all, and how many seconds one may last, give or take."""

    max_streams: int
    max_streams_per_owner: int | None
    max_stream_seconds: float | None


class Streams:
    """The open streams of a process: how many there may be, and that they can be broken off.

    What a client waits for takes a seat before its run begins, so that who is refused has started nothing. A stream,
    a waiting invoke, a long-poll, a socket and each of its subscriptions are a seat each.
    """

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._open: set[anyio.CancelScope] = set()
        self._closed = False
        self._seats = Counter[str | None]()
        self._taken = 0
        self._strangers = 0

    @contextmanager
    def seat(self, owner: str | None) -> Iterator[None]:
        """Of an owner, or of nobody yet: a socket's owner may come later. Raises TooManyStreams."""
        limits = self._limits
        if self._taken >= limits.max_streams:
            raise TooManyStreams("The server has as many open streams as it may: try again in a moment.")
        most = None if owner is None else limits.max_streams_per_owner
        if most is not None and self._seats[owner] >= most:
            raise TooManyStreams(f"You have {most} open streams, as many as you may.")
        self._taken += 1
        self._seats[owner] += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._seats[owner] -= 1
            if not self._seats[owner]:
                del self._seats[owner]

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """For a socket that has not said yet who it is: those who never do must not take the seats of the others.

        Raises TooManyStreams.
        """
        if self._strangers >= max(1, int(self._limits.max_streams * SHARE_OF_STRANGERS)):
            raise TooManyStreams("Too many sockets have not said yet who they are: try again in a moment.")
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1

    def take(self, owner: str) -> ExitStack:
        """A seat that is given back at the end of a `with`, unless the stack's `pop_all` went on to a response."""
        stack = ExitStack()
        stack.enter_context(self.seat(owner))
        return stack

    @property
    def lifetime_seconds(self) -> float | None:
        """How long the next stream may last: all that were opened together must not come back together."""
        seconds = self._limits.max_stream_seconds
        return None if seconds is None else seconds * random.uniform(1 - JITTER, 1 + JITTER)

    @contextmanager
    def opened(self, *, seconds: float | None = None) -> Iterator[anyio.CancelScope]:
        """A scope for what a client waits for, which is broken off after so long."""
        with anyio.CancelScope() as scope:
            if seconds is not None:
                scope.deadline = anyio.current_time() + seconds
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
async def while_connected(
    streams: Streams,
    receive: Receive,
    until: Callable[[], Awaitable[None]] | None = None,
    *,
    seconds: float | None = None,
) -> AsyncIterator[None]:
    """The body is broken off, without an error.

    When the client leaves, the process stops, `until` returns, or after so many seconds.
    """
    with streams.opened(seconds=seconds) as scope:
        try:
            async with asyncio.TaskGroup() as group:  # it takes a tenth of the memory of anyio's
                watching = [group.create_task(_until_gone(receive, scope))]
                if until is not None:
                    watching.append(group.create_task(_after(until, scope)))
                yield
                for task in watching:
                    task.cancel()
        except ExceptionGroup as errors:
            # a task group wraps even the one error of its body
            raise errors.exceptions[0] from None


async def _after(until: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
    await until()
    scope.cancel()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class EventStream(Response):
    """Slices of logs as frames, heartbeats in silence.

    `follow` makes the slices, and looks on at their run as long as the client is there; `view_of` says what this
    reader sees of a run; the stream is broken off when `until` returns, so that its client comes back and is asked who
    it is. `send` waits while a slow client's buffer is full, and nothing is read for it meanwhile: it
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
        until: Callable[[], Awaitable[None]] | None,
        seat: ExitStack,
    ) -> None:
        """`seat` is what was taken for this stream; it is given back at its end."""
        super().__init__(status_code=200, headers={**STREAM_HEADERS, **headers})
        # Response counts the body that it does not have
        self.raw_headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        self._follow = follow
        self._streams = streams
        self._view_of = view_of
        self._dialect: Dialect = dialect
        self._heartbeat_seconds = heartbeat_seconds
        self._until = until
        self._seat = seat
        self._sent_at = 0.0
        self._run: Run | None = None
        self._reading: Reading | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host: list[EventStream] | None = scope.get(HOST)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        except BaseException:
            self.drop()
            raise
        self._sent_at = time.monotonic()
        if host is None:
            await self.run(receive, send)
        else:
            host.append(self)

    def drop(self) -> None:
        """It will not be run."""
        self._seat.close()

    async def run(self, receive: Receive, send: Send) -> None:
        """Send the frames; the headers are sent."""
        is_finished = False
        seconds = self._streams.lifetime_seconds
        try:
            connected = while_connected(self._streams, receive, self._until, seconds=seconds)
            with self._seat:
                async with connected, aclosing(self._follow(self._patience)) as slices:
                    await self._send_frames(slices, send)
                    is_finished = True
        except EventsExpired as error:
            # deleted while it was read: a drop, and the client that comes back is told
            logger.info("A stream was broken off: %s", error)
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
        async for piece in slices:
            if body := self._body(piece):
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._sent_at = time.monotonic()

    def _body(self, piece: Slice) -> bytes:
        now = time.monotonic()
        if piece.run is not None:
            if self._reading is None or piece.run is not self._run:
                self._run, self._reading = piece.run, Reading(self._view_of(piece.run))
            if piece.is_past:
                self._reading.recall(piece.events)
                return b""
            shown = self._reading.select(piece.events, now=now, is_behind=piece.is_behind)
            if shown:
                return encode(shown, piece.run.run_id, self._dialect)
        return HEARTBEATS[self._dialect] if now - self._sent_at >= self._heartbeat_seconds else b""


class StreamHost:
    """Runs event streams when everything else that their requests passed through has returned.

    A stream lasts for minutes. Inside of its route it would keep what answered its request for as long, and every
    frame would wake up, and be sent through, each layer between (docs/performance.md). The headers do pass through
    all of them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host: list[EventStream] = []
        scope[HOST] = host
        try:
            await self._app(scope, receive, send)
        except BaseException:
            for stream in host:
                stream.drop()
            raise
        for stream in host:
            await stream.run(receive, send)
