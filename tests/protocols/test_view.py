from typing import get_args

import pytest

from app.errors import ModeNotRecorded
from app.protocols.view import View, view_of
from app.runs.event import TERMINAL, Event, EventKind

RECORDED = ("updates", "messages", "custom", "tasks", "values", "checkpoints", "debug", "state")
ALWAYS = {"start", "restart", "discard", "complete", "interrupt", "cancelled", "error"}
KINDS_OF = {
    "updates": {"node"},
    "messages": {"token", "tool_call", "tool_call_delta", "tool_result"},
    "custom": {"custom", "progress"},
    "tasks": {"node_start"},
    "values": {"values"},
    "checkpoints": {"checkpoint"},
    "debug": {"debug"},
    "state": {"state"},
}


def one_of_each(place: str = "") -> list[Event]:
    texts = [f'{{"event":"{kind}"{place},"seq":{seq}}}' for seq, kind in enumerate(get_args(EventKind), 1)]
    return [Event(seq, text.encode()) for seq, text in enumerate(texts, 1)]


def kinds(events: object) -> set[str]:
    assert isinstance(events, list)
    return {event.kind for event in events}


@pytest.mark.parametrize("mode", KINDS_OF)
def test_a_reader_of_one_mode_sees_its_events_and_those_that_are_always_sent(mode: str) -> None:
    view = view_of(RECORDED, modes=[mode], subgraphs=None)
    assert kinds(view.select(one_of_each())) == KINDS_OF[mode] | ALWAYS


def test_every_kind_of_event_is_of_one_mode_or_always_sent() -> None:
    assert set(get_args(EventKind)) == set().union(*KINDS_OF.values()) | ALWAYS
    assert TERMINAL < ALWAYS


def test_a_reader_of_no_mode_sees_what_is_always_sent() -> None:
    assert kinds(view_of(RECORDED, modes=[], subgraphs=None).select(one_of_each())) == ALWAYS


def test_a_reader_who_asks_for_nothing_sees_all_that_was_recorded() -> None:
    events = [*one_of_each(), *one_of_each(',"ns":["child:1"]')]
    assert view_of(("updates",), modes=None, subgraphs=None).select(events) == events
    assert View().select(events) == events


def test_a_reader_may_leave_the_events_of_subgraphs_out() -> None:
    root, nested = one_of_each(), one_of_each(',"ns":["child:1"]')
    view = view_of(RECORDED, modes=None, subgraphs=False)
    assert view.select([*nested, *root, *nested]) == root


def test_an_ns_inside_an_events_data_does_not_make_it_one_of_a_subgraph() -> None:
    event = Event(1, b'{"event":"custom","node":"a","data":{"ns":["child:1"]},"seq":1}')
    assert view_of(RECORDED, modes=None, subgraphs=False).select([event]) == [event]


def test_a_mode_that_was_not_recorded_is_refused_and_named() -> None:
    with pytest.raises(ModeNotRecorded, match="values, tasks") as refused:
        view_of(("updates", "custom"), modes=["updates", "values", "tasks"], subgraphs=None)
    assert refused.value.fields["recorded"] == ["updates", "custom"]
