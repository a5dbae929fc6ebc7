"""How one reader wants its token frames: joined, and filtered (wire contract, section 4, Tokens).

A view of the log like any other: joining never crosses a message or another event, loses no character, and a joined
frame carries the last seq that it contains, so coming back from it is exact.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from app.errors import Invalid
from app.pattern import BadPattern, Pattern
from app.protocols.partial_text import Key, PartialTexts
from app.runs.event import Event, with_seq

MAX_FLUSH_COUNT: Final = 10_000
MAX_FLUSH_MILLISECONDS: Final = 60_000
MAX_BATCH_CHARACTERS: Final = 65_536  # what a reader may hold back, whatever it asked

FIELDS: Final = frozenset(
    {"flush", "nodes", "tags", "exclude_tags", "min_length", "exclude_whitespace", "pattern", "parsed", "in_state"}
)
# of a token's data; one with anything else, such as a block that is no text, is not joined
JOINABLE: Final = frozenset({"id", "content", "role", "index", "reasoning", "last"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPolicy:
    """What a reader asked for; the default sends each token as it comes."""

    count: int = 1  # tokens a frame, at most
    seconds: float | None = None  # collect for so long instead
    nodes: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    exclude_tags: frozenset[str] = frozenset()
    min_length: int = 0
    exclude_whitespace: bool = False
    pattern: Pattern | None = None
    parsed: bool = False  # beside JSON text, what it says so far
    by_node: Mapping[str, "TokenPolicy"] = field(default_factory=dict)  # what differs for a node, from its author

    def of(self, node: str) -> "TokenPolicy":
        """The policy for what a node says."""
        return self.by_node.get(node, self)

    @property
    def parses(self) -> bool:
        """Whether a view of the log with this policy needs what is before its cursor."""
        return self.parsed or any(policy.parsed for policy in self.by_node.values())

    @property
    def is_at_work(self) -> bool:
        return bool(self.by_node) or self.filters or self.joins or self.parsed

    @property
    def filters(self) -> bool:
        return bool(
            self.nodes is not None
            or self.tags is not None
            or self.exclude_tags
            or self.min_length
            or self.exclude_whitespace
            or self.pattern is not None
        )

    @property
    def joins(self) -> bool:
        return self.count > 1 or self.seconds is not None

    def keeps(self, frame: Mapping[str, Any]) -> bool:
        """Whether a token frame passes the filters. Of one that is truncated, the text is not there to be looked at."""
        text, tags = frame["data"].get("content"), frozenset(frame.get("tags", ()))
        if self.nodes is not None and frame["node"] not in self.nodes:
            return False
        if (self.tags is not None and not self.tags & tags) or self.exclude_tags & tags:
            return False
        return text is None or self._says(text)

    def _says(self, text: str) -> bool:
        if len(text) < self.min_length or (self.exclude_whitespace and text and not text.strip()):
            return False
        return self.pattern is None or self.pattern.is_in(text)


EACH: Final = TokenPolicy()


def parse_policy(
    tokens: Mapping[str, Any] | None,
    *,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    loc: Sequence[str] = ("body", "tokens"),
) -> TokenPolicy:
    """The policy of a `tokens` object; `defaults` by node are for the fields that it leaves out.

    Raises Invalid for anything that is not one.
    """
    if tokens is None:
        if not defaults:
            return EACH
        tokens = {}
    if not isinstance(tokens, Mapping):
        raise Invalid("tokens is an object.", loc=loc)
    by_node = {node: parse_policy({**default, **tokens}, loc=loc) for node, default in (defaults or {}).items()}
    if unknown := sorted(set(tokens) - FIELDS):
        raise Invalid(f"tokens has no field {unknown[0]!r}.", loc=(*loc, unknown[0]))
    count, seconds = parse_flush(tokens.get("flush", "each"), loc)
    min_length = tokens.get("min_length", 0)
    if not is_whole(min_length, 0, 1_000_000):
        raise Invalid("min_length is a number from 0 to 1000000.", loc=(*loc, "min_length"))
    for switch in ("exclude_whitespace", "in_state", "parsed"):
        if not isinstance(tokens.get(switch, False), bool):
            raise Invalid(f"{switch} is true or false.", loc=(*loc, switch))
    return TokenPolicy(
        count=count,
        seconds=seconds,
        nodes=names(tokens, "nodes", loc),
        tags=names(tokens, "tags", loc),
        exclude_tags=names(tokens, "exclude_tags", loc) or frozenset(),
        min_length=min_length,
        exclude_whitespace=tokens.get("exclude_whitespace", False),
        pattern=parse_pattern(tokens.get("pattern"), (*loc, "pattern")),
        parsed=tokens.get("parsed", False),
        by_node=by_node,
    )


def parse_flush(flush: Any, loc: Sequence[str]) -> tuple[int, float | None]:
    match flush:
        case "each":
            return 1, None
        case {"count": count, **rest} if not rest and is_whole(count, 1, MAX_FLUSH_COUNT):
            return count, None
        case {"ms": ms, **rest} if not rest and is_whole(ms, 1, MAX_FLUSH_MILLISECONDS):
            return MAX_FLUSH_COUNT, ms / 1000
        case _:
            raise Invalid('flush is "each", {"count": n} or {"ms": n}.', loc=(*loc, "flush"))


def is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def names(tokens: Mapping[str, Any], key: str, loc: Sequence[str]) -> frozenset[str] | None:
    value = tokens.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Invalid(f"{key} is a list of names.", loc=(*loc, key))
    return frozenset(value)


def parse_pattern(text: Any, loc: Sequence[str]) -> Pattern | None:
    if text is None:
        return None
    try:
        return Pattern(text)
    except BadPattern as error:
        raise Invalid(str(error), loc=loc) from None


@dataclass(slots=True)
class _Batch:
    """Neighbouring tokens of one message, not yet sent."""

    key: Key
    frame: dict[str, Any]
    policy: TokenPolicy
    last: Event
    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, event: Event, data: Mapping[str, Any]) -> None:
        self.last = event
        self.texts.append(data["content"])
        self.reasonings.append(data.get("reasoning", ""))
        self.characters += len(self.texts[-1]) + len(self.reasonings[-1])
        if data.get("last"):
            self.frame["data"]["last"] = True

    def is_full(self, count: int) -> bool:
        return len(self.texts) >= count or self.characters >= MAX_BATCH_CHARACTERS

    def event(self, parsed: Mapping[str, Any]) -> Event:
        """One event for all of them, with the seq of the last; `parsed` is what to add to its data."""
        if len(self.texts) == 1 and not parsed:
            return self.last
        data = {**self.frame["data"], "content": "".join(self.texts), **parsed}
        if any(self.reasonings):
            data["reasoning"] = "".join(self.reasonings)
        return event_of({**self.frame, "data": data}, self.last.seq)


def event_of(frame: Mapping[str, Any], seq: int) -> Event:
    """The event of a frame that a view has made."""
    frame = {key: value for key, value in frame.items() if key != "seq"}
    try:
        text = escaped(orjson.dumps(frame))
    except TypeError:  # a number of more than 64 bits, in what was parsed
        text = json.dumps(frame, separators=(",", ":")).encode()
    return Event(seq, with_seq(text, seq))


def escaped(text: bytes) -> bytes:
    """As the engine's JSON: no character at which a client may split lines."""
    if text.isascii():
        return text
    text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text.replace(b"\xc2\x85", b"\\u0085")


