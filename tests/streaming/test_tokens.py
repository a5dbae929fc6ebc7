"""`@stream_tokens`: how a node's tokens are sent, said by its author."""

import asyncio
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from app.engine.node_tokens import node_tokens
from app.protocols.tokens import parse_policy
from app.streaming import stream_progress, stream_tokens


class State(TypedDict, total=False):
    log: list[Any]


def graph_of(node: Any, name: str = "node") -> Any:
    return StateGraph(State).add_node(name, node).add_edge(START, name).add_edge(name, END).compile()


@stream_tokens(flush={"count": 5}, tags=["loud"], pattern="[a-z]", format="structured")
def plain(state: State) -> State:
    return {"log": ["plain"]}


@stream_progress(milestones=(50,))
@stream_tokens(flush={"ms": 100})
async def waiting(state: State) -> State:
    return {"log": ["waiting"]}


def test_a_node_does_what_it_did_with_a_server_and_without_one() -> None:
    assert plain({}) == {"log": ["plain"]}
    assert graph_of(plain).invoke({}) == {"log": ["plain"]}
    assert asyncio.run(graph_of(waiting).ainvoke({})) == {"log": ["waiting"]}


def test_the_policy_is_found_by_the_name_of_the_node_under_other_decorators_too() -> None:
    assert node_tokens(graph_of(plain, "a"), subgraphs=False)["a"]["flush"] == {"count": 5}
    assert node_tokens(graph_of(waiting, "b"), subgraphs=False)["b"]["flush"] == {"ms": 100}
    assert node_tokens(graph_of(lambda state: {}), subgraphs=False) == {}


def test_in_subgraphs_it_is_looked_for_where_they_are_shown_and_the_outermost_counts() -> None:
    outer = (
        StateGraph(State)
        .add_node("child", graph_of(plain))
        .add_node("node", waiting)
        .add_node("other", graph_of(plain, "below"))
        .add_edge(START, "child")
        .add_edge("child", "node")
        .add_edge("node", "other")
        .compile()
    )
    assert set(node_tokens(outer, subgraphs=False)) == {"node"}
    found = node_tokens(outer, subgraphs=True)
    assert {name: policy["flush"] for name, policy in found.items()} == {"node": {"ms": 100}, "below": {"count": 5}}


@pytest.mark.parametrize("node", [plain, waiting])
def test_what_an_author_says_is_a_policy_of_the_protocol(node: Any) -> None:
    policy = parse_policy(None, defaults=node_tokens(graph_of(node), subgraphs=False))
    assert policy.of("node").joins
    assert policy.of("node").parsed == (node is plain)
    assert not policy.of("another").joins


@pytest.mark.parametrize(
    "wrong",
    [
        {"flush": "all"},
        {"flush": {"count": 0}},
        {"flush": {"count": 1, "ms": 1}},
        {"flush": {"ms": 60_001}},
        {"min_length": -1},
        {"pattern": "("},
        {"pattern": "x" * 201},
    ],
)
def test_what_is_no_policy_is_said_when_the_graph_is_loaded(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        stream_tokens(**wrong)
