from graphs.chat import graph
from tests.graphs.session import Session, nodes, streamed


def test_a_conversation_streams_its_answer_and_remembers_the_turns() -> None:
    session = Session(graph)

    first = session.say("Where is Oslo?")
    session.say("And Rome?")

    messages = session.values()["messages"]
    assert nodes(first) == ["chat"]
    assert streamed(first) == {messages[1].id: messages[1].text}
    assert "Where is Oslo?" in messages[1].text
    assert [message.type for message in messages] == ["human", "ai", "human", "ai"]
    assert "number 2" in session.last_text()
