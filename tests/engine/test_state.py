"""The state of a thread: what it waits for, each question once, and its form in LangGraph's own JSON."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Interrupt, interrupt

from app.engine.state import (
    Graph,
    Pending,
    checkpoint_id_of,
    interrupt_json,
    output_of,
    read_pending,
    read_state,
    snapshot_json,
    thread_config,
)
from app.engine.translate import FAILED_TASK
from app.runs.request import Resume
from tests.engine.attempt import Bench, bench, play
from tests.project.graphs import Steps, ask, ask_below, ask_both, ask_twice, fails, form, steps

Scenario = Callable[[Bench, Graph], Awaitable[Any]]


def on_thread(graph: Any, scenario: Scenario, **fields: Any) -> Any:
    """Runs a graph once on a thread, then the scenario, with the graph as the API has it."""

    async def inside() -> Any:
        async with bench(graph) as one:
            await one.run({"log": []}, **fields)
            async with one.engine.graph_of("o", "graph-0") as compiled:
                return await scenario(one, compiled)

    return play(inside)


async def pending(one: Bench, graph: Graph) -> list[Pending]:
    config = thread_config("t")
    return await read_pending(graph, await graph.aget_state(config), config)


async def shown(one: Bench, graph: Graph) -> dict[str, Any]:
    return snapshot_json(await graph.aget_state(thread_config("t")))


def test_a_question_says_its_id_its_node_and_where_it_is() -> None:
    [question] = on_thread(ask, pending)
    assert question.as_json() == {
        "id": question.id,
        "value": {"question": "May I?"},
        "node": "question",
        "ns": [],
        "response_schema": None,
    }


def test_questions_of_parallel_nodes_are_all_there_and_each_once() -> None:
    found = on_thread(ask_both, pending)
    assert sorted(question.node for question in found) == ["left", "right"]
    assert len({question.id for question in found}) == 2


def test_a_question_in_a_subgraph_is_there_once_and_names_the_inner_node() -> None:
    [question] = on_thread(ask_below, pending)
    assert question.node == "inner"
    [place] = question.ns
    assert place.startswith("child:")


def test_a_question_says_what_form_its_answer_has() -> None:
    schema = {"type": "boolean"}
    builder = StateGraph(Steps).add_node("ask", lambda state: {"answer": interrupt("?", response_schema=schema)})
    [question] = on_thread(builder.add_edge(START, "ask"), pending)
    assert question.as_json()["response_schema"] == schema


def test_an_answered_question_is_none_and_the_next_one_of_the_node_is() -> None:
    async def scenario(one: Bench, graph: Graph) -> None:
        [first] = await pending(one, graph)
        await one.run(action=Resume(value="1"))
        [second] = await pending(one, graph)
        assert (first.value, second.value) == ("first?", "second?")
        assert first.id != second.id
        await one.run(action=Resume(value="2"))
        assert await pending(one, graph) == []

    on_thread(ask_twice, scenario)


def test_a_thread_at_a_breakpoint_asks_nothing() -> None:
    assert on_thread(steps, pending, interrupt_after=["one"]) == []


def test_a_state_is_shown_as_langgraphs_api_shows_it() -> None:
    body = on_thread(steps, shown)
    assert body["values"]["log"] == ["one", "two", "three"]
    assert (body["next"], body["tasks"], body["interrupts"]) == ([], [], [])
    assert body["checkpoint"]["thread_id"] == "t"
    assert body["checkpoint"]["checkpoint_id"] == body["checkpoint_id"]
    assert body["parent_checkpoint"]["checkpoint_id"] == body["parent_checkpoint_id"]
    assert not [key for key in body["metadata"] if key.startswith("runstream_")]


def test_the_state_of_a_thread_that_asks_shows_its_tasks_and_questions() -> None:
    body = on_thread(ask, shown)
    assert body["next"] == ["question"]
    [task] = body["tasks"]
    assert (task["name"], task["error"]) == ("question", None)
    assert (
        task["interrupts"]
        == body["interrupts"]
        == [{"id": body["interrupts"][0]["id"], "value": {"question": "May I?"}}]
    )


def test_the_text_of_an_exception_is_in_no_state() -> None:
    body = on_thread(fails, shown)
    assert body["tasks"][0]["error"] == FAILED_TASK
    assert "hunter2" not in str(body)


def test_a_thread_that_never_ran_has_an_empty_state() -> None:
    async def scenario() -> Any:
        async with bench(steps) as one:
            return snapshot_json(await one.state("never"))

    body = play(scenario)
    assert (body["values"], body["next"], body["created_at"]) == ({}, [], None)


def test_a_state_that_can_not_be_made_any_more_is_shown_as_it_was_before() -> None:
    builder = StateGraph(Steps)
    for name in ("left", "right"):
        builder.add_node(name, lambda state: {"answer": 1}).add_edge(START, name)

    async def scenario(one: Bench, graph: Graph) -> None:
        snapshot = await read_state(graph, thread_config("t"))
        assert "answer" not in snapshot.values
        assert set(snapshot.next) == {"left", "right"}
        assert checkpoint_id_of(snapshot)

    on_thread(builder, scenario)


def test_a_checkpoint_that_is_named_is_read_as_it_is() -> None:
    async def scenario(one: Bench, graph: Graph) -> None:
        newest = await read_state(graph, thread_config("t"))
        again = await read_state(graph, thread_config("t", checkpoint_id_of(newest)))
        assert again.values == newest.values

    on_thread(steps, scenario)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [(None, {"id": "i", "value": 1}), ({"type": "x"}, {"id": "i", "value": 1, "response_schema": {"type": "x"}})],
)
def test_an_interrupt_has_a_schema_only_where_it_has_one(schema: Any, expected: Any) -> None:
    assert interrupt_json(Interrupt(value=1, id="i", response_schema=schema)) == expected


def test_the_output_is_what_the_graph_gives_out_of_its_state() -> None:
    assert output_of(form, {"topic": "tea", "result": "TEA"}) == {"topic": "tea", "result": "TEA"}
    assert output_of(steps, {"log": ["a"], "unknown": 1}) == {"log": ["a"]}

    @entrypoint()
    async def flow(value: Any) -> Any:
        return value

    assert output_of(flow, {"__end__": "done"}) == "done"
    assert output_of(flow, "done") == "done"
