from langchain_core.messages import ToolMessage

from graphs.tools import graph
from tests.graphs.session import Session, nodes

QUESTION = 'What is (2 + 3) * 4, and how many words has "to be or not to be"?'


def tool_results(session: Session) -> list[tuple[str | None, str, str]]:
    messages = session.values()["messages"]
    return [(each.name, each.text, each.status) for each in messages if isinstance(each, ToolMessage)]


def test_the_agent_calls_both_tools_and_answers_from_their_results() -> None:
    session = Session(graph)

    session.say(QUESTION)

    assert tool_results(session) == [("calculator", "20", "success"), ("count_words", "6", "success")]
    answer = session.values()["messages"][-2].text
    assert "20" in answer
    assert "6" in answer
    assert session.last_text() == "Tools used so far: calculator, count_words."


def test_the_agents_steps_are_those_of_a_subgraph() -> None:
    parts = Session(graph).say(QUESTION, subgraphs=True)

    inside = [part for part in parts if part["ns"]]
    assert nodes(inside) == ["model", "tools", "model"]
    assert {part["ns"][0].partition(":")[0] for part in inside} == {"agent"}
    assert nodes([part for part in parts if not part["ns"]]) == ["agent", "summary"]


def test_a_tool_that_cannot_answer_says_why_and_the_agent_goes_on() -> None:
    session = Session(graph)

    session.say("What is 1 / 0?")

    assert tool_results(session) == [("calculator", "division by zero.", "error")]
    assert "could not help" in session.values()["messages"][-2].text


def test_a_question_without_a_task_uses_no_tool() -> None:
    session = Session(graph)

    session.say("Good morning")

    assert tool_results(session) == []
    assert "Good morning" in session.values()["messages"][-2].text
