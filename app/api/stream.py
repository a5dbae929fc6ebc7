"""The one file that speaks SSE over HTTP: a run's log as a response.

A response of our own: sse-starlette's and FastAPI's can't do the contract's bytes (docs/decisions/001-sse-response.md).
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import BodyTimeout, BodyTooLarge, EventsExpired, TooManyStreams
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


class Seat:
    """A place among the open streams, given back at the end of a `with`, unless `pass_on` went on to a response."""

    __slots__ = ("_give_back", "_owner")

    def __init__(self, owner: str | None, give_back: Callable[[str | None], None] | None) -> None:
        self._owner = owner
        self._give_back = give_back

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pass_on(self) -> "Seat":
        """The same seat, for somebody else to give back."""
        give_back, self._give_back = self._give_back, None
        return Seat(self._owner, give_back)

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self._owner)


class Stoppable(Protocol):
    """Something that a client waits for."""

    def cancel(self) -> None: ...


class Streams:
    """The open streams of a process: how many there may be, and that they can be broken off.

    What a client waits for takes a seat before its run begins, so that who is refused has started nothing. A stream,
    a waiting invoke, a long-poll, a socket and each of its subscriptions are a seat each.
    """

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._open: set[Stoppable] = set()
        self._closed = False
        self._seats = Counter[str | None]()
        self._taken = 0
        self._strangers = 0

    def take(self, owner: str | None) -> Seat:
        """Of an owner, or of nobody yet: a socket's owner may come later. Raises TooManyStreams."""
        limits = self._limits
        if self._taken >= limits.max_streams:
            raise TooManyStreams("The server has as many open streams as it may: try again in a moment.")
        most = None if owner is None else limits.max_streams_per_owner
        if most is not None and self._seats[owner] >= most:
            raise TooManyStreams(f"You have {most} open streams, as many as you may.")
        self._taken += 1
        self._seats[owner] += 1
        return Seat(owner, self._give_back)

    def _give_back(self, owner: str | None) -> None:
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

    @property
    def lifetime_seconds(self) -> float | None:
        """How long the next stream may last: all that were opened together must not come back together."""
        seconds = self._limits.max_stream_seconds
        return None if seconds is None else seconds * random.uniform(1 - JITTER, 1 + JITTER)

    def enter(self, waiting: Stoppable) -> None:
        """From now on it is stopped when streams are broken off; at once, if they are."""
        self._open.add(waiting)
        if self._closed:
            waiting.cancel()

    def leave(self, waiting: Stoppable) -> None:
        self._open.discard(waiting)

    @contextmanager
    def opened(self, *, seconds: float | None = None) -> Iterator[anyio.CancelScope]:
        """A scope for what a client waits for, which is broken off after so long."""
        with anyio.CancelScope() as scope:
            if seconds is not None:
                scope.deadline = anyio.current_time() + seconds
            self.enter(scope)
            try:
                yield scope
            finally:
                self.leave(scope)

    def break_off(self) -> None:
        """End every stream without its closing chunk: a client sees a drop and comes back, not an end."""
        self._closed = True
        for waiting in list(self._open):
            waiting.cancel()

    @property
    def count(self) -> int:
        return len(self._open)


class _Stop:
    """Ends what is inside of a timeout at once. It takes a third of the memory of anyio's scope."""

    __slots__ = ("timeout",)

    def __init__(self, seconds: float | None) -> None:
        self.timeout = asyncio.timeout(seconds)

    def cancel(self) -> None:
        if not self.timeout.expired():
            self.timeout.reschedule(0.0)


async def while_connected(
    streams: Streams,
    receive: Receive,
    work: Callable[[], Awaitable[None]],
    *,
    until: Callable[[], Awaitable[None]] | None = None,
    seconds: float | None = None,
) -> bool:
    """Whether `work` came to its end; else it was broken off.

    When the client left, the process stops, `until` returned, or after so many seconds. Raises what `work` raises.
    """
    stop, has_ended = _Stop(seconds), False
    try:
        async with stop.timeout, asyncio.TaskGroup() as group:  # it takes a tenth of the memory of anyio's
            watching = [group.create_task(_until_gone(receive, stop))]
            if until is not None:
                watching.append(group.create_task(_after(until, stop)))
            streams.enter(stop)
            try:
                await work()
                has_ended = True
            finally:
                streams.leave(stop)
            for task in watching:
                task.cancel()
    except TimeoutError:
        if not stop.timeout.expired():
            raise
    except ExceptionGroup as errors:
        # a task group wraps even the one error of its body
        raise errors.exceptions[0] from None
    return has_ended


