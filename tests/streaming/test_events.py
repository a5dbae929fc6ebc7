"""`@stream_events`: the start and the end of a node or a tool as custom events."""

import asyncio
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from app.streaming import CallEvent, stream_events


class State(TypedDict, total=False):
    log: list[Any]


def graph_of(node: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile(**options)


def written(node: Any) -> list[Any]:
    return list(graph_of(node).stream({"log": ["in"]}, stream_mode="custom"))


def test_the_start_and_the_end_of_a_node_are_told_and_nothing_of_its_state() -> None:
    @stream_events()
    def search(state: State) -> State:
        return {"log": ["secret"]}

    assert written(search) == [{"event": "start", "name": "search"}, {"event": "end", "name": "search"}]
    assert graph_of(search).invoke({}) == {"log": ["secret"]}


def test_a_failure_is_told_without_its_text_and_raised() -> None:
    @stream_events(name="lookup")
    async def search(state: State) -> State:
        raise ValueError("password=hunter2")

    said = list[Any]()

    async def listen() -> None:
        async for part in graph_of(search).astream({}, stream_mode="custom"):
            said.append(part)

    with pytest.raises(ValueError, match="hunter2"):
        asyncio.run(listen())
    assert said == [{"event": "start", "name": "lookup"}, {"event": "error", "name": "lookup"}]


def test_a_filter_chooses_and_a_transformer_makes_what_is_sent() -> None:
    seen = list[CallEvent]()

    def end(event: CallEvent) -> bool:
        seen.append(event)
        return event.event == "end"

    @stream_events(filter=end, transformer=lambda event: {"found": event.output["log"], "in": event.input["log"]})
    def search(state: State) -> State:
        return {"log": ["out"]}

    assert written(search) == [{"found": ["out"], "in": ["in"]}]
    assert [event.event for event in seen] == ["start", "end"]
    assert seen[1].seconds >= seen[0].seconds >= 0


def test_a_tool_is_told_of_inside_the_node_that_calls_it() -> None:
    @tool
    @stream_events()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def node(state: State) -> State:
        return {"log": [add.invoke({"a": 1, "b": 2})]}

    assert add.args.keys() == {"a", "b"}
    assert written(node) == [{"event": "start", "name": "add"}, {"event": "end", "name": "add"}]
    assert graph_of(node).invoke({})["log"] == [3]


def test_a_node_that_pauses_has_not_ended_and_starts_again() -> None:
    @stream_events()
    def ask(state: State) -> State:
        return {"log": [interrupt("well?")]}

    graph = graph_of(ask, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    paused = list(graph.stream({}, config, stream_mode="custom"))
    resumed = list(graph.stream(Command(resume="yes"), config, stream_mode="custom"))
    assert [part["event"] for part in (*paused, *resumed)] == ["start", "start", "end"]


def test_outside_of_any_graph_it_does_nothing() -> None:
    called = list[CallEvent]()

    @stream_events(transformer=called.append)
    def double(value: int) -> int:
        return 2 * value

    assert double(2) == 4
    assert called == []
