"""Old checkpoints go, and nothing that is still needed goes with them."""

import asyncio
import operator
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from app.engine.backend import FileBackend, set_up
from app.engine.checkpoints import Checkpoints, with_checkpoints
from app.engine.prune import Keep, SavedAt, has_deltas, surplus_below
from app.storage.writer import SqliteWriter
from tests.project import graphs

KEY = "o/t"
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Counted(TypedDict):
    log: Annotated[list[str], operator.add]


async def count(state: Counted) -> Counted:
    return {"log": [str(len(state["log"]))]}


def counter(**options: Any) -> Any:
    return (
        StateGraph(Counted).add_node("count", count).add_edge(START, "count").add_edge("count", END).compile(**options)
    )


def play(path: Path, scenario: Callable[[Checkpoints, FileBackend], Coroutine[Any, Any, None]]) -> None:
    async def opened() -> None:
        backend = FileBackend(path / "c.sqlite", await SqliteWriter.open(path / "c.sqlite", setup=set_up))
        checkpoints = Checkpoints(backend)
        try:
            await scenario(checkpoints, backend)
        finally:
            await checkpoints.aclose()

    asyncio.run(opened())


async def turns(checkpoints: Checkpoints, graph: Any, number: int, update: Any) -> Any:
    attached = with_checkpoints(graph, checkpoints.saver("o"))
    for _ in range(number):
        await attached.ainvoke(update, CONFIG)
    return attached


async def history(graph: Any) -> list[str]:
    return [state.config["configurable"]["checkpoint_id"] async for state in graph.aget_state_history(CONFIG)]


async def rows(backend: FileBackend, table: str) -> set[tuple[str, str]]:
    query = f"SELECT checkpoint_ns, checkpoint_id FROM {table} WHERE thread_id = ?"
    return set(await backend.read(lambda c: c.execute(query, (KEY,)).fetchall()))


def test_the_newest_and_those_in_use_stay_and_the_state_is_the_same(tmp_path: Path) -> None:
    async def scenario(checkpoints: Checkpoints, backend: FileBackend) -> None:
        graph = await turns(checkpoints, counter(), 5, {"log": []})
        before, ids = await graph.aget_state(CONFIG), await history(graph)
        keep = Keep(newest=3, in_use={ids[-1], ids[7]})
        assert await checkpoints.has_surplus(KEY, keep)
        await checkpoints.prune(KEY, keep)
        assert await history(graph) == [*ids[:3], ids[7], ids[-1]]
        assert not await checkpoints.has_surplus(KEY, keep)
        assert (await graph.aget_state(CONFIG)).values == before.values
        assert await rows(backend, "writes") <= await rows(backend, "checkpoints")
        assert (await graph.ainvoke({"log": []}, CONFIG))["log"] == ["0", "1", "2", "3", "4", "5"]

    play(tmp_path, scenario)


def test_another_thread_of_the_same_name_keeps_its_own(tmp_path: Path) -> None:
    async def scenario(checkpoints: Checkpoints, backend: FileBackend) -> None:
        await turns(checkpoints, counter(), 3, {"log": []})
        other = with_checkpoints(counter(), checkpoints.saver("p"))
        await other.ainvoke({"log": []}, CONFIG)
        kept = await history(other)
        await checkpoints.prune(KEY, Keep(newest=1))
        assert await history(other) == kept

    play(tmp_path, scenario)


async def conversation(checkpoints: Checkpoints, name: str, newest: int | None) -> Any:
    """Three turns with their questions answered, pruned wherever nothing runs; then the first question once more."""
    graph = with_checkpoints(getattr(graphs, name), checkpoints.saver("o"))
    results, first = [], None
    for turn in range(3):
        result = await graph.ainvoke({"log": []}, CONFIG)
        while questions := result.get("__interrupt__"):
            first = first or (questions, (await graph.aget_state(CONFIG)).config)
            if newest is not None:
                in_use = {first[1]["configurable"]["checkpoint_id"]}
                await checkpoints.prune(KEY, Keep(newest=newest, in_use=in_use))
            answers = {question.id: f"{question.value} {turn}" for question in questions}
            result = await graph.ainvoke(Command(resume=answers), CONFIG)
        results.append(result)
    assert first is not None
    answers = {question.id: "again" for question in first[0]}
    return [*results, await graph.ainvoke(Command(resume=answers), first[1])]


