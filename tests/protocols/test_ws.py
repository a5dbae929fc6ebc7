"""Golden files: events in, messages out. And what of a client's messages is understood."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from app.errors import BodyTooLarge, EventIdAhead, Invalid, ThreadBusy
from app.protocols.event_id import MAX_SEQ
from app.protocols.ws import (
    TOPICS,
    Authenticate,
    CancelRun,
    ClientMessage,
    Ping,
    StartRun,
    Subscribe,
    Unsubscribe,
    encode,
    encode_ack,
    encode_error,
    open_envelope,
    parse_message,
    topic_of,
)
from app.runs.event import TERMINAL, Event, EventKind

GOLDEN = Path(__file__).parent.parent / "golden"
RUN_ID = "0197e0b6-1111-7222-8333-444455556666"
MAX_BYTES = 1000


def golden_events() -> list[Event]:
    texts = json.loads((GOLDEN / "ws-events.json").read_text())
    return [Event(json.loads(text)["seq"], text.encode()) for text in texts]


def parse(message: Any) -> ClientMessage:
    return parse_message(open_envelope(json.dumps(message), max_bytes=MAX_BYTES))


def refusal(text: str | None) -> Invalid:
    with pytest.raises(Invalid) as refused:
        parse_message(open_envelope(text, max_bytes=MAX_BYTES))
    return refused.value


def test_the_messages_of_a_log_are_those_of_the_golden_file() -> None:
    messages = "".join(f"{encode(event, RUN_ID)}\n" for event in golden_events())
    assert messages.encode() == (GOLDEN / "ws-messages.txt").read_bytes()


def test_the_golden_file_has_every_kind_of_event() -> None:
    assert {event.kind for event in golden_events()} == set(get_args(EventKind))


def test_a_frame_is_in_its_message_as_it_is_stored() -> None:
    for event in golden_events():
        message = encode(event, RUN_ID)
        assert message.endswith(f',"payload":{event.text.decode()}}}')
        assert json.loads(message)["payload"] == json.loads(event.text)


def test_ends_starts_restarts_and_discards_are_what_a_client_hears_of_a_runs_status() -> None:
    about = {event.kind for event in golden_events() if topic_of(event) == "status"}
    assert about == TERMINAL | {"start", "restart", "discard"}


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        (
            {"type": "subscribe_execution", "payload": {"executionId": "r"}},
            Subscribe(run_id="r", topics=TOPICS, after=0),
        ),
        (
            {"type": "subscribe_execution", "payload": {"executionId": "r", "events": None, "after": None}},
            Subscribe(run_id="r", topics=TOPICS, after=0),
        ),
        (
            {
                "type": "subscribe_execution",
                "payload": {"executionId": "r", "events": ["token", "status", "token"], "after": MAX_SEQ},
            },
            Subscribe(run_id="r", topics=frozenset({"token", "status"}), after=MAX_SEQ),
        ),
        (
            {"type": "subscribe_execution", "payload": {"executionId": "r", "events": []}},
            Subscribe(run_id="r", topics=frozenset(), after=0),
        ),
        ({"type": "unsubscribe_execution", "payload": {"executionId": "r"}}, Unsubscribe(run_id="r")),
        ({"type": "unsubscribe_execution", "payload": {"executionId": "R"}}, Unsubscribe(run_id="r")),
        ({"type": "start_run", "payload": {"nope": 1}}, StartRun(body={"nope": 1})),
        ({"type": "start_run"}, StartRun(body={})),
        ({"type": "cancel_run", "payload": {"executionId": "r"}}, CancelRun(run_id="r")),
        (
            {"type": "cancel_run", "payload": {"executionId": "r", "keep_partial": True}},
            CancelRun(run_id="r", keep_partial=True),
        ),
        ({"type": "authenticate", "payload": {"token": "t"}}, Authenticate(token="t")),
        ({"type": "ping"}, Ping()),
        ({"type": "ping", "payload": None, "id": 7}, Ping()),
    ],
)
def test_a_message_is_understood(message: Any, understood: ClientMessage) -> None:
    assert parse(message) == understood


@pytest.mark.parametrize(
    ("text", "loc"),
    [
        (None, []),
        ("", []),
        ("{", []),
        ("NaN", []),
        ('{"type":"ping"}x', []),
        ('{"type":"\\ud800"}', []),
        ("[" * 900, []),
        ("[]", []),
        ('"ping"', []),
        ("null", []),
        ("{}", ["type"]),
        ('{"type":1}', ["type"]),
        ('{"type":"Ping"}', ["type"]),
        ('{"type":"token"}', ["type"]),
        ('{"type":"ping","payload":[]}', ["payload"]),
        ('{"type":"ping","payload":"x"}', ["payload"]),
        ('{"type":"start_run","payload":[]}', ["payload"]),
        ('{"type":"cancel_run","payload":{"executionId":"r","wait":true}}', ["payload", "wait"]),
        ('{"type":"cancel_run","payload":{"executionId":"r","keep_partial":1}}', ["payload", "keep_partial"]),
        ('{"type":"unsubscribe_execution","payload":{"executionid":"r"}}', ["payload", "executionid"]),
        ('{"type":"authenticate","payload":{}}', ["payload", "token"]),
        ('{"type":"authenticate","payload":{"token":1}}', ["payload", "token"]),
    ],
)
def test_what_is_not_understood_is_refused_with_the_place_of_the_mistake(text: str | None, loc: list[str]) -> None:
    assert refusal(text).fields["errors"][0]["loc"] == loc


@pytest.mark.parametrize("kind", ["subscribe_execution", "unsubscribe_execution", "cancel_run"])
@pytest.mark.parametrize("run_id", [None, 1, "", [], "a/b", "x" * 256])
def test_a_message_about_a_run_names_it(kind: str, run_id: Any) -> None:
    text = json.dumps({"type": kind, "payload": {"executionId": run_id}})
    assert refusal(text).fields["errors"][0]["loc"] == ["payload", "executionId"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("events", "token"),
        ("events", ["tokens"]),
        ("events", [["token"]]),
        ("events", {"token": True}),
        ("after", -1),
        ("after", 1.0),
        ("after", True),
        ("after", "1"),
        ("after", MAX_SEQ + 1),
        ("event", ["token"]),
    ],
)
def test_a_subscription_that_is_wrong_is_refused(field: str, value: Any) -> None:
    text = json.dumps({"type": "subscribe_execution", "payload": {"executionId": "r", field: value}})
    assert refusal(text).fields["errors"][0]["loc"] == ["payload", field]


def test_a_message_may_have_so_many_bytes_and_no_more() -> None:
    head, tail = '{"type":"start_run","payload":{"message":"', '"}}'
    room = MAX_BYTES - len(head) - len(tail)
    open_envelope(head + "ü" * (room // 2) + tail, max_bytes=MAX_BYTES)
    for text in ("x" * (room + 1), "ü" * (room // 2 + 1)):
        with pytest.raises(BodyTooLarge):
            open_envelope(head + text + tail, max_bytes=MAX_BYTES)


def test_the_answer_to_a_message_can_name_the_run_and_the_thread_it_was_about() -> None:
    about_run = open_envelope(
        '{"type":"cancel_run","payload":{"executionId":"r","thread_id":"t"}}', max_bytes=MAX_BYTES
    )
    assert (about_run.run_id, about_run.thread_id) == ("r", None)
    start = open_envelope('{"type":"start_run","payload":{"run_id":"r","thread_id":"t"}}', max_bytes=MAX_BYTES)
    assert (start.run_id, start.thread_id) == ("r", "t")
    odd = open_envelope('{"type":"start_run","payload":{"run_id":7,"executionId":"r"}}', max_bytes=MAX_BYTES)
    assert (odd.run_id, odd.thread_id) == (None, None)


def test_an_ack_names_the_run_and_its_thread() -> None:
    assert json.loads(encode_ack(run_id="r", thread_id="t")) == {
        "type": "ack",
        "executionId": "r",
        "payload": {"executionId": "r", "threadId": "t"},
    }
    assert json.loads(encode_ack()) == {"type": "ack", "payload": {}}


def test_an_error_carries_the_fields_of_its_problem_and_the_ids_that_are_known() -> None:
    assert json.loads(encode_error(EventIdAhead(9, 3), run_id="r")) == {
        "type": "error",
        "executionId": "r",
        "payload": {
            "code": "event_id_ahead",
            "detail": "The log ends at 3, before 9.",
            "last_seq": 3,
            "executionId": "r",
        },
    }
    assert json.loads(encode_error(ThreadBusy("t", "other"), thread_id="t")) == {
        "type": "error",
        "payload": {
            "code": "thread_busy",
            "detail": "Thread 't' is busy with another run.",
            "run_id": "other",
            "threadId": "t",
        },
    }
