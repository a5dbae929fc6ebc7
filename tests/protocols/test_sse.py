"""Golden files: events in, bytes out."""

import json
from pathlib import Path

import pytest

from app.protocols.sse import HEARTBEATS, Dialect, dialect_of, encode
from app.runs.event import Event

GOLDEN = Path(__file__).parent.parent / "golden"
RUN_ID = "0197e0b6-1111-7222-8333-444455556666"
DIALECTS: tuple[Dialect, ...] = ("plain", "eventsource")


def golden_events() -> list[Event]:
    texts = json.loads((GOLDEN / "sse-events.json").read_text())
    return [Event(json.loads(text)["seq"], text.encode()) for text in texts]


def parse_as_the_standard_says(stream: bytes) -> tuple[list[str], list[str], list[int]]:
    """WHATWG HTML, 9.2.6, for streams with LF only: the messages, their last event ids, and the retry times."""
    messages, ids, retries = [], [], []
    data: list[str] = []
    last_id = ""
    for line in stream.decode().split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                messages.append("\n".join(data))
                ids.append(last_id)
            data = []
        elif name == "data":
            data.append(value)
        elif name == "id":
            last_id = value
        elif name == "retry":
            retries.append(int(value))
        else:
            assert not name, f"a line that the contract does not have: {line}"
    return messages, ids, retries


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_bytes_of_a_log_are_those_of_the_golden_file(dialect: Dialect) -> None:
    assert encode(golden_events(), RUN_ID, dialect) == (GOLDEN / f"sse-{dialect}.txt").read_bytes()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_frames_are_the_same_bytes_however_the_log_is_cut_into_pages(dialect: Dialect) -> None:
    events = golden_events()
    whole = encode(events, RUN_ID, dialect)
    assert b"".join(encode([event], RUN_ID, dialect) for event in events) == whole
    assert encode(events[:3], RUN_ID, dialect) + encode(events[3:], RUN_ID, dialect) == whole


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_parser_that_follows_the_standard_gets_each_event_as_it_is_stored(dialect: Dialect) -> None:
    events = golden_events()
    messages, ids, retries = parse_as_the_standard_says(encode(events, RUN_ID, dialect))
    assert messages == [event.text.decode() for event in events]
    if dialect == "eventsource":
        assert ids == [f"{RUN_ID}.{event.seq}" for event in events]
        assert retries == [1000]
    else:
        assert set(ids) == {""}
        assert retries == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_heartbeat_in_front_of_or_between_frames_changes_no_message(dialect: Dialect) -> None:
    events = golden_events()
    ping = HEARTBEATS[dialect]
    framed = [encode([event], RUN_ID, dialect) for event in events]
    with_pings = ping + ping.join(framed) + ping + ping
    assert parse_as_the_standard_says(with_pings) == parse_as_the_standard_says(b"".join(framed))


def test_a_heartbeat_is_a_block_in_the_plain_dialect_and_a_bare_line_in_the_full_one() -> None:
    assert HEARTBEATS == {"plain": b": ping\n\n", "eventsource": b": ping\n"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_events_are_no_bytes(dialect: Dialect) -> None:
    assert encode([], RUN_ID, dialect) == b""


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "Text/Event-Stream",
        "application/json, text/event-stream",
        "text/event-stream;q=0.9, */*",
        " text/event-stream ; charset=utf-8",
    ],
)
def test_who_names_event_streams_among_others_or_alone_speaks_the_full_dialect(accept: str) -> None:
    assert dialect_of(accept) == "eventsource"


@pytest.mark.parametrize("accept", ["", "*/*", "text/*", "application/json", "text/event-streams", "text/html,*/*"])
def test_who_does_not_name_event_streams_speaks_the_plain_dialect(accept: str) -> None:
    assert dialect_of(accept) == "plain"


@pytest.mark.parametrize("weight", ["q=0", "Q=0.0", " q=0.000", "charset=utf-8; q=0"])
def test_who_says_that_event_streams_are_not_acceptable_does_not_get_them(weight: str) -> None:
    assert dialect_of(f"*/*, text/event-stream;{weight}") == "plain"


@pytest.mark.parametrize("weight", ["q=0.1", "q=1", "q=0.001"])
def test_a_weight_above_zero_is_no_refusal(weight: str) -> None:
    assert dialect_of(f"*/*, text/event-stream;{weight}") == "eventsource"
