"""What a run saves when: its input with the state that its first node begins from, and nothing after its end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from app.engine.backend import MemoryBackend
from app.engine.checkpoints import Writer
from app.engine.saved import Follower, Save, SavedCheckpoints, Saves
from app.engine.state import thread_config
from app.errors import LeaseLost
from app.runs.model import Lease
from app.runs.request import Continue
from tests.engine.attempt import Bench, Result, asked, bench, play
from tests.engine.test_execution import Ran, in_a_row
from tests.project.graphs import Steps

T = TypeVar("T")
LEASE = Lease(run_key="o/r", thread_key="o/t", worker="w", epoch=1, attempt=1, version=1)


class Entry:
    """A graph whose entry decides which node is the first, when it is let."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let = asyncio.Event()
        self.ran: list[str] = []

    def compile(self) -> Any:
        async def decide(state: Steps) -> str:
            self.entered.set()
            await self.let.wait()
            return "first"

        async def first(state: Steps) -> Steps:
            self.ran.append("first")
            return {"log": ["first"]}

        builder: StateGraph[Any] = StateGraph(Steps)
        return builder.add_node("first", first).add_conditional_edges(START, decide, ["first"]).compile()


class Held:
    """A writer that commits so many writes, and the others when it is let."""

    def __init__(self, writer: Writer, commits: int) -> None:
        self._writer = writer
        self._left = commits
        self.count = 0
        self.reached = asyncio.Event()
        self.let = asyncio.Event()

    async def submit(self, operation: Callable[[Any], T]) -> T:
        self.count += 1
        self._left -= 1
        if self._left < 0:
            self.reached.set()
            await self.let.wait()
        return await self._writer.submit(operation)

    async def reclaim(self) -> bool:
        return await self._writer.reclaim()

    async def aclose(self) -> None:
        await self._writer.aclose()


async def turns(count: int = 300) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def while_held(
    entry: Entry, path: Path, commits: int, look: Callable[[Bench], Awaitable[T]], *, is_let: bool = True
) -> T:
    """What is seen when so many commits were made and no more are."""
    writers = list[Held]()

    def held(writer: Writer) -> Writer:
        writers.append(Held(writer, commits))
        return writers[0]

    if is_let:
        entry.let.set()
    async with bench(entry.compile(), path=path, wrap=held) as one:
        attempt = await one.begin(asked({"log": ["in"]}), Result().put)
        work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
        await (writers[0].reached if is_let else entry.entered).wait()
        await turns()
        seen = await look(one)
        writers[0].let.set()
        entry.let.set()
        await work
    return seen


def test_no_node_begins_before_the_state_that_it_begins_from_is_saved(tmp_path: Path) -> None:
    async def scenario() -> None:
        entry = Entry()

        async def look(one: Bench) -> list[str]:
            return list(entry.ran)

        assert await while_held(entry, tmp_path / "c.sqlite", 0, look) == []
        assert entry.ran == ["first"]

    play(scenario)


def test_the_first_commit_holds_the_input_and_the_state_that_the_first_node_begins_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def look(one: Bench) -> tuple[Any, list[Any]]:
            async with one.engine.graph_of("o", "graph-0") as graph:
                found = [item async for item in graph.aget_state_history({"configurable": {"thread_id": "t"}})]
            return found[0].next, [(item.metadata or {})["source"] for item in found]

        assert await while_held(Entry(), tmp_path / "c.sqlite", 1, look) == (("first",), ["loop", "input"])

    play(scenario)


def test_while_an_entry_decides_nothing_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def look(one: Bench) -> Any:
            return (await one.state()).created_at

        assert await while_held(Entry(), tmp_path / "c.sqlite", 9, look, is_let=False) is None

    play(scenario)


def test_a_run_that_is_stopped_in_its_entry_leaves_its_input(tmp_path: Path) -> None:
    async def scenario() -> None:
        entry, result = Entry(), Result()
        async with bench(entry.compile(), path=tmp_path / "c.sqlite") as one:
            attempt = await one.begin(asked({"log": ["in"]}), result.put)
            work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
            await entry.entered.wait()
            await attempt.cancelled(work, "user", result)
            assert result.last["event"] == "cancelled"
            assert result.ending is not None
            assert result.ending.checkpoint_id is not None
            assert (await one.state()).next == (START,)
            entry.let.set()
            again = await one.run(None, thread_id="t", action=Continue())
            assert again.last["event"] == "complete"
            assert (await one.state()).values["log"] == ["in", "first"]

    play(scenario)


