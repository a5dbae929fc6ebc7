import asyncio

from graphs.essay import make_graph
from tests.graphs.session import CONFIG, Session, nodes, streamed

STEPS = ["planner", "research", "draft", "reflection", "draft", "reflection", "draft"]


def test_an_essay_is_revised_twice_and_no_more() -> None:
    session = Session(make_graph())

    parts = session.say("Write an essay about tea.")

    assert nodes(parts) == STEPS
    assert session.next() == ()


def test_every_step_writes_its_key_and_adds_the_streamed_message() -> None:
    session = Session(make_graph())

    parts = session.say("Write an essay about tea.")

    values = session.values()
    _, *said = values["messages"]
    assert len(said) == len(STEPS)
    assert streamed(parts) == {message.id: message.text for message in said}
    assert said[0].text == values["plan"]
    assert said[1].text.splitlines() == values["queries"]
    assert said[-1].text == values["draft"]
    assert said[-2].text == values["critique"]
    assert len({message.text for message in said}) == len(said)
    assert all("tea" in message.text for message in said)


def test_research_reports_each_query_as_a_custom_event() -> None:
    session = Session(make_graph())

    parts = session.say("Write an essay about tea.")

    reported = [part["data"] for part in parts if part["type"] == "custom"]
    assert reported == [{"searching": query} for query in session.values()["queries"]]
    assert len(reported) == 3


def test_a_plan_edited_at_its_pause_is_the_plan_of_the_draft() -> None:
    session = Session(make_graph())
    pauses = {"interrupt_after": ["planner", "draft"]}
    assert nodes(session.say("tea", **pauses)) == ["planner"]

    asyncio.run(session.graph.aupdate_state(CONFIG, {"plan": "1. Only the kettle"}))
    assert nodes(session.go(None, **pauses)) == ["research", "draft"]

    assert "Only the kettle" in session.values()["draft"]
    assert session.next() == ("reflection",)


def test_a_second_essay_on_the_same_thread_starts_afresh() -> None:
    session = Session(make_graph())
    session.say("Write an essay about tea.")

    parts = session.say("Write an essay about rain.")

    assert nodes(parts) == STEPS
    assert "rain" in session.values()["draft"]
    assert "tea" not in session.values()["draft"]


def test_the_topic_may_be_given_without_messages() -> None:
    session = Session(make_graph())

    assert nodes(session.go({"topic": "rain"})) == STEPS
    assert "rain" in session.values()["draft"]
