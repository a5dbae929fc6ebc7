"""Whether what arrived is whole and in order, and what is to be read in it. Done when the clock has stopped."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import orjson

from benchmarks.client import Answer

TOKEN: Final = re.compile(rb'data: (?:\{"event": ?"token"|\[\{"content")[^\n]*\n')
STAMP: Final = re.compile(rb"w\d+@(\d+)/(\d+) ")
JOINED: Final = frozenset({"token"})  # whose frame may stand for several events


def frames_of(answer: Answer) -> list[dict[str, Any]]:
    """The frames of a stream as far as it has come: one that is torn at the end is none yet."""
    *blocks, _ = answer.body.replace(b"\r\n", b"\n").split(b"\n\n")
    named = [event_of(block) for block in blocks]
    frames = [frame_of(name, orjson.loads(data)) for name, data in named if data]
    if any(name for name, _ in named) and answer.is_whole:
        frames.append({"event": "complete"})  # LangGraph's own server says no more than that the response is over
    return frames


def event_of(block: bytes) -> tuple[bytes, bytes]:
    """The name (empty without an `event:` line) and the data of a block of Server-Sent Events."""
    fields = dict.fromkeys((b"event", b"data"), b"")
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        fields[name] = value
    return fields[b"event"], fields[b"data"]


def frame_of(name: bytes, data: Any) -> dict[str, Any]:
    """A frame of ours; those of LangGraph's own server, which have names outside, as if they were."""
    if not name:
        return dict(data)
    if name == b"messages":
        return {"event": "token", "content": data[0]["content"]}
    return {"event": name.decode()}


def require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def check_seqs(frames: Sequence[dict[str, Any]], *, after: int = 0) -> None:
    """Raise when an event is missing, twice or out of order. Frames without a seq (the bare loop's) pass."""
    last = after
    for frame in frames:
        if "seq" not in frame:
            continue
        may_skip = frame["event"] in JOINED
        in_order = frame["seq"] > last if may_skip else frame["seq"] == last + 1
        require(in_order, f"seq {frame['seq']} after {last}")
        last = frame["seq"]


def spoken(frames: Sequence[dict[str, Any]]) -> list[str]:
    """The words of all tokens, in order, without their stamps."""
    content = "".join((frame.get("data") or frame)["content"] for frame in frames if frame["event"] == "token")
    return [word.partition("@")[0] for word in content.split()]


def check_end(frames: Sequence[dict[str, Any]], event: str = "complete") -> None:
    require(bool(frames) and frames[-1]["event"] == event, f"no {event} at the end: {frames[-1:]}")
    require(sum(frame["event"] == event for frame in frames) == 1, f"more than one {event}")


def check(answer: Answer, words: int) -> list[dict[str, Any]]:
    """The frames of a run that said so many words. Raises unless each is there once, in order, and the end."""
    frames = frames_of(answer)
    check_seqs(frames)
    said = spoken(frames)
    require(said == [f"w{index}" for index in range(words)], f"{len(said)} of {words} words, or not in order")
    check_end(frames)
    return frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Delay:
    """Seconds between a word and its arrival: since it was said, and since it was due."""

    said: float
    due: float


def delays(answer: Answer) -> list[Delay]:
    """Of each paced word of an answer."""
    ends = list(accumulate(len(part) for part in answer.parts))
    found = list[Delay]()
    for token in TOKEN.finditer(answer.raw):
        at = answer.arrived_at[bisect_left(ends, token.end())]
        stamps = STAMP.findall(token[0])
        found.extend(Delay(said=at - int(said) / 1e6, due=at - int(due) / 1e6) for due, said in stamps)
    return found