@pytest.mark.parametrize("name", ["ask", "ask_below", "ask_far", "ask_both"])
def test_a_paused_thread_is_answered_as_if_all_were_there(tmp_path: Path, name: str) -> None:
    results: list[Any] = []
    counts: list[int] = []
    for newest in (None, 1):

        async def scenario(checkpoints: Checkpoints, backend: FileBackend, newest: int | None = newest) -> None:
            results.append(await conversation(checkpoints, name, newest))
            counts.append(len(await rows(backend, "checkpoints")))

        (tmp_path / str(newest)).mkdir()
        play(tmp_path / str(newest), scenario)
    assert results[0] == results[1]
    assert counts[1] < counts[0]


def test_a_subgraph_that_remembers_goes_on_from_what_it_knew(tmp_path: Path) -> None:
    inner = counter(checkpointer=True)

    async def call(state: Counted) -> Counted:
        return {"log": [",".join((await inner.ainvoke({"log": []}))["log"])]}

    outer = StateGraph(Counted).add_node("call", call).add_edge(START, "call").add_edge("call", END).compile()

    async def scenario(checkpoints: Checkpoints, backend: FileBackend) -> None:
        graph = await turns(checkpoints, outer, 3, {"log": []})
        many = len(await rows(backend, "checkpoints"))
        await checkpoints.prune(KEY, Keep(newest=1))
        assert len(await rows(backend, "checkpoints")) < many
        assert (await graph.ainvoke({"log": []}, CONFIG))["log"] == ["0", "0,1", "0,1,2", "0,1,2,3"]

    play(tmp_path, scenario)


def test_of_a_memory_what_was_known_at_each_kept_moment_stays() -> None:
    below = [SavedAt(ns="mind", checkpoint_id=f"{number:02}", root_id=f"r{number}") for number in range(0, 20, 2)]
    surplus = surplus_below(below, {"07", "13"})
    left = [place.checkpoint_id for place in below if place not in surplus]
    assert left == ["06", "12", "18"]


def test_a_state_of_differences_is_told_apart() -> None:
    class Long(TypedDict):
        log: Annotated[list[str], DeltaChannel(lambda old, new: [*old, *new])]

    def nothing(state: Long) -> None: ...

    deltas = StateGraph(Long).add_node("a", nothing).add_edge(START, "a").add_edge("a", END).compile()
    below = StateGraph(Counted).add_node("child", deltas).add_edge(START, "child").add_edge("child", END).compile()
    assert [has_deltas(graph) for graph in (counter(), deltas, below)] == [False, True, True]


def test_a_deletion_that_is_cut_off_leaves_the_thread_as_it_is(tmp_path: Path) -> None:
    async def scenario(checkpoints: Checkpoints, backend: FileBackend) -> None:
        graph = await turns(checkpoints, counter(), 60, {"log": []})
        before = (await graph.aget_state(CONFIG)).values
        real, left = backend.write, 1

        async def dying(operation: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return await real(operation)

        backend.write = dying  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            await checkpoints.delete_thread(KEY)
        backend.write = real  # type: ignore[method-assign]
        assert 0 < len(await history(graph)) < 180
        assert (await graph.aget_state(CONFIG)).values == before
        await checkpoints.delete_thread(KEY)
        assert await rows(backend, "checkpoints") == await rows(backend, "writes") == set()

    play(tmp_path, scenario)


def test_ids_of_checkpoints_sort_by_time() -> None:
    made = [str(uuid6(clock_seq=-2)) for _ in range(100)]
    assert made == sorted(made)
