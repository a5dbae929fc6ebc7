"""What stays of a run that was stopped (docs/streaming.md, stopping kindly)."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send
from typing_extensions import TypedDict

from app.engine.partial import STOPPED, closing, keep_partial
from app.engine.state import thread_config

CONFIG = thread_config("t")


class Talk(TypedDict, total=False):
    messages: Annotated[list[BaseMessage], add_messages]
    route: str


class Plain(TypedDict, total=False):
    messages: list[BaseMessage]


class Silent(TypedDict, total=False):
    steps: list[str]


async def never(state: Any) -> Any:
    await asyncio.sleep(60)


def needs_route(state: Talk) -> str:
    return {"known": END}[state["route"]]


def calls(*ids: str) -> AIMessage:
    return AIMessage("I look.", tool_calls=[{"name": f"tool {id}", "args": {}, "id": id} for id in ids])


def results(messages: Any) -> list[tuple[str, str]]:
    return [(message.tool_call_id, message.content) for message in messages]


async def stop(graph: Any, values: Any, partial: dict[str, str], waits: Callable[[Any], bool]) -> Any:
    """Run a graph until its state says that it waits, stop it, and keep what it said."""
    compiled = graph.compile(checkpointer=InMemorySaver())
    task = asyncio.get_running_loop().create_task(compiled.ainvoke(values, CONFIG, durability="sync"))
    async with asyncio.timeout(20):
        while not waits(await compiled.aget_state(CONFIG)):  # noqa: ASYNC110 the state is all there is to look at
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await keep_partial(compiled, "t", partial)
    return compiled


def stopped(
    graph: Any, values: Any, partial: dict[str, str], waits: Callable[[Any], bool] = lambda state: bool(state.next)
) -> tuple[Any, Any]:
    """The state after `stop`, and what going on gives."""

    async def scenario() -> tuple[Any, Any]:
        compiled = await stop(graph, values, partial, waits)
        return await compiled.aget_state(CONFIG), await compiled.ainvoke(None, CONFIG)

    return asyncio.run(scenario())


def test_the_text_so_far_is_a_message_that_says_it_is_partial_and_the_thread_waits_for_nothing() -> None:
    graph = StateGraph(Talk).add_node("speak", never).add_edge(START, "speak").add_edge("speak", END)
    state, again = stopped(graph, {"messages": [HumanMessage("hi")]}, {"m1": "Once upon"})
    assert (state.next, state.tasks) == ((), ())
    human, said = state.values["messages"]
    assert human.content == "hi"
    assert (said.id, said.content, said.additional_kwargs) == ("m1", "Once upon", {"partial": True})
    assert again == state.values


def test_with_nothing_said_the_thread_is_made_idle_and_no_message_is_added() -> None:
    graph = StateGraph(Talk).add_node("speak", never).add_edge(START, "speak").add_edge("speak", END)
    state, _ = stopped(graph, {"messages": [HumanMessage("hi")]}, {})
    assert state.next == ()
    assert len(state.values["messages"]) == 1


def test_where_to_go_from_a_node_that_did_not_end_is_not_asked() -> None:
    graph = StateGraph(Talk).add_node("speak", never).add_edge(START, "speak")
    graph.add_conditional_edges("speak", needs_route, [END])
    state, _ = stopped(graph, {"messages": [HumanMessage("hi")]}, {"m1": "text"})
    assert state.next == ()
    assert state.values["messages"][-1].content == "text"


def test_a_call_of_a_stopped_tool_is_closed_and_one_that_has_its_result_keeps_it() -> None:
    async def speak(state: Talk) -> Talk:
        return {"messages": [calls("slow", "quick")]}

    async def tool(state: Any) -> Any:
        if state["id"] == "slow":
            await asyncio.sleep(60)
        return {"messages": [ToolMessage("found", tool_call_id=state["id"])]}

    def to_tools(state: Talk) -> list[Send]:
        message = state["messages"][-1]
        assert isinstance(message, AIMessage)
        return [Send("tool", call) for call in message.tool_calls]

    graph = StateGraph(Talk).add_node("speak", speak).add_node("tool", tool).add_edge(START, "speak")
    graph.add_conditional_edges("speak", to_tools, ["tool"]).add_edge("tool", END)

    state, again = stopped(graph, {"messages": []}, {}, lambda state: len(state.values.get("messages", ())) == 2)
    assert (state.next, again) == ((), state.values)
    assert results(state.values["messages"][1:]) == [("quick", "found"), ("slow", STOPPED)]


def test_what_other_nodes_of_the_step_had_done_stays_and_leads_nowhere() -> None:
    async def note(state: Talk) -> Talk:
        return {"route": "noted"}

    async def fail(state: Talk) -> Talk:
        raise AssertionError("nobody asked for it")

    graph = StateGraph(Talk).add_node("speak", never).add_node("note", note).add_node("fail", fail)
    graph.add_edge(START, "speak").add_edge(START, "note").add_edge("note", "fail")
    values = {"messages": [HumanMessage("hi")]}
    state, again = stopped(graph, values, {"m1": "text"}, lambda state: "route" in state.values)
    assert (state.next, again) == ((), state.values)
    assert state.values["route"] == "noted"
    assert [message.content for message in state.values["messages"]] == ["hi", "text"]


def test_messages_without_a_reducer_are_kept_and_added_to() -> None:
    graph = StateGraph(Plain).add_node("speak", never).add_edge(START, "speak").add_edge("speak", END)
    state, _ = stopped(graph, {"messages": [HumanMessage("hi"), calls("a")]}, {"m1": "text"})
    assert [message.content for message in state.values["messages"]] == ["hi", "I look.", STOPPED, "text"]


def test_a_graph_without_messages_is_only_made_idle() -> None:
    graph = StateGraph(Silent).add_node("work", never).add_edge(START, "work").add_edge("work", END)
    state, _ = stopped(graph, {"steps": ["begun"]}, {"m1": "text"})
    assert (state.next, state.values) == ((), {"steps": ["begun"]})


def test_a_thread_that_never_began_or_waits_for_nothing_is_left_alone() -> None:
    async def scenario() -> tuple[Any, Any]:
        graph = StateGraph(Talk).add_node("speak", lambda state: {}).add_edge(START, "speak")
        compiled = graph.compile(checkpointer=InMemorySaver())
        await keep_partial(compiled, "t", {"m1": "text"})
        fresh = await compiled.aget_state(CONFIG)
        await compiled.ainvoke({"messages": [HumanMessage("hi")]}, CONFIG)
        await keep_partial(compiled, "t", {"m1": "text"})
        return fresh, await compiled.aget_state(CONFIG)

    fresh, ended = asyncio.run(scenario())
    assert fresh.created_at is None
    assert len(ended.values["messages"]) == 1


@pytest.mark.parametrize(
    ("messages", "open_calls"),
    [
        ([], []),
        ([HumanMessage("hi"), AIMessage("no calls")], []),
        ([calls("a", "b")], ["a", "b"]),
        ([calls("a", "b"), ToolMessage("done", tool_call_id="a")], ["b"]),
        ([calls("a"), ToolMessage("done", tool_call_id="a"), calls("b")], ["b"]),
        ([{"role": "user", "content": "in the short form"}, calls("a")], ["a"]),
    ],
)
def test_each_call_without_a_result_gets_one_that_says_why(messages: list[AnyMessage], open_calls: list[str]) -> None:
    closed = closing(messages)
    assert results(closed) == [(id, STOPPED) for id in open_calls]
    assert [message.name for message in closed] == [f"tool {id}" for id in open_calls]
    assert {message.status for message in closed if isinstance(message, ToolMessage)} <= {"error"}
