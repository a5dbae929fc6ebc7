import json
from typing import Any

import pytest

from graphs.approval import graph
from tests.graphs.session import Session, nodes, speakers, streamed

REVIEWS = ["Can we afford this?", "Is this allowed?"]


def paused() -> Session:
    session = Session(graph)
    session.say("Send the newsletter.")
    return session


def test_it_says_its_plan_and_then_asks() -> None:
    session = Session(graph)

    parts = session.say("Send the newsletter.")

    assert nodes(parts) == ["plan"]
    assert set(speakers(parts)) == {"plan"}
    assert list(streamed(parts).values()) == [session.values()["plan"]]
    assert [interrupt.value for interrupt in session.interrupts()] == [
        {"question": "Shall I go ahead?", "action": "Send the newsletter."}
    ]


def test_approved_it_asks_two_reviewers_at_once_and_then_reports() -> None:
    session = paused()

    session.answer(True)
    assert session.questions() == REVIEWS

    parts = session.answer("yes", "ok")
    assert nodes(parts)[-1] == "report"
    assert session.next() == ()
    assert session.last_text() == "Approved by everybody, and done: Send the newsletter."


def test_the_reviewers_may_answer_one_by_one() -> None:
    session = paused()
    session.answer(True)

    session.answer("yes")
    assert len(session.interrupts()) == 1

    session.answer("yes")
    assert session.last_text().startswith("Approved by everybody")


def test_one_refusing_reviewer_stops_it_and_is_named() -> None:
    session = paused()
    session.answer(True)
    answers = {"Can we afford this?": "yes", "Is this allowed?": "too risky"}

    session.answer(*(answers[interrupt.value["question"]] for interrupt in session.interrupts()))

    assert session.last_text() == 'Stopped: legal said "too risky". Nothing was done.'


@pytest.mark.parametrize(
    "answer",
    [True, 1, "yes", "Yes, please!", "OK.", {"approved": True}, {"decision": "approve", "by": "Ada"}, [True, "yes"]],
    ids=json.dumps,
)
def test_a_clear_yes_of_any_json_type_goes_on(answer: Any) -> None:
    session = paused()

    session.answer(answer)

    assert session.questions() == REVIEWS
    assert session.values()["approval"] == answer


@pytest.mark.parametrize(
    "answer",
    [False, None, 0, 2.5, "", "no, thanks", "not yet", {}, {"approved": False}, {"x": True}, [], [True, False]],
    ids=json.dumps,
)
def test_anything_else_of_any_json_type_ends_it_politely(answer: Any) -> None:
    session = paused()

    parts = session.answer(answer)

    assert nodes(parts) == ["approve", "decline"]
    assert session.next() == ()
    assert json.dumps(answer) in session.last_text()
    assert session.values()["approval"] == answer


def test_the_same_thread_can_ask_again() -> None:
    session = paused()
    session.answer("no")

    session.say("Order flowers.")

    assert [interrupt.value["action"] for interrupt in session.interrupts()] == ["Order flowers."]
