"""The messages of `/ws`: what a client may say, and what it hears (wire contract, section 7).

Both ways JSON objects `{"type", "payload"}` as text (RFC 6455). A message about a run also has its `executionId`; a
frame is embedded as the text that is stored, so it is the same as over HTTP, to the byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import orjson

from app.errors import BodyTooLarge, Invalid, RunstreamError
from app.protocols.event_id import MAX_SEQ
from app.runs.event import TERMINAL, Event

Topic = Literal["token", "event", "progress", "status"]

TOPICS: Final = frozenset[Topic](get_args(Topic))
STATUS_KINDS: Final = TERMINAL | {"start", "restart", "discard"}
MAX_ID_LENGTH: Final = 255

PONG: Final = '{"type":"pong","payload":{}}'


class TooManySubscriptions(RunstreamError):
    """A socket follows as many runs as it may."""

    code = "too_many_subscriptions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscribe:
    run_id: str
    topics: frozenset[Topic]
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsubscribe:
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRun:
    """`body` is what `POST /runs/stream` takes, not yet checked."""

    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRun:
    run_id: str
    keep_partial: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Authenticate:
    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ping:
    pass


ClientMessage: TypeAlias = Subscribe | Unsubscribe | StartRun | CancelRun | Authenticate | Ping


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A message whose payload is not looked at yet. The ids are what it calls itself by, for the answer."""

    type: str
    payload: Mapping[str, Any]

    @property
    def run_id(self) -> str | None:
        return self._id("run_id" if self.type == "start_run" else "executionId")

    @property
    def thread_id(self) -> str | None:
        return self._id("thread_id") if self.type == "start_run" else None

    def _id(self, name: str) -> str | None:
        value = self.payload.get(name)
        return value if isinstance(value, str) and len(value) <= MAX_ID_LENGTH else None


def open_envelope(text: str | None, *, max_bytes: int) -> Envelope:
    """Raises BodyTooLarge, and Invalid for what is no message at all; None is a message that is not text."""
    if text is None:
        raise Invalid("Messages are JSON, sent as text.", loc=())
    if len(text) > max_bytes or len(text.encode()) > max_bytes:
        raise BodyTooLarge(f"A message may have {max_bytes} bytes.")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid("The message is not JSON.", loc=()) from None
    if not isinstance(message, dict):
        raise Invalid("The message is not a JSON object.", loc=())
    kind, payload = message.get("type"), message.get("payload")
    if not isinstance(kind, str):
        raise Invalid("A message has a type.", loc=("type",))
    if payload is not None and not isinstance(payload, dict):
        raise Invalid("A payload is a JSON object.", loc=("payload",))
    return Envelope(type=kind, payload=payload or {})


def parse_message(envelope: Envelope) -> ClientMessage:
    """Raises Invalid for a type that nobody knows, and for a payload that is not the type's."""
    payload = envelope.payload
    match envelope.type:
        case "subscribe_execution":
            check_fields(payload, "executionId", "events", "after")
            run_id, topics, after = run_id_in(payload), topics_in(payload), after_in(payload)
            return Subscribe(run_id=run_id, topics=topics, after=after)
        case "unsubscribe_execution":
            check_fields(payload, "executionId")
            return Unsubscribe(run_id=run_id_in(payload))
        case "start_run":
            return StartRun(body=payload)
        case "cancel_run":
            check_fields(payload, "executionId", "keep_partial")
            return CancelRun(run_id=run_id_in(payload), keep_partial=keep_partial_in(payload))
        case "authenticate":
            check_fields(payload, "token")
            return Authenticate(token=token_in(payload))
        case "ping":
            return Ping()
        case unknown:
            raise Invalid(f"No message has the type {unknown[:100]!r}.", loc=("type",))


def check_fields(payload: Mapping[str, Any], *known: str) -> None:
    """A name that is mistyped is said, and not taken for one that is left out."""
    if unknown := sorted(set(payload).difference(known)):
        raise Invalid(f"The payload has no field {unknown[0][:100]!r}.", loc=("payload", unknown[0][:100]))


def run_id_in(payload: Mapping[str, Any]) -> str:
    value = payload.get("executionId")
    # a slash would be a piece of a key in the stores
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH or "/" in value:
        raise Invalid("executionId is the id of a run.", loc=("payload", "executionId"))
    return value.lower()  # a UUID is the same in capitals


def topics_in(payload: Mapping[str, Any]) -> frozenset[Topic]:
    """What a subscription is about; left out, everything."""
    value = payload.get("events")
    if value is None:
        return TOPICS
    if not isinstance(value, list) or not all(isinstance(item, str) and item in TOPICS for item in value):
        raise Invalid(f"events is a list of {', '.join(get_args(Topic))}.", loc=("payload", "events"))
    return frozenset(cast(list[Topic], value))


def after_in(payload: Mapping[str, Any]) -> int:
    value = payload.get("after")
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQ:
        raise Invalid("after is the seq of a frame, or 0.", loc=("payload", "after"))
    return value


def keep_partial_in(payload: Mapping[str, Any]) -> bool:
    """Whether what was said so far is to stay in the thread; left out, no."""
    value = payload.get("keep_partial", False)
    if not isinstance(value, bool):
        raise Invalid("keep_partial is true or false.", loc=("payload", "keep_partial"))
    return value


def token_in(payload: Mapping[str, Any]) -> str:
    value = payload.get("token")
    if not isinstance(value, str):
        raise Invalid("token is a string.", loc=("payload", "token"))
    return value


def topic_of(event: Event) -> Topic:
    """The type of the message that carries an event."""
    match event.kind:
        case "token":
            return "token"
        case "progress":
            return "progress"
        case kind if kind in STATUS_KINDS:
            return "status"
        case _:
            return "event"


def encode(event: Event, run_id: str) -> str:
    """The message that carries an event of a run."""
    head = b'{"type":"%b","executionId":%b,"payload":' % (topic_of(event).encode(), orjson.dumps(run_id))
    return (head + event.text + b"}").decode()


def encode_ack(*, run_id: str | None = None, thread_id: str | None = None) -> str:
    """What a `start_run` made, or, without ids, that an `authenticate` was heard."""
    return answer("ack", {}, run_id, thread_id)


def encode_error(error: RunstreamError, *, run_id: str | None = None, thread_id: str | None = None) -> str:
    """An error as a message: what its problem body has over HTTP, and what it is about as far as that is known."""
    return answer("error", {**error.fields, "code": error.code, "detail": error.detail}, run_id, thread_id)


def answer(kind: str, payload: Mapping[str, Any], run_id: str | None, thread_id: str | None) -> str:
    about = {"executionId": run_id, "threadId": thread_id}
    known = {name: value for name, value in about.items() if value is not None}
    message: dict[str, Any] = {"type": kind}
    if run_id is not None:
        message["executionId"] = run_id
    message["payload"] = {**payload, **known}
    return orjson.dumps(message, default=str).decode()
