"""A benchmark is worth what its look at the answer is: each thing that can be wrong with a stream is found."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from benchmarks.client import Answer
from benchmarks.frames import check, delays, frames_of

Frame = dict[str, Any]
START: Frame = {"event": "start"}
COMPLETE: Frame = {"event": "complete"}


def token(content: str) -> Frame:
    return {"event": "token", "data": {"content": content}}


WHOLE: list[Frame] = [START, token("w0 "), token("w1 "), {"event": "node"}, COMPLETE]


def numbered(frames: Sequence[Frame]) -> list[Frame]:
    return [{**frame, "seq": seq} for seq, frame in enumerate(frames, 1)]


def answer(frames: Sequence[Frame], *, cut_bytes: int = 0) -> Answer:
    """The frames as a server sends them, a chunk each; `cut_bytes` are missing at the end."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for frame in frames:
        data = b"data: %b\n\n" % orjson.dumps(frame)
        raw += b"%x\r\n%b\r\n" % (len(data), data)
    raw += b"0\r\n\r\n"
    made = Answer(0.0)
    for start in range(0, len(raw) - cut_bytes, 50):
        made.take(raw[: len(raw) - cut_bytes][start : start + 50])
    return made


def without(frames: Sequence[Frame], index: int) -> list[Frame]:
    return [frame for number, frame in enumerate(frames) if number != index]


def test_a_whole_stream_is_taken() -> None:
    whole = answer(numbered(WHOLE))

    assert whole.is_whole
    assert check(whole, 2) == numbered(WHOLE)


def test_tokens_may_be_joined() -> None:
    joined = [{**START, "seq": 1}, {**token("w0 w1 "), "seq": 3}, {"event": "node", "seq": 4}, {**COMPLETE, "seq": 5}]

    assert len(check(answer(joined), 2)) == 4


def test_the_bare_loops_frames_have_no_seq() -> None:
    assert check(answer([{"event": "token", "content": "w0 "}, COMPLETE]), 1)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(without(numbered(WHOLE), 3), id="an event is missing"),
        pytest.param(numbered(without(WHOLE, 1)), id="a word is missing"),
        pytest.param(numbered([*WHOLE[:2], token("w0 "), *WHOLE[2:]]), id="a word comes twice"),
        pytest.param(numbered([START, token("w1 "), token("w0 "), COMPLETE]), id="words change places"),
        pytest.param([*numbered(WHOLE)[:2], *numbered(WHOLE)[1:]], id="an event comes twice"),
        pytest.param(numbered(WHOLE[:-1]), id="no end"),
        pytest.param(numbered([*WHOLE, COMPLETE]), id="two ends"),
        pytest.param(numbered([]), id="nothing"),
    ],
)
def test_a_stream_that_is_not_whole_is_refused(frames: Sequence[Frame]) -> None:
    with pytest.raises(AssertionError):
        check(answer(frames), 2)


def test_a_stream_that_was_cut_is_not_whole() -> None:
    assert not answer(numbered(WHOLE), cut_bytes=1).is_whole


def test_a_torn_frame_is_none_yet() -> None:
    torn = answer(numbered([*WHOLE, token("x" * 200)]), cut_bytes=50)

    assert frames_of(torn) == numbered(WHOLE)


def test_a_refusal_is_told() -> None:
    with pytest.raises(AssertionError, match="429"):
        Answer(0.0).take(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")


def test_the_delay_of_each_word_counts_from_when_it_was_said_and_from_when_it_was_due() -> None:
    heard = answer(numbered([token("w0@1000000/2000000 "), token("w1@1500000/2500000 "), COMPLETE]))
    heard.arrived_at = [3.0] * len(heard.arrived_at)

    assert [(delay.due, delay.said) for delay in delays(heard)] == [(2.0, 1.0), (1.5, 0.5)]


def test_frames_that_have_their_names_outside_are_read_as_if_they_were_ours() -> None:
    token, update = b'event: messages\r\ndata: [{"content":"w0 "},{}]\r\nid: 1', b"event: updates\r\ndata: {}"
    blocks = b"\r\n\r\n".join([token, b": ping", update, b""])
    made = Answer(0.0)
    made.take(b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(blocks), blocks))

    assert [frame["event"] for frame in check(made, 1)] == ["token", "updates", "complete"]