def test_a_checkpoint_is_saved_with_the_writes_that_it_takes_up(tmp_path: Path) -> None:
    async def scenario() -> int:
        writers = list[Held]()

        def counting(writer: Writer) -> Writer:
            writers.append(Held(writer, 99))
            return writers[0]

        async with bench(in_a_row(Ran()), path=tmp_path / "c.sqlite", wrap=counting) as one:
            assert (await one.run({"log": []})).last["event"] == "complete"
        return writers[0].count

    assert play(scenario) == 1 + 3  # the input, and each node


@pytest.mark.parametrize("mode", ["checkpoints", "debug"])
def test_an_input_whose_checkpoint_is_shown_is_saved_at_once(mode: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        entry, result = Entry(), Result()
        async with bench(entry.compile(), path=tmp_path / "c.sqlite") as one:
            attempt = await one.begin(asked({"log": ["in"]}, modes=[mode]), result.put)
            work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
            await entry.entered.wait()
            entry.let.set()
            await work
            async with one.engine.graph_of("o", "graph-0") as graph:
                shown = next(text for text in result.texts if b"checkpoint_id" in text)
                history = graph.aget_state_history(thread_config("t"))
                ids = [item.config["configurable"]["checkpoint_id"] async for item in history]
            assert ids[-1].encode() in shown

    play(scenario)


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_a_node_whose_checkpoint_cant_be_saved_is_not_done_and_nobody_is_told(
    is_in_memory: bool, tmp_path: Path
) -> None:
    class Unsaved(TypedDict, total=False):
        value: Annotated[Any, lambda left, right: threading.Lock() if right == "lock" else right]

    async def lock(state: Unsaved) -> Unsaved:
        return {"value": "lock"}

    builder: StateGraph[Any] = StateGraph(Unsaved)
    graph = builder.add_node("lock", lock).add_edge(START, "lock").compile()

    async def scenario() -> None:
        async with bench(graph, path=None if is_in_memory else tmp_path / "c.sqlite") as one:
            result = await one.run({"value": "key"})
            assert (result.last["event"], result.nodes) == ("error", [])
            state = await one.state()
            assert (state.values, state.next) == ({"value": "key"}, ("lock",))
            saved = await one.checkpoints.saver("o").aget_tuple(thread_config("t"))
            assert saved is not None
            assert not [write for write in saved.pending_writes or () if write[1] != "__error__"]

    play(scenario)


def test_a_checkpoint_goes_with_the_last_of_the_writes_that_it_waits_for_and_with_none_when_one_is_lost() -> None:
    kept, place = SavedCheckpoints(), thread_config("t", "1")
    follower = Follower(writing([], "checkpoint"))
    with kept.writing(place):
        assert kept.follower(place) is None
        with kept.following(place, follower):
            assert kept.follower(place) is follower
            with kept.writing(place):
                assert kept.follower(place) is None
            with pytest.raises(LeaseLost), kept.writing(place):
                raise LeaseLost("lost")
            assert kept.follower(place) is None


def writing(rows: list[str], row: str) -> Save:
    return lambda connection: rows.append(row)


def test_what_is_deferred_is_saved_before_the_next_save_and_at_the_end() -> None:
    async def scenario() -> list[str]:
        rows = list[str]()
        saves = Saves(MemoryBackend(), LEASE)
        saves.defer(writing(rows, "a"), "1")
        saves.defer(writing(rows, "b"), "1")
        assert saves.defers("1")
        assert not saves.defers("2")
        await saves.run(writing(rows, "c"))
        assert not saves.defers("1")
        saves.defer(writing(rows, "d"), "2")
        await saves.close()
        return rows

    assert play(scenario) == ["a", "b", "c", "d"]


def test_nothing_is_saved_or_deferred_after_the_end() -> None:
    async def scenario() -> None:
        rows = list[str]()
        saves = Saves(MemoryBackend(), LEASE)
        await saves.close()
        with pytest.raises(LeaseLost):
            saves.defer(writing(rows, "a"), "1")
        with pytest.raises(LeaseLost):
            await saves.run(writing(rows, "b"))
        assert rows == []

    play(scenario)


def test_an_end_says_why_what_was_deferred_is_not_saved() -> None:
    async def scenario() -> None:
        backend, later = MemoryBackend(), replace(LEASE, version=2)
        await Saves(backend, later).run()
        saves = Saves(backend, LEASE)
        saves.defer(writing([], "a"), "1")
        with pytest.raises(LeaseLost):
            await saves.close()

    play(scenario)
