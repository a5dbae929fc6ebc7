"""/ws: many runs on one socket (wire contract, section 7). Each subscription is one more reader of its run's log."""

import contextlib
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, assert_never

import anyio
from anyio.abc import TaskGroup, TaskStatus
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from app.api.access import Access
from app.api.body import DEFAULT_MODES, check_depth, is_run_id
from app.api.context import Context
from app.api.problem import problem_of
from app.api.start import begin_run, check_origin, recorded_view
from app.api.stream import Seat
from app.errors import BodyTooLarge, Invalid, OriginNotAllowed, RunstreamError, TooManyStreams, Unauthorized
from app.protocols import ws
from app.protocols.view import Reading
from app.runs.model import Run

router = APIRouter()

MAX_SUBSCRIPTIONS: Final = 64
MAX_RUBBISH: Final = 3  # messages that are answered with an error; the next one ends the conversation
CLOSE_SECONDS: Final = 1.0  # a client that reads nothing does not hear that it is left, and is not waited for

POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
SERVICE_RESTART: Final = 1012  # of the IANA registry: come back


@router.websocket("/ws")
async def open_socket(websocket: WebSocket) -> None:
    """Refuse a page of another site before the handshake is over, then serve until one side leaves."""
    context: Context = websocket.app.state.context
    access: Access | None = websocket.state.access
    try:
        check_origin(context, websocket)
    except OriginNotAllowed as error:
        await websocket.send_denial_response(problem_of(error))
        return
    try:
        with contextlib.ExitStack() as strangeness, context.streams.take(None):
            if access is None:
                strangeness.enter_context(context.streams.stranger())
            await websocket.accept()
            await Conversation(websocket, context, access, strangeness).run()
    except TooManyStreams as error:
        await websocket.send_denial_response(problem_of(error))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Subscription:
    """A run that a socket follows, from where, and which of its messages the client wants."""

    run: Run
    after: int
    topics: frozenset[ws.Topic]
    seat: Seat
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Conversation:
    """One client's socket.

    Its messages are dealt with one after the other. What is sent waits while a slow client's buffer is full, one
    sender at a time, and no log is read meanwhile: a slow socket costs a page for each of its subscriptions and slows
    nobody. That it is alive is the business of the server's ping frames.

    Without an access its first message is to say who it is, soon. When an access is over, so is the socket, unless
    the client has shown a newer one.
    """

    def __init__(
        self, websocket: WebSocket, context: Context, access: Access | None, strangeness: contextlib.ExitStack
    ) -> None:
        self._websocket = websocket
        self._context = context
        self._access = access
        self._strangeness = strangeness  # ends when it is known who it is
        self._watch = anyio.CancelScope()
        self._subscriptions: dict[str, Subscription] = {}
        self._sending = anyio.Lock()
        self._rubbish = 0
        self._group: TaskGroup = anyio.create_task_group()
        # what is told to a client whose socket is broken off; nothing is told to one that has left
        self._close_code: int | None = SERVICE_RESTART

    async def run(self) -> None:
        """Until the client leaves, sends too much that is not understood, or the process is about to stop."""
        streams = self._context.streams
        with streams.opened(seconds=streams.lifetime_seconds):
            async with self._group:
                await self._group.start(self._watch_access)
                await self._receive()
        if self._close_code is not None:
            with anyio.move_on_after(CLOSE_SECONDS), contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._websocket.close(self._close_code)

    async def _watch_access(self, *, task_status: TaskStatus[None]) -> None:
        """End the conversation when its access is over, or when it has taken too long to show one."""
        self._watch.cancel()
        with anyio.CancelScope() as self._watch:
            task_status.started()
            if self._access is None:
                await anyio.sleep(self._context.access.socket_seconds)
            else:
                await self._context.access.until_over(self._access)
            await self._turn_away(Unauthorized("The access is over, or was not shown in time."))

    async def _turn_away(self, error: Unauthorized) -> None:
        with anyio.move_on_after(CLOSE_SECONDS):
            await self._refuse(error, None)
        self._end(POLICY_VIOLATION)

    @property
    def _owner(self) -> str:
        if self._access is None:
            raise Unauthorized("Say who you are first, with an authenticate message.")
        return self._access.identity.owner

    def _end(self, close_code: int | None) -> None:
        self._close_code = close_code
        self._group.cancel_scope.cancel()

    async def _receive(self) -> None:
        while self._rubbish <= MAX_RUBBISH:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._end(None)
                return
            await self._take(message.get("text"))
        self._end(POLICY_VIOLATION)

    async def _take(self, text: str | None) -> None:
        """Deal with a message. One that is not understood counts as rubbish; one that is refused does not."""
        envelope = None
        try:
            envelope = ws.open_envelope(text, max_bytes=self._context.max_body_bytes)
            message = ws.parse_message(envelope)
        except (Invalid, BodyTooLarge) as error:
            self._rubbish += 1
            if self._rubbish <= MAX_RUBBISH:
                await self._refuse(error, envelope)
            return
        try:
            self._context.access.count(self._websocket.scope, self._access)
            await self._act(message)
        except RunstreamError as error:
            if self._access is None and isinstance(error, Unauthorized):
                await self._turn_away(error)
            else:
                await self._refuse(error, envelope)

    async def _refuse(self, error: RunstreamError, envelope: ws.Envelope | None) -> None:
        self._context.refused(error.code)
        run_id, thread_id = (envelope.run_id, envelope.thread_id) if envelope else (None, None)
        await self._send(ws.encode_error(error, run_id=run_id, thread_id=thread_id))

    async def _act(self, message: ws.ClientMessage) -> None:
        match message:
            case ws.Authenticate():
                await self._authenticate(message.token)
            case _ if self._access is None:
                raise Unauthorized("Say who you are first, with an authenticate message.")
            case ws.Ping():
                await self._send(ws.PONG)
            case ws.Subscribe():
                await self._subscribe(message)
            case ws.Unsubscribe():
                self._unsubscribe(message.run_id)
            case ws.StartRun():
                await self._start(message)
            case ws.CancelRun():
                # noted in the store and told to the executor, or neither
                with anyio.CancelScope(shield=True):
                    await self._context.runs.cancel(self._owner, message.run_id, keep_partial=message.keep_partial)
            case _:
                assert_never(message)

    async def _authenticate(self, token: str) -> None:
        """Take a token: the first one, or a newer one of the same owner."""
        access = await self._context.access.of_token(self._websocket.scope, token)
        if self._access is not None and access.identity.owner != self._access.identity.owner:
            raise Unauthorized("A socket has one owner.")
        self._access = access
        self._strangeness.close()
        await self._group.start(self._watch_access)
        await self._send(ws.encode_ack())

    async def _start(self, message: ws.StartRun) -> None:
        named = message.body.get("run_id")
        self._check_room(named.lower() if isinstance(named, str) and is_run_id(named) else None)
        check_depth(message.body)
        with self._context.streams.take(self._owner) as seat:
            # a run that was accepted and not begun, because the client left in between, would wait for its lease's end
            with anyio.CancelScope(shield=True):
                run = await begin_run(self._context, self._owner, message.body, DEFAULT_MODES, key=None)
            ack = ws.encode_ack(run_id=run.run_id, thread_id=run.thread_id)
            await self._open(Subscription(run=run, after=0, topics=ws.TOPICS, seat=seat.pass_on()), ack=ack)

    async def _subscribe(self, message: ws.Subscribe) -> None:
        self._check_room(message.run_id)
        run = await self._context.runs.get(self._owner, message.run_id)
        await self._context.runs.check_cursor(run, message.after)
        earlier = self._subscriptions.get(run.run_id)
        seat = earlier.seat.pass_on() if earlier else self._context.streams.take(self._owner)
        await self._open(Subscription(run=run, after=message.after, topics=message.topics, seat=seat))

    def _check_room(self, run_id: str | None) -> None:
        if run_id not in self._subscriptions and len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise ws.TooManySubscriptions(f"A socket follows {MAX_SUBSCRIPTIONS} runs at a time.")

    async def _open(self, subscription: Subscription, *, ack: str | None = None) -> None:
        """Follow a run from now on, an earlier subscription to it ends; at no moment does nobody look on."""
        run = subscription.run
        try:
            with self._context.runs.attach(run):
                self._unsubscribe(run.run_id)
                if ack is not None:
                    await self._send(ack)
                self._subscriptions[run.run_id] = subscription
                await self._group.start(self._follow, subscription)
        except BaseException:
            subscription.seat.close()  # whether the task has begun or not
            raise

    def _unsubscribe(self, run_id: str) -> None:
        if subscription := self._subscriptions.pop(run_id, None):
            subscription.scope.cancel()

    async def _follow(self, subscription: Subscription, *, task_status: TaskStatus[None]) -> None:
        run = subscription.run
        with subscription.scope, subscription.seat, self._context.runs.attach(run):
            task_status.started()
            try:
                await self._send_log(subscription)
            except RunstreamError as error:
                await self._send(ws.encode_error(error, run_id=run.run_id, thread_id=run.thread_id))
        if self._subscriptions.get(run.run_id) is subscription:
            del self._subscriptions[run.run_id]

    async def _send_log(self, subscription: Subscription) -> None:
        run, view = subscription.run, recorded_view(subscription.run)
        reading = Reading(view)

        def patience() -> float | None:
            return None if reading.due_at is None else max(reading.due_at - time.monotonic(), 0.0)

        slices = self._context.runs.follow(run, after=subscription.after, patience=patience, recall=view.recalls)
        async with aclosing(slices):
            async for piece in slices:
                if piece.is_past:
                    reading.recall(piece.events)
                    continue
                shown = reading.select(piece.events, now=time.monotonic(), is_behind=piece.is_behind)
                for event in shown:
                    if ws.topic_of(event) in subscription.topics:
                        await self._send(ws.encode(event, run.run_id))

    async def _send(self, text: str) -> None:
        """Send a message when it is its turn."""
        async with self._sending:
            try:
                await self._websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                # uvicorn says RuntimeError when it has closed the socket itself: after a broken frame, or no pong
                self._end(None)