class TokenView:
    """A reader's policy at work. Feed it events in order; `due_at` says when what it holds must go out."""

    def __init__(self, policy: TokenPolicy) -> None:
        self._policy = policy
        self._batch: _Batch | None = None
        self._partial = PartialTexts()
        self.due_at: float | None = None

    def select(self, events: Sequence[Event], *, now: float, is_behind: bool = False) -> Sequence[Event]:
        """What to send now. `is_behind`: the reader lags, so all neighbouring tokens are joined, whatever it asked."""
        if not (self._policy.is_at_work or is_behind or self._batch):
            return events
        shown = list(self._select(events, now, is_behind))
        if self._batch is not None and (self._batch.is_full(self._batch.policy.count) or self._is_due(now)):
            shown.extend(self.flush())
        return shown

    def flush(self) -> Sequence[Event]:
        """What is held back, at once."""
        batch, self._batch, self.due_at = self._batch, None, None
        if batch is None:
            return []
        return [batch.event(self._partial.shown(batch.key) if batch.policy.parsed else {})]

    def _is_due(self, now: float) -> bool:
        return self.due_at is not None and self.due_at <= now

    def _select(self, events: Sequence[Event], now: float, is_behind: bool) -> Iterator[Event]:
        for event in events:
            if event.kind == "token":
                yield from self._token(event, now, is_behind)
                continue
            yield from self.flush()
            if self._policy.parses and event.kind in ("tool_call_delta", "tool_call", "restart", "discard"):
                event = self._with_call(event)
            yield event

    def _token(self, event: Event, now: float, is_behind: bool) -> Iterator[Event]:
        frame = orjson.loads(event.text)
        policy, data = self._policy.of(frame["node"]), frame["data"]
        if policy.parsed:
            self._partial.add(key_of(frame), data.get("content"), is_last=data.get("last", False))
        if not policy.keeps(frame):
            yield from self._leave_out(frame)
        elif "content" not in data or not JOINABLE.issuperset(data):
            # there is nothing to join: it is a block that is no text, or was truncated (wire contract, section 2)
            yield from self.flush()
            yield event
        else:
            yield from self._add(event, frame, policy, now, is_behind)
        if policy.parsed and data.get("last"):
            self._partial.end(data["id"])

    def _leave_out(self, frame: Mapping[str, Any]) -> Sequence[Event]:
        """Of a frame that is filtered: the end of a message is the end of what was held back of it, all the same."""
        is_end = self._batch is not None and self._batch.key == key_of(frame) and frame["data"].get("last")
        return self.flush() if is_end else ()

    def _add(
        self, event: Event, frame: dict[str, Any], policy: TokenPolicy, now: float, is_behind: bool
    ) -> Iterator[Event]:
        key, data = key_of(frame), frame["data"]
        if self._batch is not None and self._batch.key != key:
            yield from self.flush()
        if self._batch is None:
            self._batch = _Batch(key, frame, policy, event)
            self.due_at = None if policy.seconds is None else now + policy.seconds
        self._batch.add(event, data)
        if data.get("last") or self._batch.is_full(MAX_FLUSH_COUNT if is_behind else policy.count):
            yield from self.flush()

    def _with_call(self, event: Event) -> Event:
        """A piece of a tool call with what its arguments say so far; of other events, what they say is noted."""
        frame = orjson.loads(event.text)
        if event.kind in ("restart", "discard"):
            for message_id in frame.get("discard", ()):
                self._partial.void(message_id)
            return event
        key = call_key_of(frame)
        if event.kind == "tool_call":
            self._partial.forget(key)
            return event
        if not self._policy.of(frame["node"]).parsed:
            return event
        self._partial.add(key, frame["data"].get("args"))
        parsed = self._partial.shown(key)
        return event_of({**frame, "data": {**frame["data"], **parsed}}, event.seq) if parsed else event


def key_of(frame: Mapping[str, Any]) -> Key:
    """What tokens have in common that may be joined: the message, and its block."""
    data = frame["data"]
    return Key(data["id"], (tuple(frame.get("ns", ())), frame["node"], data.get("index")))


def call_key_of(frame: Mapping[str, Any]) -> Key:
    """What the pieces of a tool call have in common."""
    data = frame["data"]
    return Key(data["message_id"], (tuple(frame.get("ns", ())), frame["node"], data["id"]), is_call=True)
