"""What JSON text says before it is complete, beside tokens and pieces of tool calls (wire contract, section 4)."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from app.protocols.partial_text import MAX_CHARACTERS, MAX_CHARACTERS_IN_ALL, Key, PartialTexts
from app.protocols.tokens import parse_policy
from app.protocols.view import Reading, View
from app.runs.event import Event
from tests.protocols.test_tokens import OTHER, Frame, frames, log_of, token

ASKED = {"parsed": True}


def delta(args: str, call: str = "c1", *, message: str = "a", node: str = "n") -> Frame:
    data = {"id": call, "name": "add", "args": args, "message_id": message}
    return {"event": "tool_call_delta", "node": node, "data": data}


def called(args: Any, call: str = "c1", *, message: str = "a") -> Frame:
    return {"event": "tool_call", "node": "n", "data": {"id": call, "name": "add", "args": args, "message_id": message}}


def read(log: Sequence[Event], tokens: dict[str, Any], *, after: int = 0, page: int = 1_000) -> list[Event]:
    """What a reader gets that begins after a cursor, and reads so many events at a time."""
    reading, shown = Reading(View(tokens=parse_policy(tokens))), list[Event]()
    for at in range(0, after, page):
        reading.recall(log[at : min(at + page, after)])
    for at in range(after, len(log), page):
        shown += reading.select(log[at : at + page], now=0.0, is_behind=False)
    return shown


def parsed(log: Sequence[Event], tokens: dict[str, Any] = ASKED) -> list[Any]:
    return [frame["data"].get("parsed") for frame in frames(read(log, tokens)) if "data" in frame and frame != OTHER]


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_each_piece_of_a_tool_call_says_what_the_arguments_are_so_far() -> None:
    log = log_of([delta(""), delta('{"city": "Par'), delta('is", "days'), delta('": 3'), delta("}")])
    assert parsed(log) == [
        None,
        {"city": "Par"},
        {"city": "Paris"},
        {"city": "Paris", "days": 3},
        {"city": "Paris", "days": 3},
    ]
    assert [frame["data"]["args"] for frame in frames(read(log, ASKED))] == [
        frame["data"]["args"] for frame in frames(log)
    ]


def test_so_does_text_that_is_json_and_prose_says_nothing() -> None:
    log = log_of(
        [token(content=c) for c in ("\n ", '[{"a"', ": 1", "}]")] + [token("b", "Well, "), token("b", '{"a":')]
    )
    assert parsed(log) == [None, [{}], [{"a": 1}], [{"a": 1}], None, None]


def test_who_does_not_ask_gets_the_logs_own_bytes() -> None:
    log = log_of([delta('{"a": 1'), token(content='{"a": 1')])
    assert read(log, {}) == log


def test_calls_blocks_messages_and_nodes_are_told_apart() -> None:
    log = log_of(
        [
            delta('{"a":', "c1"),
            delta('{"b":', "c2"),
            token(content="[1", index=0),
            token(content="[2", index=1),
            token(content="[3", node="m"),
            delta('{"c":', "c1", message="b"),
            delta(" 1", "c1"),
            delta(" 2", "c2"),
            token(content=", 4", index=0),
            delta(" 3", "c1", message="b"),
        ]
    )
    assert parsed(log)[-4:] == [{"a": 1}, {"b": 2}, [1, 4], {"c": 3}]


def test_a_call_that_is_complete_and_a_message_that_is_void_or_over_begin_anew() -> None:
    log = log_of(
        [
            delta('{"a": 1}'),
            called({"a": 1}),
            delta("{", message="a"),
            token(content="[1", last=True),
            token(content="[2"),
            {"event": "discard", "node": "n", "discard": ["a"], "reason": "retry"},
            token(content="[3"),
            delta('{"b": 1'),
        ]
    )
    assert [p for p in parsed(log) if p is not None] == [{"a": 1}, {}, [1], [2], [3], {"b": 1}]


def test_a_frame_that_joins_tokens_says_what_the_last_of_them_does_and_filters_hide_no_text_from_it() -> None:
    log = log_of([token(content=c) for c in ("[1,", " ", "2", ", 3", "]")])
    asked = {**ASKED, "flush": {"count": 2}, "exclude_whitespace": True}
    shown = frames(read(log, asked))
    assert [(frame["data"]["content"], frame["data"]["parsed"]) for frame in shown] == [
        ("[1,2", [1, 2]),
        (", 3]", [1, 2, 3]),
    ]


def test_what_is_no_json_is_left_alone() -> None:
    assert parsed(log_of([delta("{oops"), delta(" NaN}"), delta("", "c2"), delta("}", "c3")])) == [None] * 4


def test_a_number_that_json_libraries_do_not_know_is_sent_all_the_same() -> None:
    (event,) = read(log_of([delta('{"n": 123456789012345678901234567890, "s": "\u2028"')]), ASKED)
    assert not {"\u2028"} & set(event.text.decode())
    assert json.loads(event.text)["data"]["parsed"] == {"n": 123456789012345678901234567890, "s": "\u2028"}
    assert event.kind == "tool_call_delta"


def test_a_piece_that_was_too_large_to_send_ends_it_for_that_call() -> None:
    truncated: Frame = {**delta("x"), "data": {"id": "c1", "name": "add", "message_id": "a"}, "truncated": True}
    assert parsed(log_of([delta('{"a": "'), truncated, delta('b"}')])) == [{"a": ""}, None, None]


def test_a_long_text_is_sent_some_tens_of_times_and_not_once_a_token() -> None:
    text = orjson.dumps({"text": "word " * 10_000}).decode()
    log = log_of([delta(piece) for piece in pieces(text, 4)])
    shown = read(log, ASKED)
    assert sum(len(event.text) for event in shown) < 100 * len(text) + sum(len(event.text) for event in log)
    assert sum(value is not None for value in parsed(log)) < 1_000


def test_what_is_kept_of_texts_never_exceeds_its_bounds() -> None:
    texts = PartialTexts()
    for call in range(20):
        for _ in range(3 * MAX_CHARACTERS // 1_000):
            texts.add(Key("a", call, is_call=True), '"' + "x" * 999 if call else "{" + " " * 999)
            assert texts.characters <= MAX_CHARACTERS_IN_ALL
    for call in range(20):
        texts.forget(Key("a", call, is_call=True))
    assert texts.characters == 0


# -- random values, in random pieces ----------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=4)


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Calls and structured texts that are written at the same time, and other events between."""
    writers = []
    for number in range(draw(st.integers(1, 3))):
        text = orjson.dumps(draw(ARGUMENTS)).decode()
        cut = pieces(text, draw(st.integers(1, 9)))
        if draw(st.booleans()):
            writers.append([delta(piece, f"c{number}") for piece in cut] + [called({}, f"c{number}")])
        else:
            whole = [token(f"m{number}", piece) for piece in cut]
            writers.append([*whole, token(f"m{number}", "", last=True)])
    found = []
    while writers := [left for left in writers if left]:
        found.append(draw(st.sampled_from(writers)).pop(0))
        if draw(st.integers(0, 5)) == 0:
            found.append(OTHER)
    return log_of(found)


