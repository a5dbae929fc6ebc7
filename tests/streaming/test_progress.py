"""Progress as graph authors call it: in graphs with and without the server, and outside of any."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from app.streaming import progress, stream_progress, track


class State(TypedDict, total=False):
    log: list[Any]


def graph_of(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()


def written(node: Any) -> list[Any]:
    """What a node writes, in LangGraph without a server, which asks for it."""
    return list(graph_of(node).stream({}, stream_mode="custom"))


def test_outside_of_any_graph_nothing_happens() -> None:
    progress(1, 2, message="nobody hears it")
    assert list(track([1, 2, 3])) == [1, 2, 3]
    assert stream_progress()(lambda state: state)(5) == 5

    async def outside() -> list[int]:
        progress(1)
        return list(track(range(3)))

    assert asyncio.run(outside()) == [0, 1, 2]


def test_in_a_graph_without_the_server_the_updates_are_plain_custom_data() -> None:
    def node(state: State) -> State:
        progress(1, 2, message="half")
        return {"log": ["done"]}

    assert written(node) == [{"current": 1, "total": 2, "message": "half"}]
    assert graph_of(node).invoke({}) == {"log": ["done"]}


def test_in_an_async_node_too() -> None:
    @stream_progress(milestones=(50,))
    async def node(state: State) -> State:
        for _ in track("ab"):
            await asyncio.sleep(0)
        return {"log": ["done"]}

    async def parts() -> list[Any]:
        return [part async for part in graph_of(node).astream({}, stream_mode="custom")]

    assert [part["current"] for part in asyncio.run(parts())] == [0, 1, 2]
    assert asyncio.run(graph_of(node).ainvoke({})) == {"log": ["done"]}


def sized(count: int) -> list[int]:
    return list(range(count))


def unsized(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.parametrize(
    ("items", "total", "said"),
    [
        (partial(sized, 2), None, [(0, 2), (1, 2), (2, 2)]),
        (partial(unsized, 2), None, [(0, None), (1, None), (2, None)]),
        (partial(unsized, 2), 4, [(0, 4), (1, 4), (2, 4)]),
        (partial(sized, 0), None, [(0, 0)]),
    ],
)
def test_track_says_how_far_it_is_of_as_much_as_it_knows(items: Any, total: int | None, said: list[Any]) -> None:
    def node(state: State) -> State:
        return {"log": list(track(items(), total, message="reading"))}

    assert [(part["current"], part["total"]) for part in written(node)] == said
    assert {part["message"] for part in written(node)} == {"reading"}
    assert graph_of(node).invoke({})["log"] == list(items())


def test_what_a_loop_raises_or_leaves_undone_is_as_without_track() -> None:
    def fails(state: State) -> State:
        for item in track([1, 2, 3]):
            if item == 2:
                raise ValueError("in the loop")
        return {}

    with pytest.raises(ValueError, match="in the loop"):
        written(fails)

    def breaks(state: State) -> State:
        for item in track(range(100)):
            if item == 1:
                break
        return {}

    # the item that was being worked on is not done
    assert [part["current"] for part in written(breaks)] == [0, 1]

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("in the iterable")

    def spoils(state: State) -> State:
        return {"log": list(track(broken()))}

    with pytest.raises(ValueError, match="in the iterable"):
        written(spoils)


class Callable:
    async def __call__(self, state: State) -> State:
        progress(1, message="from an object")
        return {"log": ["called"]}


def test_a_decorated_node_is_what_it_was_for_langgraph_sync_async_or_an_object() -> None:
    @stream_progress(interval_seconds=5)
    def node(state: State, config: RunnableConfig) -> State:
        """Says so."""
        return {"log": [config["metadata"]["langgraph_node"]]}

    assert (node.__name__, node.__doc__) == ("node", "Says so.")
    assert graph_of(node).invoke({}) == {"log": ["node"]}
    assert asyncio.run(graph_of(stream_progress()(Callable())).ainvoke({})) == {"log": ["called"]}


def test_the_policy_is_that_of_the_decorated_node_alone() -> None:
    @stream_progress(interval_seconds=60, milestones=[25])
    def inner() -> None:
        progress(1)

    def node(state: State) -> State:
        progress(0)
        inner()
        progress(2)
        return {}

    assert [part.policy.interval_seconds for part in written(node)] == [0.1, 60, 0.1]
    assert [part.policy.milestones for part in written(node)] == [(), (25,), ()]
