from itertools import pairwise

import pytest

from graphs.ideas import ANGLES, graph
from tests.graphs.session import Session, nodes, speakers, streamed


def test_three_branches_stream_and_one_node_joins_them() -> None:
    session = Session(graph)

    parts = session.say("Ideas for a birthday party")

    *branches, last = nodes(parts)
    assert sorted(branches) == sorted(ANGLES)
    assert last == "choose"
    assert set(speakers(parts)) == {*ANGLES, "choose"}
    _, *said = session.values()["messages"]
    assert streamed(parts) == {message.id: message.text for message in said}


def test_the_join_sees_every_idea_and_they_differ() -> None:
    session = Session(graph)

    session.say("Ideas for a birthday party")

    ideas = session.values()["ideas"]
    assert set(ideas) == set(ANGLES)
    assert len(set(ideas.values())) == 3
    assert all("a birthday party" in idea for idea in ideas.values())
    assert session.last_text().startswith("3 ideas")
    assert ideas["practical"] in session.last_text()


def test_branches_speak_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_DELAY_SECONDS", "0.001")

    heard = [name for name in speakers(Session(graph).say("a birthday party")) if name != "choose"]

    changes = sum(before != after for before, after in pairwise(heard))
    assert changes > len(ANGLES)


def test_a_second_question_replaces_the_ideas() -> None:
    session = Session(graph)
    session.say("a birthday party")

    session.say("a rainy day")

    assert all("a rainy day" in idea for idea in session.values()["ideas"].values())
