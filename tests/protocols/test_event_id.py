import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadEventId
from app.protocols.event_id import MAX_SEQ, EventId, parse_event_id, seq_on

RUN_ID = "0197e0b6-1111-7222-8333-444455556666"
OTHER_ID = "0197e0b6-1111-7222-8333-444455557777"
MALFORMED = [
    "",
    " ",
    ".",
    ".5",
    "abc",
    "-1",
    "+1",
    "1e3",
    "0x1",
    "٣",
    "²",
    "1 2",
    f"{RUN_ID}",
    f"{RUN_ID}.",
    f"{RUN_ID}.-1",
    f"{RUN_ID}.x",
    f"{RUN_ID}:5",
    str(MAX_SEQ + 1),
    "9" * 5000,
]


@given(st.uuids(), st.integers(0, MAX_SEQ))
def test_an_id_is_read_back_as_it_was_written(run_id: object, seq: int) -> None:
    assert parse_event_id(f"{run_id}.{seq}") == EventId(str(run_id), seq)
    assert parse_event_id(str(seq)) == EventId(None, seq)


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(BadEventId):
        parse_event_id(text)
    with pytest.raises(BadEventId):
        seq_on(RUN_ID, text)


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(BadEventId):
        assert 0 <= parse_event_id(text).seq <= MAX_SEQ


def test_a_refusal_does_not_repeat_more_than_a_line_of_what_was_sent() -> None:
    with pytest.raises(BadEventId) as refused:
        parse_event_id("x" * 5000)
    assert len(refused.value.detail) < 200


def test_on_a_runs_own_url_its_id_and_the_bare_seq_mean_the_same() -> None:
    assert seq_on(RUN_ID, f"{RUN_ID}.7") == seq_on(RUN_ID, "7") == 7


def test_the_id_of_another_run_is_refused() -> None:
    with pytest.raises(BadEventId, match="another run"):
        seq_on(RUN_ID, f"{OTHER_ID}.7")


def test_zero_is_the_place_before_the_first_event() -> None:
    assert seq_on(RUN_ID, "0") == 0