@settings(deadline=None)
@given(logs())
def test_what_is_shown_is_what_the_text_of_the_log_says_up_to_that_frame(log: list[Event]) -> None:
    texts: dict[Any, str] = {}
    for frame in frames(read(log, ASKED)):
        if frame["event"] not in ("token", "tool_call_delta"):
            continue
        data = frame["data"]
        key = (frame["event"], data["id"])
        texts[key] = texts.get(key, "") + data.get("content", "") + data.get("args", "")
        if "parsed" in data:
            assert data["parsed"] == from_json(texts[key], allow_partial="trailing-strings")


@settings(deadline=None)
@given(log=logs(), flush=st.sampled_from(["each", {"count": 2}, {"count": 5}]), page=st.integers(1, 7), data=st.data())
def test_a_stream_resumed_after_any_frame_is_the_rest_of_the_uncut_one(
    log: list[Event], flush: Any, page: int, data: st.DataObject
) -> None:
    asked = {**ASKED, "flush": flush}
    uncut = read(log, asked)
    cut = data.draw(st.integers(0, len(uncut) - 1))
    assert read(log, asked, after=uncut[cut].seq, page=page) == uncut[cut + 1 :]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_the_last_of_a_structured_text_has_all_of_it(size: int) -> None:
    value = {"rows": [{"n": n, "text": "é" * n} for n in range(40)]}
    cut = pieces(orjson.dumps(value).decode(), size)
    log = log_of([*(token(content=piece) for piece in cut), token(content="", last=True)])
    assert parsed(log)[-1] == value
