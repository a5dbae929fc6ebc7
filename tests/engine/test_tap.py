"""What is heard of a running graph: which node, in which order, and nothing that is not the run's own."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, StreamWriter
from pydantic import BaseModel, Field

from app.engine.tap import split_task
from tests.engine.attempt import Bench, Result, bench, play
from tests.project.graphs import Chat, Mute, Speaker, Steps, below, talk

ALL = ["updates", "messages", "custom", "tasks"]
ONCE_MORE = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=ConnectionError)


def ran(*graphs: Any, value: Any = None, **fields: Any) -> Result:
    """A run of the first graph, to its end, with everything recorded."""
    fields.setdefault("modes", ALL)

    async def scenario() -> Result:
        async with bench(*graphs) as one:
            return await one.run({"log": []} if value is None else value, **fields)

    return play(scenario)


def on_bench(graph: Any, scenario: Callable[[Bench], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with bench(graph) as one:
            return await scenario(one)

    return play(opened)


def one_node(node: Any, state: Any = Steps, name: str = "node", **options: Any) -> "StateGraph[Any]":
    return StateGraph(state).add_node(name, node, **options).add_edge(START, name)


def parallel(**nodes: Any) -> "StateGraph[Any]":
    builder: StateGraph[Any] = StateGraph(Steps)
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(START, name)
    return builder


def text_of(result: Result, message_id: str) -> str:
    return "".join(f["data"]["content"] for f in result.of("token") if f["data"]["id"] == message_id)


# -- custom events ----------------------------------------------------------------------------------------------------


def async_writer(name: str) -> Any:
    async def node(state: Steps) -> Steps:
        write = get_stream_writer()
        for n in range(3):
            write({"from": name, "n": n})
            await asyncio.sleep(0)
        await adispatch_custom_event("note", {"from": name})
        return {"log": [name]}

    return node


def sync_writer(name: str, barrier: threading.Barrier) -> Any:
    def node(state: Steps) -> Steps:
        write = get_stream_writer()
        barrier.wait(timeout=10)
        for n in range(3):
            write({"from": name, "n": n})
        dispatch_custom_event("note", {"from": name})
        return {"log": [name]}

    return node


def assert_each_wrote_its_own(result: Result) -> None:
    for name in ("left", "right"):
        data = [frame["data"] for frame in result.of("custom") if frame["node"] == name]
        notes = {"name": "note", "data": {"from": name}}
        assert data == [*({"from": name, "n": n} for n in range(3)), notes]


def test_custom_events_of_parallel_nodes_name_the_node_that_wrote_them() -> None:
    assert_each_wrote_its_own(ran(parallel(left=async_writer("left"), right=async_writer("right"))))


def test_custom_events_of_nodes_in_threads_name_the_node_that_wrote_them() -> None:
    barrier = threading.Barrier(2)
    graph = parallel(left=sync_writer("left", barrier), right=sync_writer("right", barrier))
    assert_each_wrote_its_own(ran(graph))


def test_custom_events_keep_their_place_among_the_tokens() -> None:
    class Watched(Speaker):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                get_stream_writer()(f"after {chunk.text}")

    async def node(state: Steps) -> Steps:
        get_stream_writer()("before")
        await Watched(words=["a", "b"]).ainvoke("x")
        return {}

    result = ran(one_node(node))
    shown = [f["data"] if f["event"] == "custom" else f["data"]["content"] for f in result.of("custom", "token")]
    assert shown == ["before", "a", "after a", "b", "after b"]


def test_what_a_thread_writes_is_what_it_was_when_it_was_written() -> None:
    def node(state: Steps) -> Steps:
        counter = {"n": 0}
        for n in range(3):
            counter["n"] = n
            get_stream_writer()(counter)
        return {}

    assert [frame["data"] for frame in ran(one_node(node)).of("custom")] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_writer_that_is_a_parameter_is_heard_too() -> None:
    async def node(state: Steps, writer: StreamWriter) -> Steps:
        writer("hello")
        return {}

    assert [(f["node"], f["data"]) for f in ran(one_node(node)).of("custom")] == [("node", "hello")]


def test_a_tool_that_writes_is_heard_under_the_node_of_the_tools() -> None:
    @tool
    async def add(a: int, b: int) -> str:
        """Add."""
        get_stream_writer()({"adding": a})
        return str(a + b)

    async def call(state: Chat) -> Chat:
        return {"messages": [AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "c1"}])]}

    builder = StateGraph(Chat).add_node("call", call).add_node("tools", ToolNode([add]))
    result = ran(builder.add_edge(START, "call").add_edge("call", "tools"), value={"messages": []})
    assert [(f["node"], f["data"]) for f in result.of("custom")] == [("tools", {"adding": 1})]
    assert [(f["event"], f["node"], f["data"]["id"]) for f in result.of("tool_call", "tool_result")] == [
        ("tool_call", "call", "c1"),
        ("tool_result", "tools", "c1"),
    ]


def test_an_odd_value_that_is_written_does_not_stop_the_node() -> None:
    async def node(state: Steps) -> Steps:
        cycle: list[Any] = []
        cycle.append(cycle)
        get_stream_writer()({"cycle": cycle, "lock": threading.Lock(), "nan": float("nan"), 1: b"\xff"})
        return {"log": ["went on"]}

    result = ran(one_node(node))
    assert result.of("custom")[0]["data"]["nan"] is None
    assert result.nodes == ["node"]


# -- subgraphs --------------------------------------------------------------------------------------------------------


async def writing_child(state: Steps) -> Steps:
    get_stream_writer()("from below")
    return {"messages": [await Speaker(words=["a", "b"], message_id="m").ainvoke("x")]}


def with_child(**options: Any) -> "StateGraph[Any]":
    child = one_node(writing_child, name="inner").compile(**options)
    return StateGraph(Steps).add_node("child", child).add_edge(START, "child")


@pytest.mark.parametrize("checkpointer", [None, False, True])
def test_what_happens_below_is_told_with_its_place(checkpointer: Any) -> None:
    result = ran(with_child(checkpointer=checkpointer), subgraphs=True)
    [task_id] = [frame["task_id"] for frame in result.of("node") if frame["node"] == "child"]
    below_frames = [frame for frame in result.frames if "ns" in frame]
    assert {frame["event"] for frame in below_frames} == {"node_start", "custom", "token", "node"}
    assert all(frame["ns"] == [f"child:{task_id}"] and frame["node"] == "inner" for frame in below_frames)
    assert result.nodes == ["inner", "child"]
    assert text_of(result, "m") == "ab"


@pytest.mark.parametrize("checkpointer", [None, False, True])
def test_without_subgraphs_only_the_final_message_of_a_child_is_seen_and_once(checkpointer: Any) -> None:
    result = ran(with_child(checkpointer=checkpointer))
    assert not any("ns" in frame for frame in result.frames)
    assert result.of("custom") == []
    assert [(f["node"], f["data"]) for f in result.of("token")] == [
        ("child", {"id": "m", "content": "ab", "role": "assistant", "last": True})
    ]


def test_usage_below_counts_whether_subgraphs_are_shown_or_not() -> None:
    for subgraphs in (True, False):
        result = ran(below, value={"messages": []}, subgraphs=subgraphs)
        assert result.last["usage"] == {"speaker": {"input_tokens": 3, "output_tokens": 10, "total_tokens": 13}}


def test_a_graph_that_a_node_runs_on_a_thread_of_its_own_is_not_this_runs() -> None:
    async def node(state: Steps) -> Steps:
        config: Any = {"configurable": {"thread_id": "another"}}
        said = await talk.ainvoke({"messages": [HumanMessage("hi")]}, config)
        return {"log": [said["messages"][-1].content]}

    for subgraphs in (True, False):
        result = ran(one_node(node), subgraphs=subgraphs)
        assert result.kinds == ["node_start", "node", "complete"]
        assert result.last["usage"] is not None


def test_a_graph_that_a_node_calls_is_a_subgraph() -> None:
    async def node(state: Steps) -> Steps:
        await talk.ainvoke({"messages": []})
        await talk.ainvoke({"messages": []})
        return {}

    result = ran(one_node(node), subgraphs=True)
    assert result.nodes == ["speak", "speak", "node"]
    assert len({tuple(frame["ns"]) for frame in result.frames if "ns" in frame}) == 2


# -- which node, which message ----------------------------------------------------------------------------------------


def test_several_messages_at_once_are_told_by_node_and_id() -> None:
    def speaker(name: str) -> Any:
        async def node(state: Steps) -> Steps:
            return {"messages": [await Speaker(words=[f"{name}{n}" for n in range(5)], message_id=name).ainvoke("x")]}

        return node

    result = ran(parallel(left=speaker("left"), right=speaker("right")))
    tokens = [(f["node"], f["data"]["id"]) for f in result.of("token")]
    assert {node == id for node, id in tokens} == {True}
    assert tokens != sorted(tokens)  # they did speak at once
    assert text_of(result, "left") == "left0left1left2left3left4"


def test_a_chain_with_the_nodes_own_name_is_neither_its_start_nor_a_retry() -> None:
    async def node(state: Steps) -> Steps:
        said = await Speaker(words=["a"], message_id="m").ainvoke("x")
        await RunnableLambda(lambda value: value, name="node").ainvoke(1)
        return {"messages": [said]}

    result = ran(one_node(node))
    assert result.kinds == ["node_start", "token", "node", "complete"]


def test_a_child_graph_with_the_name_of_its_node_starts_once() -> None:
    child = one_node(writing_child, name="inner").compile(name="child")
    result = ran(StateGraph(Steps).add_node("child", child).add_edge(START, "child"), subgraphs=True)
    assert [frame["node"] for frame in result.of("node_start")] == ["child", "inner"]


def test_a_start_names_the_task_that_its_node_event_has() -> None:
    result = ran(parallel(left=async_writer("left"), right=async_writer("right")))
    starts = {frame["node"]: frame["data"] for frame in result.of("node_start")}
    assert {frame["node"]: frame["task_id"] for frame in result.of("node")} == {n: d["id"] for n, d in starts.items()}
    assert {data["step"] for data in starts.values()} == {1}


def test_a_nodes_start_comes_before_anything_it_says_and_its_event_after() -> None:
    result = ran(talk, value={"messages": []})
    assert result.kinds == ["node_start", *["token"] * 10, "node", "complete"]


def test_an_error_handler_is_a_node_of_the_graph_its_node_is_in() -> None:
    async def fails(state: Steps) -> Steps:
        raise ValueError("password=hunter2")

    async def handle(state: Steps) -> Steps:
        get_stream_writer()("handling")
        return {"messages": [await Speaker(words=["sorry"], message_id="m").ainvoke("x")]}

    result = ran(one_node(fails, error_handler=handle))
    assert result.kinds == ["node_start", "node_start", "custom", "token", "node", "complete"]
    assert not any("ns" in frame for frame in result.frames)
    assert {frame["node"] for frame in result.frames[1:5]} == {"__error_handler__node"}


# -- models -----------------------------------------------------------------------------------------------------------


def test_a_model_that_can_not_stream_is_one_frame_with_the_whole_text() -> None:
    async def node(state: Chat) -> Chat:
        return {"messages": [await Mute().ainvoke("x")]}

    result = ran(one_node(node, Chat), value={"messages": []})
    [token] = result.of("token")
    assert (token["data"]["content"], token["data"]["last"]) == ("all at once", True)
    assert token["data"]["id"] == result.of("node")[0]["data"]["message"]["id"]


def test_a_model_in_a_sync_node_is_heard_too() -> None:
    def node(state: Chat) -> Chat:
        return {"messages": [Mute().invoke("x")]}

    result = ran(one_node(node, Chat), value={"messages": []})
    assert [frame["data"]["content"] for frame in result.of("token")] == ["all at once"]


class Endless(Speaker):
    """A provider that never says `last`."""

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        chunk: Any
        async for chunk in super()._astream(*args, **kwargs):
            chunk.message.chunk_position = None
            yield chunk


def test_a_message_that_its_provider_never_ends_is_ended_with_its_node() -> None:
    async def node(state: Chat) -> Chat:
        return {"messages": [await Endless(words=["a", "b"], message_id="m").ainvoke("x")]}

    result = ran(one_node(node, Chat), value={"messages": []})
    assert [frame["data"].get("last") for frame in result.of("token")][-1] is True
    assert [frame["data"].get("last") for frame in result.of("token")].count(True) == 1
    assert text_of(result, "m") == "ab"


def test_a_model_tagged_nostream_is_not_heard_while_it_speaks() -> None:
    async def node(state: Steps) -> Steps:
        said = await Speaker(words=["not ", "for ", "show"]).with_config(tags=["nostream"]).ainvoke("x")
        return {"log": [str(said.content)]}

    result = ran(one_node(node))
    assert result.of("token") == []
    assert result.last["usage"] is not None


class Inner(Chat, total=False):
    thoughts: list[BaseMessage]


def test_messages_of_an_internal_key_are_no_tokens() -> None:
    async def node(state: Inner) -> Inner:
        return {"messages": [AIMessage("said", id="said")], "thoughts": [AIMessage("thought", id="thought")]}

    result = ran(one_node(node, Inner), value={"messages": []})
    assert [frame["data"]["id"] for frame in result.of("token")] == ["said"]


def test_messages_that_were_there_before_are_not_said_again() -> None:
    async def node(state: Chat) -> Chat:
        return {"messages": [*state["messages"], AIMessage("new", id="new")]}

    old = AIMessage("old", id="old")
    result = ran(one_node(node, Chat), value={"messages": [old, HumanMessage("q", id="q")]})
    assert [frame["data"]["id"] for frame in result.of("token")] == ["new"]


def test_a_removed_message_is_no_frame() -> None:
    async def node(state: Chat) -> Chat:
        return {"messages": [RemoveMessage(id=str(state["messages"][0].id))]}

    result = ran(one_node(node, Chat), value={"messages": [HumanMessage("q", id="q")]})
    assert result.kinds == ["node_start", "node", "complete"]
    assert "message" not in result.of("node")[0]["data"]


class Model(BaseModel):
    messages: Annotated[list[Any], add_messages] = Field(default_factory=list)
    results: list[Any] = Field(default_factory=list)


@dataclasses.dataclass
class Record:
    messages: Annotated[list[Any], add_messages] = dataclasses.field(default_factory=list)
    results: list[Any] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize("state", [Model, Record])
def test_a_state_that_is_a_model_or_a_dataclass_is_heard_like_a_dict(state: Any) -> None:
    async def node(given: Any) -> Any:
        return state(messages=[AIMessage("said", id="m")], results=[ToolMessage("4", tool_call_id="c", id="r")])

    result = ran(one_node(node, state), value={"messages": []})
    assert [(f["event"], f["data"]["id"]) for f in result.of("token", "tool_result")] == [
        ("token", "m"),
        ("tool_result", "c"),
    ]


def test_messages_in_a_command_are_heard() -> None:
    async def node(state: Chat) -> list[Command[Any]]:
        return [Command(update={"messages": [AIMessage(text, id=text)]}) for text in ("one", "two")]

    result = ran(one_node(node, Chat), value={"messages": []})
    assert [frame["data"]["id"] for frame in result.of("token")] == ["one", "two"]


@pytest.mark.parametrize("modes", [["updates"], ["updates", "messages"]])
def test_a_message_a_node_makes_has_one_id_in_its_frames_and_in_the_state(modes: list[str]) -> None:
    async def node(state: Chat) -> Chat:
        return {"messages": [AIMessage("made")]}

    async def scenario(one: Bench) -> None:
        result = await one.run({"messages": []}, modes=modes)
        [saved] = (await one.state()).values["messages"]
        assert result.of("node")[0]["data"]["message"]["id"] == saved.id
        assert {frame["data"]["id"] for frame in result.of("token")} <= {saved.id}

    on_bench(one_node(node, Chat), scenario)


# -- retries and caches -----------------------------------------------------------------------------------------------


class Flaky:
    """A node whose model fails the first time."""

    def __init__(self) -> None:
        self.tries = 0

    async def __call__(self, state: Chat) -> Chat:
        self.tries += 1
        model = Speaker(words=["a", "b"], message_id=f"m{self.tries}", fails_after=1 if self.tries == 1 else None)
        return {"messages": [await model.ainvoke("x")]}


def test_the_text_of_a_try_that_failed_is_discarded() -> None:
    result = ran(one_node(Flaky().__call__, Chat, retry_policy=ONCE_MORE), value={"messages": []})
    kinds = ["node_start", "token", "discard", "node_start", "token", "token", "node", "complete"]
    assert result.kinds == kinds
    assert result.of("discard") == [{"event": "discard", "node": "node", "discard": ["m1"], "reason": "retry"}]
    assert text_of(result, "m2") == "ab"


def test_a_discard_needs_no_mode_but_what_it_voids() -> None:
    result = ran(one_node(Flaky().__call__, Chat, retry_policy=ONCE_MORE), value={"messages": []}, modes=["messages"])
    assert result.kinds == ["token", "discard", "token", "token", "complete"]


@pytest.mark.parametrize("checkpointer", [None, False])
def test_a_retry_of_a_child_discards_what_was_said_below(checkpointer: Any) -> None:
    async def first(state: Chat) -> Chat:
        return {"messages": [await Speaker(words=["f"]).ainvoke("x")]}

    child = StateGraph(Chat).add_node("first", first).add_node("second", Flaky().__call__)
    compiled = child.add_edge(START, "first").add_edge("first", "second").compile(checkpointer=checkpointer)
    builder = StateGraph(Chat).add_node("child", compiled, retry_policy=ONCE_MORE).add_edge(START, "child")
    result = ran(builder, value={"messages": []}, subgraphs=True)
    [discard] = result.of("discard")
    before = result.frames[: result.frames.index(discard)]
    said = {frame["data"]["id"] for frame in before if frame["event"] == "token"}
    assert set(discard["discard"]) == said
    assert len(said) == 2
    assert result.last["event"] == "complete"


def test_a_result_from_a_cache_is_told_once_and_nothing_runs() -> None:
    runs: list[Any] = []

    async def costly(state: Steps) -> Steps:
        runs.append(state["answer"])
        return {"log": [f"result {state['answer']}"]}

    builder = (
        StateGraph(Steps).add_node("spread", lambda state: None).add_node("costly", costly, cache_policy=CachePolicy())
    )
    builder.add_edge(START, "spread")
    builder.add_conditional_edges("spread", lambda _: [Send("costly", {"answer": n}) for n in range(3)], ["costly"])

    async def scenario(one: Bench) -> None:
        for thread_id in ("first", "second"):
            result = await one.run({"log": []}, thread_id=thread_id)
            assert sorted(f["data"]["log"][0] for f in result.of("node")[1:]) == ["result 0", "result 1", "result 2"]
            assert len({frame["task_id"] for frame in result.of("node")}) == 4
        assert sorted(runs) == [0, 1, 2]

    on_bench(builder.compile(cache=InMemoryCache()), scenario)


# -- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subgraphs", [True, False])
def test_a_graph_of_functions_tells_its_tasks_like_nodes(subgraphs: bool) -> None:
    @task
    async def shout(text: str) -> str:
        get_stream_writer()({"shouting": text})
        said = await Speaker(words=[text, "!"], message_id=text).ainvoke("x")
        return str(said.content)

    @entrypoint()
    async def flow(value: Any) -> list[str]:
        get_stream_writer()("begun")
        both = shout("a"), shout("b")
        return [await one for one in both]

    result = ran(flow, subgraphs=subgraphs)
    assert not any("ns" in frame for frame in result.frames)
    assert [f["node"] for f in result.of("node_start")] == ["flow", "shout", "shout"]
    assert [(f["node"], f["data"]) for f in result.of("custom")] == [
        ("flow", "begun"),
        ("shout", {"shouting": "a"}),
        ("shout", {"shouting": "b"}),
    ]
    assert [(f["node"], f["data"]) for f in result.of("node")] == [
        ("shout", "a!"),
        ("shout", "b!"),
        ("flow", ["a!", "b!"]),
    ]
    assert {f["data"]["id"] for f in result.of("token")} == {"a", "b"}


def test_a_sync_graph_of_functions_is_told_in_order() -> None:
    @task
    def shout(text: str) -> str:
        get_stream_writer()({"shouting": text})
        return f"{text}!"

    @entrypoint()
    def flow(value: Any) -> list[str]:
        return [shout(text).result() for text in ("a", "b")]

    result = ran(flow)
    assert [(f["event"], f["data"]) for f in result.of("custom", "node")] == [
        ("custom", {"shouting": "a"}),
        ("node", "a!"),
        ("custom", {"shouting": "b"}),
        ("node", "b!"),
        ("node", ["a!", "b!"]),
    ]


# -- usage ------------------------------------------------------------------------------------------------------------


def test_usage_is_summed_over_all_calls_and_by_model() -> None:
    async def node(state: Steps) -> Steps:
        for name in ("one", "two", "two"):
            await Speaker(words=["a", "b"], name_of_model=name).ainvoke("x")
        return {}

    usage = ran(one_node(node)).last["usage"]
    assert {name: used["total_tokens"] for name, used in usage.items()} == {"one": 5, "two": 10}


def test_usage_that_no_provider_told_is_null() -> None:
    async def node(state: Steps) -> Steps:
        await Mute().ainvoke("x")
        return {}

    assert ran(one_node(node)).last["usage"] is None


def test_usage_is_in_the_end_of_a_failed_run() -> None:
    async def node(state: Steps) -> Steps:
        await Speaker(words=["a", "b"]).ainvoke("x")
        raise ValueError

    result = ran(one_node(node))
    assert result.last["event"] == "error"
    assert result.last["usage"]["speaker"]["total_tokens"] == 5


def test_the_node_and_the_task_are_what_a_namespace_ends_with() -> None:
    assert split_task("agent:1f|tools:2e") == ("tools", "2e")
    assert split_task("agent:1f") == ("agent", "1f")


def test_a_listener_makes_models_stream_only_where_messages_are_asked_for() -> None:
    class Told(BaseChatModel):
        streamed: list[bool] = Field(default_factory=list)

        @property
        def _llm_type(self) -> str:
            return "told"

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            self.streamed.append(False)
            return Mute()._generate([])

        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            self.streamed.append(True)
            async for chunk in Speaker(words=["a"])._astream([]):
                yield chunk

    model = Told()

    async def node(state: Steps) -> Steps:
        await model.ainvoke("x")
        return {}

    ran(one_node(node), modes=["updates"])
    ran(one_node(node), modes=["messages"])
    assert model.streamed == [False, True]


def test_a_chunk_that_a_node_returns_is_told_as_the_message_it_is() -> None:
    async def node(state: Chat) -> Chat:
        whole: AIMessageChunk | None = None
        async for chunk in Speaker(words=["a", "b"], message_id="m").astream("x"):
            assert isinstance(chunk, AIMessageChunk)
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        return {"messages": [whole]}

    result = ran(one_node(node, Chat), value={"messages": []})
    assert text_of(result, "m") == "ab"
    message = result.of("node")[0]["data"]["message"]
    assert (message["type"], message["id"], message["content"]) == ("AIMessage", "m", "ab")
