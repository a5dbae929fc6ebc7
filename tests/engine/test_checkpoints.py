"""Checkpoints on a real SQLite file: fenced, written in the order they came, types kept, nothing run on reading."""

import asyncio
import dataclasses
import enum
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import ormsgpack
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from app.engine.checkpoints import (
    Backend,
    Checkpoints,
    FileBackend,
    MemoryBackend,
    set_up,
    with_checkpoints,
)
from app.engine.plain_saver import has_ended
from app.engine.saved import SavedCheckpoints
from app.errors import LeaseLost, StoreUnavailable
from app.runs.model import Lease
from app.storage.writer import SqliteWriter
from tests.engine.attempt import play
from tests.project.graphs import Steps, steps

T = TypeVar("T")


def lease(version: int, run: str = "run", thread: str = "o/t") -> Lease:
    return Lease(run_key=f"o/{run}", thread_key=thread, worker="w", epoch=1, attempt=1, version=version)


def config(thread_id: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


def checkpoint(number: int) -> Checkpoint:
    return {**empty_checkpoint(), "id": f"1ef{number:05d}-0000-6000-8000-000000000000"}


@asynccontextmanager
async def file_checkpoints(path: Path) -> AsyncIterator[Checkpoints]:
    checkpoints = Checkpoints(FileBackend(path, await SqliteWriter.open(path, setup=set_up)))
    try:
        yield checkpoints
    finally:
        await checkpoints.aclose()


@asynccontextmanager
async def memory_checkpoints(path: Path) -> AsyncIterator[Checkpoints]:
    checkpoints = Checkpoints(MemoryBackend())
    try:
        yield checkpoints
    finally:
        await checkpoints.aclose()


@pytest.fixture(params=[file_checkpoints, memory_checkpoints], ids=["file", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Checkpoints], Awaitable[T]]], T]:
    """Plays a scenario on checkpoints of each kind."""

    def run(scenario: Callable[[Checkpoints], Awaitable[T]]) -> T:
        async def inside() -> T:
            async with request.param(tmp_path / "checkpoints.sqlite") as checkpoints:
                return await scenario(checkpoints)

        return play(inside)

    return run


class Journal:
    """Events of nodes, by task; and which tasks were said to be saved."""

    def __init__(self, **texts: bytes) -> None:
        self.texts = texts
        self.calls: list[str] = []

    def saving(self, task_id: str) -> list[bytes]:
        self.calls.append(f"saving {task_id}")
        return [self.texts[task_id]] if task_id in self.texts else []

    def saved(self, task_id: str) -> None:
        self.calls.append(f"saved {task_id}")

    async def told(self, task_id: str) -> None:
        self.calls.append(f"told {task_id}")

    def told_in(self, checkpoint_ns: str) -> Collection[str]:
        return ()


# -- the fence --------------------------------------------------------------------------------------------------------


