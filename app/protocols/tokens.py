"""How one reader wants its token frames: joined, and filtered (wire contract, section 4, Tokens).

A view of the log like any other: joining never crosses a message or another event, loses no character, and a joined
frame carries the last seq that it contains, so coming back from it is exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import regex  # type: ignore[import-untyped]  # it has no annotations

from app.errors import Invalid
from app.runs.event import Event, with_seq

MAX_PATTERN_LENGTH: Final = 200
PATTERN_SECONDS: Final = 0.05  # a pattern that needs longer for a token is one that never ends
MAX_FLUSH_COUNT: Final = 10_000
MAX_FLUSH_MILLISECONDS: Final = 60_000
MAX_BATCH_CHARACTERS: Final = 65_536  # what a reader may hold back, whatever it asked


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
    pattern: Any = None

    @property
    def filters(self) -> bool:
        return bool(
            self.nodes is not None
            or self.tags is not None
            or self.exclude_tags
            or self.min_length
            or self.exclude_whitespace
            or self.pattern
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
        return self.pattern is None or self._is_found(text)

    def _is_found(self, text: str) -> bool:
        try:
            return self.pattern.search(text, timeout=PATTERN_SECONDS) is not None
        except TimeoutError:
            return False


def parse_policy(tokens: Mapping[str, Any] | None, *, loc: Sequence[str] = ("body", "tokens")) -> TokenPolicy:
    """The policy of a `tokens` object. Raises Invalid for anything that is not one."""
    if tokens is None:
        return TokenPolicy()
    if not isinstance(tokens, Mapping):
        raise Invalid("tokens is an object.", loc=loc)
    known = {"flush", "nodes", "tags", "exclude_tags", "min_length", "exclude_whitespace", "pattern", "in_state"}
    if unknown := sorted(set(tokens) - known):
        raise Invalid(f"tokens has no field {unknown[0]!r}.", loc=(*loc, unknown[0]))
    count, seconds = parse_flush(tokens.get("flush", "each"), loc)
    min_length = tokens.get("min_length", 0)
    if not is_whole(min_length, 0, 1_000_000):
        raise Invalid("min_length is a number from 0 to 1000000.", loc=(*loc, "min_length"))
    for switch in ("exclude_whitespace", "in_state"):
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


def parse_pattern(text: Any, loc: Sequence[str]) -> Any:
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_PATTERN_LENGTH:
        raise Invalid(f"pattern is a regular expression of at most {MAX_PATTERN_LENGTH} characters.", loc=loc)
    try:
        return regex.compile(text)
    except regex.error:
        raise Invalid("pattern is not a regular expression.", loc=loc) from None


@dataclass(slots=True)
class _Batch:
    """Neighbouring tokens of one message, not yet sent."""

    key: tuple[Any, ...]
    frame: dict[str, Any]
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

    def event(self) -> Event:
        """One event for all of them, with the seq of the last."""
        if len(self.texts) == 1:
            return self.last
        data = {**self.frame["data"], "content": "".join(self.texts)}
        if any(self.reasonings):
            data["reasoning"] = "".join(self.reasonings)
        frame = {**self.frame, "data": data}
        frame.pop("seq", None)
        text = orjson.dumps(frame)
        return Event(self.last.seq, with_seq(escaped(text), self.last.seq))


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
        self.due_at: float | None = None

    def select(self, events: Sequence[Event], *, now: float, is_behind: bool = False) -> Sequence[Event]:
        """What to send now. `is_behind`: the reader lags, so all neighbouring tokens are joined, whatever it asked."""
        policy = self._policy
        if not (policy.filters or policy.joins or is_behind or self._batch):
            return events
        shown = list(self._select(events, now, MAX_FLUSH_COUNT if is_behind else policy.count))
        if self._batch is not None and (self._batch.is_full(policy.count) or self._is_due(now)):
            shown.extend(self.flush())
        return shown

    def flush(self) -> Sequence[Event]:
        """What is held back, at once."""
        batch, self._batch, self.due_at = self._batch, None, None
        return [] if batch is None else [batch.event()]

    def _is_due(self, now: float) -> bool:
        return self.due_at is not None and self.due_at <= now

    def _select(self, events: Sequence[Event], now: float, count: int) -> Iterator[Event]:
        for event in events:
            if event.kind != "token":
                yield from self.flush()
                yield event
                continue
            frame = orjson.loads(event.text)
            if not self._policy.keeps(frame):
                yield from self._leave_out(frame)
            elif "content" not in frame["data"]:
                # truncated (wire contract, section 2): it says where its text is, and there is nothing to join
                yield from self.flush()
                yield event
            else:
                yield from self._add(event, frame, now, count)

    def _leave_out(self, frame: Mapping[str, Any]) -> Sequence[Event]:
        """Of a frame that is filtered: the end of a message is the end of what was held back of it, all the same."""
        is_end = self._batch is not None and self._batch.key == key_of(frame) and frame["data"].get("last")
        return self.flush() if is_end else ()

    def _add(self, event: Event, frame: dict[str, Any], now: float, count: int) -> Iterator[Event]:
        key, data = key_of(frame), frame["data"]
        if self._batch is not None and self._batch.key != key:
            yield from self.flush()
        if self._batch is None:
            self._batch = _Batch(key, frame, event)
            self.due_at = None if self._policy.seconds is None else now + self._policy.seconds
        self._batch.add(event, data)
        if data.get("last") or self._batch.is_full(count):
            yield from self.flush()


def key_of(frame: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tokens have in common that may be joined: the message, and its block."""
    data = frame["data"]
    return tuple(frame.get("ns", ())), frame["node"], data["id"], data.get("index")
