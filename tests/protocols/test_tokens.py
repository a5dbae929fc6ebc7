"""How a reader wants its tokens: joined and filtered, and nothing lost (wire contract, section 4, Tokens)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid
from app.pattern import MAX_PATTERN_LENGTH
from app.protocols.tokens import MAX_BATCH_CHARACTERS, TokenPolicy, TokenView, parse_policy
from app.runs.event import Event, with_seq

Frame = dict[str, Any]
Block = tuple[Any, ...]


def log_of(frames: Sequence[Frame]) -> list[Event]:
    return [Event(seq, with_seq(orjson.dumps(frame), seq)) for seq, frame in enumerate(frames, 1)]


def token(message: str = "a", content: str = "x", *, node: str = "n", **fields: Any) -> Frame:
    """A token frame; `ns` and `tags` stand beside its data, the rest in it."""
    ns, tags = fields.pop("ns", None), fields.pop("tags", None)
    return {
        "event": "token",
        **({} if ns is None else {"ns": ns}),
        "node": node,
        **({} if tags is None else {"tags": tags}),
        "data": {"id": message, "content": content, "role": "assistant", **fields},
    }


OTHER: Frame = {"event": "custom", "node": "n", "data": 1}
END: Frame = {"event": "complete", "status": "success", "usage": None}


def read(
    events: Sequence[Event],
    policy: TokenPolicy,
    *,
    pages: Iterable[int] = (),
    behind: Iterable[bool] = (),
    step: float = 0,
) -> list[Event]:
    """All that a reader gets, who reads pages of these sizes at a time, `step` seconds apart."""
    view, shown, at, now = TokenView(policy), list[Event](), 0, 0.0
    sizes, lags = iter(pages), iter(behind)
    while at < len(events):
        size = next(sizes, len(events))
        shown += view.select(events[at : at + size], now=now, is_behind=next(lags, False))
        at, now = at + size, now + step
    return [*shown, *view.flush()]


def frames(events: Iterable[Event]) -> list[Frame]:
    found = [json.loads(event.text) for event in events]
    assert [frame["seq"] for frame in found] == [event.seq for event in events]
    return found


def block_of(frame: Frame) -> Block:
    data = frame["data"]
    return (*frame.get("ns", ()), frame["node"], data["id"], data.get("index"))


def texts(events: Iterable[Event]) -> Mapping[Block, tuple[str, str, bool]]:
    """Of each block of each message: its text, its reasoning, and whether its end was marked."""
    found: dict[Block, tuple[str, str, bool]] = {}
    for frame in frames(list(events)):
        if frame["event"] == "token":
            text, thought, ended = found.get(block_of(frame), ("", "", False))
            data = frame["data"]
            found[block_of(frame)] = (
                text + data["content"],
                thought + data.get("reasoning", ""),
                ended or data.get("last", False),
            )
    return found


# -- random logs ------------------------------------------------------------------------------------------------------

CONTENTS = st.sampled_from(["", " ", "\n", "a", "Hello", "\u2028", "\u0085", "“ü”", "12"]) | st.text(max_size=4)
TOKENS = st.builds(
    token,
    st.sampled_from(["a", "b", "c"]),
    CONTENTS,
    node=st.sampled_from(["n", "m"]),
) | st.builds(
    lambda frame, extra, place: {
        "event": "token",
        **({"ns": ["child:1"]} if place else {}),
        **{k: v for k, v in frame.items() if k != "event"},
        "data": {**frame["data"], **extra},
    },
    st.builds(token, st.sampled_from(["a", "b"]), CONTENTS, tags=st.lists(st.sampled_from(["x", "y"]), max_size=2)),
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 1),
            "reasoning": st.text(max_size=3),
            "last": st.just(True),
        },
    ),
    st.booleans(),
)
LOGS = st.lists(TOKENS | st.just(OTHER), max_size=40).map(lambda found: log_of([*found, END]))
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "nodes": st.lists(st.sampled_from(["n", "m"]), max_size=2),
        "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
        "exclude_tags": st.lists(st.sampled_from(["x", "y"]), max_size=1),
        "min_length": st.integers(0, 3),
        "exclude_whitespace": st.booleans(),
        "pattern": st.sampled_from(["[a-z]", "^H", r"\d"]),
    },
)
COUNTS = st.just("each") | st.builds(lambda n: {"count": n}, st.integers(1, 5))
FLUSHES = COUNTS | st.builds(lambda n: {"ms": n}, st.integers(1, 3000))
PAGES = st.lists(st.integers(1, 7), max_size=40)
LAGS = st.lists(st.booleans(), max_size=40)


def policy_of(flush: Any, filters: Mapping[str, Any]) -> TokenPolicy:
    return parse_policy({"flush": flush, **filters})


def kept(log: Sequence[Event], filters: Mapping[str, Any]) -> list[Event]:
    """What filters leave of a log, without any joining."""
    return [shown for event in log for shown in read([event], policy_of("each", filters))]


@given(log=LOGS, flush=FLUSHES, filters=FILTERS, pages=PAGES, behind=LAGS)
def test_whatever_is_joined_the_text_of_each_message_is_that_of_the_log_as_filtered(
    log: list[Event], flush: Any, filters: dict[str, Any], pages: list[int], behind: list[bool]
) -> None:
    shown = read(log, policy_of(flush, filters), pages=pages, behind=behind, step=0.5)
    assert texts(shown) == texts(kept(log, filters))


@given(log=LOGS, flush=FLUSHES, filters=FILTERS, pages=PAGES, behind=LAGS)
def test_a_frame_joins_neighbours_of_one_message_and_one_block_and_has_the_seq_of_the_last(
    log: list[Event], flush: Any, filters: dict[str, Any], pages: list[int], behind: list[bool]
) -> None:
    left = kept(log, filters)
    for frame in frames(read(log, policy_of(flush, filters), pages=pages, behind=behind, step=0.5)):
        parts: list[Frame] = []
        while not parts or parts[-1]["seq"] < frame["seq"]:
            parts += frames([left.pop(0)])
        assert parts[-1]["seq"] == frame["seq"]
        if frame["event"] != "token":
            assert parts == [frame]
            continue
        assert {block_of(part) for part in parts} == {block_of(frame)}
        assert "".join(part["data"]["content"] for part in parts) == frame["data"]["content"]
        assert not any(part["data"].get("last") for part in parts[:-1])
        assert parts[-1]["data"].get("last") == frame["data"].get("last")
    assert left == []


@given(log=LOGS, flush=COUNTS, filters=FILTERS, pages=PAGES)
def test_a_stream_resumed_after_any_frame_is_the_rest_of_the_uncut_one_frame_by_frame(
    log: list[Event], flush: Any, filters: dict[str, Any], pages: list[int]
) -> None:
    policy = policy_of(flush, filters)
    uncut = read(log, policy)
    for number, frame in enumerate(uncut, 1):
        assert read(log[frame.seq :], policy, pages=pages) == uncut[number:]


@given(log=LOGS, filters=FILTERS, milliseconds=st.integers(1, 3000), pages=PAGES, other_pages=PAGES, data=st.data())
def test_a_stream_that_is_joined_by_time_and_resumed_after_any_frame_has_the_same_text_as_an_uncut_one(
    log: list[Event],
    filters: dict[str, Any],
    milliseconds: int,
    pages: list[int],
    other_pages: list[int],
    data: st.DataObject,
) -> None:
    policy = policy_of({"ms": milliseconds}, filters)
    uncut = read(log, policy, pages=pages, step=0.5)
    cut = data.draw(st.integers(0, len(uncut) - 1))
    resumed = read(log[uncut[cut].seq :], policy, pages=other_pages, step=1.0)
    assert texts([*uncut[: cut + 1], *resumed]) == texts(uncut)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, MAX_BATCH_CHARACTERS // 3, MAX_BATCH_CHARACTERS]), max_size=30),
    flush=FLUSHES,
    lag=st.booleans(),
)
def test_what_is_held_back_never_exceeds_its_bound(sizes: list[int], flush: Any, lag: bool) -> None:
    view, sent, given_so_far = TokenView(parse_policy({"flush": flush})), 0, 0
    for event, size in zip(log_of([token(content="x" * size) for size in sizes]), sizes, strict=True):
        given_so_far += size
        for shown in frames(view.select([event], now=0.0, is_behind=lag)):
            length = len(shown["data"]["content"])
            assert length < 2 * MAX_BATCH_CHARACTERS
            sent += length
        assert given_so_far - sent < MAX_BATCH_CHARACTERS


# -- one by one -------------------------------------------------------------------------------------------------------


def contents(events: Sequence[Event]) -> list[str]:
    return [frame["data"]["content"] if frame["event"] == "token" else frame["event"] for frame in frames(events)]


def test_a_reader_that_asks_for_nothing_gets_the_logs_own_bytes() -> None:
    log = log_of([token(), token(), OTHER, token(), END])
    assert list(TokenView(TokenPolicy()).select(log, now=0.0)) == log


def test_so_many_tokens_a_frame_and_the_rest_at_the_end_of_the_message() -> None:
    log = log_of([*(token(content=str(n)) for n in range(7)), token(content="", last=True), OTHER])
    shown = read(log, parse_policy({"flush": {"count": 3}}), pages=[1] * 9)
    assert contents(shown) == ["012", "345", "6", "custom"]
    assert frames(shown)[2]["data"]["last"] is True
    assert [event.seq for event in shown] == [3, 6, 8, 9]


def test_a_joined_frame_keeps_what_stands_beside_the_text() -> None:
    log = log_of([token(content=c, ns=["child:1"], tags=["t"], index=2, reasoning=c.upper()) for c in "ab"])
    (frame,) = frames(read(log, parse_policy({"flush": {"count": 2}})))
    data = {"id": "a", "content": "ab", "role": "assistant", "index": 2, "reasoning": "AB"}
    assert frame == {"event": "token", "ns": ["child:1"], "node": "n", "tags": ["t"], "data": data, "seq": 2}


@pytest.mark.parametrize(
    "other",
    [token("b"), token(node="m"), token(index=1), token(ns=["child:1"])],
    ids=["message", "node", "block", "subgraph"],
)
def test_nothing_is_joined_across_a_message_a_node_a_block_or_a_subgraph(other: Frame) -> None:
    log = log_of([token(), token(), other, other, token()])
    shown = read(log, parse_policy({"flush": {"count": 10}}))
    assert [(event.seq, frame["data"]["content"]) for event, frame in zip(shown, frames(shown), strict=True)] == [
        (2, "xx"),
        (4, "xx"),
        (5, "x"),
    ]


def test_a_joined_frame_holds_no_character_at_which_a_client_may_split_lines() -> None:
    (event,) = read(log_of([token(content=c) for c in "\u2028\u2029\u0085“"]), parse_policy({"flush": {"count": 4}}))
    assert not {"\u2028", "\u2029", "\u0085"} & set(event.text.decode())
    assert frames([event])[0]["data"]["content"] == "\u2028\u2029\u0085“"


def test_tokens_are_held_for_the_time_asked_from_the_first_one_on_and_then_sent_at_once() -> None:
    view = TokenView(parse_policy({"flush": {"ms": 100}}))
    first, second, third, fourth = log_of([token(content=c) for c in "abcd"])
    assert not view.select([first], now=5.0)
    assert view.due_at == pytest.approx(5.1)
    assert not view.select([second], now=5.05)
    assert view.due_at == pytest.approx(5.1)
    assert contents(view.select([third], now=5.2)) == ["abc"]
    assert view.due_at is None
    assert not view.select([fourth], now=5.2)
    assert contents(view.flush()) == ["d"]


def test_the_end_of_a_message_and_any_other_event_send_what_is_held_at_once() -> None:
    view = TokenView(parse_policy({"flush": {"ms": 60_000}}))
    a, b, end, c, other = log_of([token(), token(), token(content="!", last=True), token("b"), OTHER])
    assert not view.select([a, b], now=0.0)
    assert contents(view.select([end], now=0.0)) == ["xx!"]
    assert not view.select([c], now=0.0)
    assert contents(view.select([other], now=0.0)) == ["x", "custom"]


def test_the_end_of_a_message_sends_what_is_held_even_when_the_end_itself_is_filtered() -> None:
    view = TokenView(parse_policy({"flush": {"ms": 60_000}, "min_length": 1}))
    assert contents(view.select(log_of([token(), token(content="", last=True)]), now=0.0)) == ["x"]


def test_a_reader_far_behind_gets_its_backlog_joined_and_single_tokens_again_when_it_has_caught_up() -> None:
    view = TokenView(TokenPolicy())
    log = log_of([token(content=str(n)) for n in range(9)])
    assert contents(view.select(log[:4], now=0.0, is_behind=True)) == ["0123"]
    assert contents(view.select(log[4:6], now=0.0)) == ["4", "5"]
    counting = TokenView(parse_policy({"flush": {"count": 3}}))
    assert contents(counting.select(log[:4], now=0.0, is_behind=True)) == ["0123"]
    assert contents(counting.select(log[4:8], now=0.0)) == ["456"]


def test_a_token_that_was_too_large_to_send_passes_by_itself_and_is_filtered_by_where_it_is_from() -> None:
    truncated = {**token(), "data": {"id": "a", "role": "assistant", "last": True}, "truncated": True}
    log = log_of([token(), truncated, token("b")])
    assert [event.seq for event in read(log, parse_policy({"flush": {"count": 5}, "min_length": 1}))] == [1, 2, 3]
    assert [event.seq for event in read(log, parse_policy({"nodes": ["m"]}))] == []


@pytest.mark.parametrize("beside", [{"block": {"type": "image", "url": "u"}}, {"annotations": [{"url": "u"}]}])
def test_a_block_that_is_no_text_and_a_citation_are_never_joined(beside: Frame) -> None:
    log = log_of([token(), token(), token(content="", **beside), token(content="", **beside), token(), token()])
    shown = read(log, parse_policy({"flush": {"count": 10}}))
    assert [event.seq for event in shown] == [2, 3, 4, 6]
    assert list(shown[1:3]) == log[2:4]


@pytest.mark.parametrize(
    ("tokens", "passing"),
    [
        ({"nodes": ["m"]}, ["m"]),
        ({"nodes": []}, []),
        ({"tags": ["x"]}, ["x"]),
        ({"exclude_tags": ["x"]}, ["n", "m", " ", "long 1"]),
        ({"min_length": 2}, ["long 1"]),
        ({"exclude_whitespace": True}, ["n", "m", "x", "long 1"]),
        ({"pattern": r"\d$"}, ["long 1"]),
        ({"tags": ["x"], "nodes": ["m"]}, []),
    ],
)
def test_a_filter_leaves_out_whole_token_frames_and_no_others(tokens: dict[str, Any], passing: list[str]) -> None:
    log = log_of(
        [
            token(content="n"),
            token(content="m", node="m"),
            token(content="x", tags=["x", "z"]),
            OTHER,
            token(content=" "),
            token(content="long 1"),
        ]
    )
    assert [c for c in contents(read(log, parse_policy(tokens))) if c != "custom"] == passing
    assert "custom" in contents(read(log, parse_policy(tokens)))


def test_a_pattern_finds_what_is_there_however_often_it_could_go_back() -> None:
    log = log_of([token(content="a" * 60 + "b"), token(content="aaa"), token(content="a" * 60 + "c")])
    assert contents(read(log, parse_policy({"pattern": "^(a|aa)+$|b"}))) == ["a" * 60 + "b", "aaa"]


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ([], "tokens"),
        ({"flus": "each"}, "flus"),
        ({"flush": "all"}, "flush"),
        ({"flush": {"count": 0}}, "flush"),
        ({"flush": {"count": True}}, "flush"),
        ({"flush": {"count": 10_001}}, "flush"),
        ({"flush": {"count": 1, "ms": 1}}, "flush"),
        ({"flush": {"ms": 0}}, "flush"),
        ({"flush": {"ms": 60_001}}, "flush"),
        ({"flush": {"ms": 1.5}}, "flush"),
        ({"flush": None}, "flush"),
        ({"nodes": "a"}, "nodes"),
        ({"tags": [1]}, "tags"),
        ({"exclude_tags": {}}, "exclude_tags"),
        ({"min_length": -1}, "min_length"),
        ({"min_length": True}, "min_length"),
        ({"exclude_whitespace": 1}, "exclude_whitespace"),
        ({"in_state": "yes"}, "in_state"),
        ({"parsed": 1}, "parsed"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "(?=a)"}, "pattern"),
        ({"pattern": r"(a)\1"}, "pattern"),
        ({"pattern": r"(?:\pL{9}){9}"}, "pattern"),
        ({"pattern": "\ud800"}, "pattern"),
        ({"pattern": 1}, "pattern"),
        ({"pattern": "x" * (MAX_PATTERN_LENGTH + 1)}, "pattern"),
    ],
)
def test_what_is_no_policy_is_refused_and_the_field_is_named(tokens: Any, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_policy(tokens)
    assert refused.value.fields["errors"][0]["loc"][-1] == named


def test_a_policy_that_says_nothing_sends_each_token() -> None:
    assert parse_policy(None) == parse_policy({}) == parse_policy({"flush": "each", "in_state": True}) == TokenPolicy()


# -- what authors say of their nodes ----------------------------------------------------------------------------------


def test_what_a_node_says_is_sent_as_its_author_said_and_other_nodes_as_ever() -> None:
    log = log_of([token(content=c) for c in "abc"] + [token("b", c, node="m") for c in "de"])
    policy = parse_policy(None, defaults={"n": {"flush": {"count": 2}, "exclude_whitespace": True}})
    assert contents(read(log, policy)) == ["ab", "c", "d", "e"]


def test_what_a_client_asks_for_wins_field_by_field() -> None:
    log = log_of([token(content=c) for c in "a b"])
    defaults = {"n": {"flush": {"count": 3}, "exclude_whitespace": True}}
    assert contents(read(log, parse_policy({"flush": "each"}, defaults=defaults))) == ["a", "b"]
    assert contents(read(log, parse_policy({"exclude_whitespace": False}, defaults=defaults))) == ["a b"]