def test_whoever_lost_the_thread_can_write_neither_checkpoints_nor_writes(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        old = checkpoints.saver("o", lease=lease(1), journal=Journal())
        put = await old.aput(config(), checkpoint(1), {}, {})
        new = checkpoints.saver("o", lease=lease(2))
        await new.aput(put, checkpoint(2), {}, {})
        with pytest.raises(LeaseLost):
            await old.aput(put, checkpoint(3), {}, {})
        with pytest.raises(LeaseLost):
            await old.aput_writes(put, [("log", 1)], "task")
        with pytest.raises(LeaseLost):
            await old.adelete_thread("t")
        found = await new.aget_tuple(config())
        assert found is not None
        assert found.checkpoint["id"] == checkpoint(2)["id"]
        assert not found.pending_writes

    opened(scenario)


def test_a_graph_whose_claim_was_taken_over_fails_at_its_next_save(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        async def taken_over(state: Steps) -> Steps:
            other = checkpoints.saver("o", lease=lease(2))
            await other.aput(config(), checkpoint(9), {}, {})
            return {"log": ["taken over"]}

        graph = StateGraph(Steps).add_node("node", taken_over).add_edge(START, "node").compile()
        saver = checkpoints.saver("o", lease=lease(1))
        with pytest.raises(LeaseLost):
            await with_checkpoints(graph, saver).ainvoke({"log": []}, config(), durability="sync")

    opened(scenario)


# -- when a task has ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "ended"),
    [
        (["log"], True),
        (["__no_writes__"], True),
        (["__return__"], True),
        (["__resume__", "log"], True),
        (["__resume__"], False),
        (["__interrupt__"], False),
        (["__interrupt__", "__resume__"], False),
        (["__error__"], False),
        (["log", "__error__"], False),
        (["__error__", "__error_source_node__"], False),
    ],
)
def test_a_task_has_ended_when_it_wrote_more_than_questions_answers_and_errors(
    channels: list[str], ended: bool
) -> None:
    assert has_ended([(channel, None) for channel in channels]) is ended


def test_a_journal_is_told_before_and_after_its_tasks_writes_are_saved(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        journal = Journal(task=b'{"event":"node"}')
        saver = checkpoints.saver("o", lease=lease(1), journal=journal)
        put = await saver.aput(config(), checkpoint(1), {}, {})
        await saver.aput_writes(put, [("__interrupt__", ())], "asked")
        assert journal.calls == []
        await saver.aput_writes(put, [("log", 1)], "task")
        assert journal.calls == ["saving task", "saved task"]
        assert await checkpoints.node_events("o/run", "o/t") == [("task", b'{"event":"node"}')]

    opened(scenario)


def test_events_of_nodes_are_saved_with_the_writes_or_not_at_all(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        journal = Journal(task=b"{}")
        saver = checkpoints.saver("o", lease=lease(1), journal=journal)
        put = await saver.aput(config(), checkpoint(1), {}, {})
        await checkpoints.saver("o", lease=lease(2, run="later")).aput(put, checkpoint(2), {}, {})
        with pytest.raises(LeaseLost):
            await saver.aput_writes(put, [("log", 1)], "task")
        assert await checkpoints.node_events("o/run", "o/t") == []
        assert "saved task" not in journal.calls

    opened(scenario)


# -- saved checkpoints ------------------------------------------------------------------------------------------------


def test_writes_wait_for_the_checkpoint_they_belong_to_and_those_round_it() -> None:
    async def scenario() -> None:
        saved = SavedCheckpoints()
        inner = config(checkpoint_id="inner", checkpoint_map={"": "outer"})
        waiting = asyncio.ensure_future(saved.wait(inner))  # noqa: TID251
        for step in ("inner", "outer"):
            await asyncio.sleep(0)
            assert not waiting.done()
            saved.add(config(checkpoint_id=step))
        await waiting

    play(scenario)


def test_when_a_checkpoint_can_not_be_saved_nobody_waits_for_it() -> None:
    async def scenario() -> None:
        saved = SavedCheckpoints()
        waiting = asyncio.ensure_future(saved.wait(config(checkpoint_id="never")))  # noqa: TID251
        await asyncio.sleep(0)
        with pytest.raises(LeaseLost), saved.putting():
            raise LeaseLost("stale")
        with pytest.raises(StoreUnavailable):
            await waiting

    play(scenario)


def test_what_belongs_to_no_checkpoint_waits_for_none() -> None:
    play(lambda: SavedCheckpoints().wait(config()))


# -- reading and writing ----------------------------------------------------------------------------------------------


def test_a_closed_saver_refuses_what_comes_late_and_its_successor_saves_where_it_read(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        saver = checkpoints.saver("o")
        first = await saver.aput(config(), checkpoint(1), {}, {})
        await saver.aput(first, checkpoint(2), {}, {})
        saver.pin(checkpoint(1)["id"])
        await saver.close()
        with pytest.raises(LeaseLost):
            await saver.aput(first, checkpoint(3), {}, {})
        successor = saver.successor()
        found = await successor.aget_tuple(config())
        assert found is not None
        assert found.checkpoint["id"] == checkpoint(1)["id"]
        await successor.aput(first, checkpoint(4), {}, {})
        found = await successor.aget_tuple(config())
        assert found is not None
        assert found.checkpoint["id"] == checkpoint(4)["id"]

    opened(scenario)


def test_owners_do_not_see_each_others_threads(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        await checkpoints.saver("one").aput(config(), checkpoint(1), {}, {})
        assert await checkpoints.saver("two").aget_tuple(config()) is None
        found = await checkpoints.saver("one").aget_tuple(config())
        assert found is not None
        assert found.config["configurable"]["thread_id"] == "t"

    opened(scenario)


def test_an_owner_with_a_slash_in_its_name_finds_its_thread_again(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        saver = checkpoints.saver("https://issuer/x")
        first = await saver.aput(config(), checkpoint(1), {}, {})
        await saver.aput(first, checkpoint(2), {}, {})
        [newest, oldest] = [item async for item in saver.alist(config())]
        assert newest.config["configurable"]["thread_id"] == "t"
        assert newest.parent_config is not None
        assert newest.parent_config["configurable"] == oldest.config["configurable"]

    opened(scenario)


def test_a_list_is_read_whole_so_that_others_can_write_meanwhile(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        saver = checkpoints.saver("o")
        last = config()
        for number in range(3):
            last = await saver.aput(last, checkpoint(number), {}, {})
        ids = []
        async for item in saver.alist(config(), limit=2):
            await saver.aput(last, checkpoint(9), {}, {})
            ids.append(item.checkpoint["id"])
        assert ids == [checkpoint(2)["id"], checkpoint(1)["id"]]

    opened(scenario)


def test_a_save_whose_caller_is_cancelled_is_done_all_the_same(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        saver = checkpoints.saver("o")
        saving = asyncio.ensure_future(saver.aput(config(), checkpoint(1), {}, {}))  # noqa: TID251
        await asyncio.sleep(0)
        saving.cancel()
        await asyncio.wait({saving})
        await saver.aput_writes(config("other", checkpoint_id="x"), [("log", 1)], "task")  # behind it in the queue
        assert await saver.aget_tuple(config()) is not None

    opened(scenario)


def test_deleting_a_thread_takes_everything_of_it_and_nothing_else(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        for thread_id in ("t", "other"):
            held = lease(1, thread=f"o/{thread_id}")
            saver = checkpoints.saver("o", lease=held, journal=Journal(task=b"{}"))
            put = await saver.aput(config(thread_id), checkpoint(1), {}, {})
            await saver.aput_writes(put, [("log", 1)], "task")
        await checkpoints.delete_thread("o/t")
        reader = checkpoints.saver("o")
        assert await reader.aget_tuple(config()) is None
        assert await checkpoints.node_events("o/run", "o/t") == []
        other = await reader.aget_tuple(config("other"))
        assert other is not None
        assert other.pending_writes == [("task", "log", 1)]
        assert len(await checkpoints.node_events("o/run", "o/other")) == 1

    opened(scenario)


def test_a_copied_thread_goes_on_by_itself(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        graph = with_checkpoints(steps, checkpoints.saver("o"))
        await graph.ainvoke({"log": ["original"]}, config(), interrupt_after=["one"])
        await checkpoints.copy_thread("o/t", "o/copy")
        await graph.ainvoke(None, config("copy"))
        assert (await graph.aget_state(config())).values["log"] == ["original", "one"]
        assert (await graph.aget_state(config("copy"))).values["log"] == ["original", "one", "two", "three"]

    opened(scenario)


def test_a_graph_in_a_thread_of_its_own_uses_the_same_checkpoints(opened: Any) -> None:
    def double(state: Steps) -> Steps:
        return {"log": ["again"]}

    async def scenario(checkpoints: Checkpoints) -> None:
        builder = StateGraph(Steps).add_node("double", double).add_edge(START, "double")
        graph = with_checkpoints(builder.compile(), checkpoints.saver("o"))
        await asyncio.to_thread(graph.invoke, {"log": ["sync"]}, config())
        in_thread = await asyncio.to_thread(graph.get_state, config())
        history = await asyncio.to_thread(lambda: list(graph.get_state_history(config())))
        assert in_thread.values["log"] == (await graph.aget_state(config())).values["log"] == ["sync", "again"]
        assert len(history) == 3

    opened(scenario)


def test_a_sync_call_in_the_loops_own_thread_is_refused_since_it_would_wait_for_itself(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        graph = with_checkpoints(steps, checkpoints.saver("o"))
        with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
            graph.invoke({"log": []}, config())
        with pytest.raises(asyncio.InvalidStateError):
            graph.get_state(config())

    opened(scenario)


def test_attaching_checkpoints_leaves_the_graph_as_it_was(opened: Any) -> None:
    async def scenario(checkpoints: Checkpoints) -> None:
        before = (steps.checkpointer, steps._serde_allowlist)
        attached = with_checkpoints(steps, checkpoints.saver("o"))
        assert (steps.checkpointer, steps._serde_allowlist) == before
        assert attached is not steps

    opened(scenario)


# -- types ------------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int


@dataclasses.dataclass
class Box:
    points: list[Point]


class Typed(TypedDict, total=False):
    colour: Colour
    point: Point
    box: Box
    seen: Annotated[list[str], lambda old, new: [*old, *new]]


async def make(state: Typed) -> Typed:
    return {"colour": Colour.RED, "point": Point(x=1), "box": Box([Point(x=2)])}


async def see(state: Typed) -> Typed:
    box = state["box"]
    return {"seen": [type(value).__name__ for value in (state["colour"], state["point"], box, box.points[0])]}


def test_the_types_of_a_state_survive_a_pause_and_a_restart(tmp_path: Path) -> None:
    builder = StateGraph(Typed).add_node("make", make).add_node("see", see)
    graph = builder.add_edge(START, "make").add_edge("make", "see").compile()
    path = tmp_path / "checkpoints.sqlite"

    async def first() -> None:
        async with file_checkpoints(path) as checkpoints:
            await with_checkpoints(graph, checkpoints.saver("o")).ainvoke({}, config(), interrupt_after=["make"])

    async def second() -> Any:
        async with file_checkpoints(path) as checkpoints:
            return await with_checkpoints(graph, checkpoints.saver("o")).ainvoke(None, config())

    play(first)
    assert play(second)["seen"] == ["Colour", "Point", "Box", "Point"]


def test_a_crafted_checkpoint_runs_no_code_when_it_is_read(tmp_path: Path) -> None:
    path, made = tmp_path / "checkpoints.sqlite", tmp_path / "made-by-a-checkpoint"
    call = ormsgpack.packb(("os", "mkdir", str(made)))
    crafted = ormsgpack.packb({"plain": ormsgpack.Ext(0, call)})  # EXT_CONSTRUCTOR_SINGLE_ARG: calls os.mkdir(made)

    async def scenario() -> None:
        async with file_checkpoints(path) as checkpoints:
            graph = with_checkpoints(steps, checkpoints.saver("o"))
            await graph.ainvoke({"log": []}, config(), interrupt_after=["one"])
            connection = sqlite3.connect(path)
            connection.execute("UPDATE writes SET type = 'msgpack', value = ?", (crafted,))
            connection.commit()
            connection.close()
            [item async for item in checkpoints.saver("o").alist(config())]

    play(scenario)
    assert not os.path.exists(made)


def test_reading_goes_on_while_a_write_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"

    class Held:
        """A writer that commits only when it is let."""

        def __init__(self, writer: SqliteWriter) -> None:
            self._writer = writer
            self.let = asyncio.Event()

        async def submit(self, operation: Callable[[sqlite3.Connection], T]) -> T:
            await self.let.wait()
            return await self._writer.submit(operation)

        async def reclaim(self) -> bool:
            return await self._writer.reclaim()

        async def aclose(self) -> None:
            await self._writer.aclose()

    async def scenario() -> None:
        writer = Held(await SqliteWriter.open(path, setup=set_up))
        backend: Backend = FileBackend(path, writer)
        checkpoints = Checkpoints(backend)
        saver = checkpoints.saver("o")
        saving = asyncio.ensure_future(saver.aput(config(), checkpoint(1), {}, {}))  # noqa: TID251
        await asyncio.sleep(0)
        assert await saver.aget_tuple(config()) is None
        writer.let.set()
        await saving
        assert await saver.aget_tuple(config()) is not None
        await checkpoints.aclose()

    play(scenario)


def test_writes_of_one_checkpoint_are_handed_over_in_the_order_in_which_they_came() -> None:
    async def scenario() -> list[str]:
        saved, handed, place = SavedCheckpoints(), list[str](), config(checkpoint_id="1")

        async def hand_over(name: str) -> None:
            with saved.writing(place):
                async with saved.order(place):
                    await saved.wait(place)
                    handed.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(hand_over("first"))
            await asyncio.sleep(0)
            group.create_task(hand_over("second"))  # it need not wait any more when it begins, and must all the same
            saved.add(place)
        return handed

    assert play(scenario) == ["first", "second"]