async def _after(until: Callable[[], Awaitable[None]], stop: _Stop) -> None:
    await until()
    stop.cancel()


async def _until_gone(receive: Receive, stop: _Stop) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop.cancel()


@dataclass(kw_only=True, slots=True, eq=False)
class Frames:
    """Slices of logs as frames, heartbeats in silence: what follows the headers of an EventStream.

    `follow` makes the slices, and looks on at their run as long as the client is there; `view_of` says what this
    reader sees of a run; it is broken off when `until` returns, so that its client comes back and is asked who it is;
    `seat` is what was taken for it, and is given back at its end. `send` waits while a slow client's buffer is full,
    and nothing is read for it meanwhile: it costs its own window and slows nobody.
    """

    follow: Callable[[Patience], AsyncGenerator[Slice, None]]
    streams: Streams
    view_of: Callable[[Run], View]
    dialect: Dialect
    heartbeat_seconds: float
    until: Callable[[], Awaitable[None]] | None
    seat: Seat
    _sent_at: float = field(default_factory=time.monotonic, init=False)
    _run: Run | None = field(default=None, init=False)
    _reading: Reading | None = field(default=None, init=False)

    def drop(self) -> None:
        """They will not be sent."""
        self.seat.close()

    async def run(self, receive: Receive, send: Send) -> None:
        """Send them, and the end of the response where the stream came to its own."""
        is_finished = False
        seconds = self.streams.lifetime_seconds
        sending = partial(self._send_all, send)
        try:
            with self.seat:
                is_finished = await while_connected(self.streams, receive, sending, until=self.until, seconds=seconds)
        except (EventsExpired, BodyTooLarge, BodyTimeout) as error:
            # deleted while it was read, or a body that does not end: a drop, and the client that comes back is told
            logger.info("A stream was broken off: %s", error)
        if is_finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self.follow(self._patience)) as slices:
            async for piece in slices:
                if body := self._body(piece):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sent_at = time.monotonic()

    def _patience(self) -> float:
        """Seconds of silence until something is to be sent: a heartbeat, or tokens that were held back."""
        now = time.monotonic()
        wait = self._sent_at + self.heartbeat_seconds - now
        if self._reading is not None and self._reading.due_at is not None:
            wait = min(wait, self._reading.due_at - now)
        return max(wait, 0.0)

    def _body(self, piece: Slice) -> bytes:
        now = time.monotonic()
        if piece.run is not None:
            if self._reading is None or piece.run is not self._run:
                self._run, self._reading = piece.run, Reading(self.view_of(piece.run))
            if piece.is_past:
                self._reading.recall(piece.events)
                return b""
            shown = self._reading.select(piece.events, now=now, is_behind=piece.is_behind)
            if shown:
                return encode(shown, piece.run.run_id, self.dialect)
        return HEARTBEATS[self.dialect] if now - self._sent_at >= self.heartbeat_seconds else b""


class EventStream(Response):
    """The headers of a stream; its frames are sent by the StreamHost, where there is one."""

    def __init__(self, frames: Frames, *, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=200, headers={**STREAM_HEADERS, **headers})
        # Response counts the body that it does not have
        self.raw_headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host: list[tuple[Frames, Receive]] | None = scope.get(HOST)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        except BaseException:
            self._frames.drop()
            raise
        if host is None:
            await self._frames.run(receive, send)
        else:
            host.append((self._frames, receive))


class StreamHost:
    """Runs event streams when the routes that answer with them, and all layers between, have returned.

    A stream lasts for minutes. Inside of its route it would keep what answered its request for as long, and every
    frame would wake up, and be sent through, each layer between (docs/performance.md). The headers do pass through
    all of them, and what is left of the request's body is limited as before.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host: list[tuple[Frames, Receive]] = []
        # a scope of their own: what routes and layers put into it goes with them
        inner = {**scope, "state": dict(scope.get("state", {})), HOST: host}
        try:
            await self._app(inner, receive, send)
        except BaseException:
            for frames, _ in host:
                frames.drop()
            raise
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]
        del inner
        while host:
            frames, limited = host.pop()
            await frames.run(limited, send)
