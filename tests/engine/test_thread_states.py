"""States of threads through real graphs, over both kinds of checkpoints."""

import asyncio
import json
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from app.engine.checkpoints import Checkpoints, FileBackend, MemoryBackend, set_up
from app.engine.engine import GraphEngine
from app.engine.execution import ExecutionLimits
from app.engine.registry import Registry
from app.engine.state import Graph
from app.engine.thread_states import HISTORY_PAGE, GraphThreadStates
from app.errors import CheckpointNotFound, Invalid, LeaseLost
from app.runs.model import Lease, Thread
from app.runs.threads import Edit, HistoryQuery, Place, Update
from app.storage.writer import SqliteWriter

LIMITS = ExecutionLimits(max_recursion_limit=100, max_frame_bytes=1_000_000, expose_errors=False)


def add_number(total: int, number: Any) -> int:
    if not isinstance(number, int):
        raise ValueError(f"secret {number}")
    return total + number


class Sum(TypedDict, total=False):
    total: Annotated[int, add_number]
    notes: Annotated[list[str], operator.add]
    answer: Any


def count(state: Sum) -> dict[str, Any]:
    return {"total": 1, "notes": ["counted"]}


def ask(state: Sum) -> dict[str, Any]:
    return {"answer": interrupt("How many?")}


def add(state: Sum) -> dict[str, Any]:
    return {"total": 10, "notes": ["added"]}


builder = StateGraph(Sum)
builder.add_node("count", count)
builder.add_node("ask", ask)
builder.add_node("add", add)
builder.add_edge(START, "count")
builder.add_edge("count", "ask")
builder.add_edge("ask", "add")
builder.add_edge("add", END)
sums = builder.compile()

outer_builder = StateGraph(Sum)
outer_builder.add_node("inner", sums)
outer_builder.add_edge(START, "inner")
outer = outer_builder.compile()


def joined(value: list[str], writes: Any) -> list[str]:
    return [*value, *(item for write in writes for item in write)]


class Lines(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(joined, snapshot_frequency=5)]


deltas = StateGraph(Lines).add_node("add", lambda state: {"lines": ["ran"]}).add_edge(START, "add").compile()

openings: list[str] = []


def made() -> Graph:
    openings.append("made")
    return sums


class World:
    """A registry, checkpoints and what reads them."""

    def __init__(self, registry: Registry, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.engine = GraphEngine(registry, checkpoints, LIMITS)
        self.states = GraphThreadStates(self.engine, checkpoints)

    async def run(self, thread: Thread, given: Any) -> None:
        async with self.engine.graph_of(thread.owner, str(thread.graph)) as graph:
            await graph.ainvoke(given, {"configurable": {"thread_id": thread.thread_id}})

    async def state(self, thread: Thread, at: Place | None = None, *, subgraphs: bool = False) -> dict[str, Any]:
        return dict(await self.states.state(thread, at or Place(), subgraphs=subgraphs))

    async def rows(self) -> list[Any]:
        """Everything that is saved, to compare."""

        def read(connection: Any) -> list[Any]:
            tables = ("checkpoints", "writes")
            return [sorted(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]

        return await self.checkpoints._backend.read(read)


Story = Callable[[World], Awaitable[None]]


def thread_of(graph: str | None = "sums", *, thread_id: str = "t", owner: str = "ada", version: int = 1) -> Thread:
    now = datetime.now(UTC)
    return Thread(
        owner=owner,
        thread_id=thread_id,
        graph=graph,
        status="idle",
        metadata={},
        version=version,
        created_at=now,
        updated_at=now,
    )


def edit(*updates: Update, at: Place | None = None) -> Edit:
    return Edit(supersteps=[[update] for update in updates], at=at or Place())


@pytest.fixture(params=["memory", "file"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    graphs = {name: f"{__name__}:{name}" for name in ("sums", "outer", "deltas", "made")}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": graphs}))
    registry = Registry.load(tmp_path / "langgraph.json")
    assert not registry.problems

    @asynccontextmanager
    async def opened() -> AsyncIterator[Checkpoints]:
        path = tmp_path / "checkpoints.sqlite"
        backend = (
            MemoryBackend()
            if request.param == "memory"
            else FileBackend(path, await SqliteWriter.open(path, setup=set_up))
        )
        checkpoints = Checkpoints(backend)
        try:
            yield checkpoints
        finally:
            await checkpoints.aclose()

    async def told(story: Story) -> None:
        async with opened() as checkpoints, asyncio.timeout(30):
            await story(World(registry, checkpoints))

    return lambda story: asyncio.run(told(story))


Play = Callable[[Story], None]


def test_a_thread_that_never_ran_has_an_empty_state_and_no_history(play: Play) -> None:
    async def story(world: World) -> None:
        for thread in (thread_of(None), thread_of("sums")):
            state = await world.state(thread)
            assert state["values"] == {}
            assert state["next"] == state["tasks"] == state["interrupts"] == []
            assert state["metadata"] == {}
            assert state["created_at"] is None
            assert state["parent_checkpoint"] is None
            assert state["checkpoint"]["thread_id"] == "t"
            assert state["checkpoint"]["checkpoint_id"] is None
            assert await world.states.history(thread, HistoryQuery()) == []
            assert await world.states.heads([thread]) == {}

    play(story)


def test_heads_give_values_and_interrupts_of_each_thread_by_its_own_graph(play: Play) -> None:
    async def story(world: World) -> None:
        first, second = thread_of("sums", thread_id="one"), thread_of("outer", thread_id="two")
        await world.run(first, {"total": 1})
        await world.run(second, {"total": 2})
        heads = await world.states.heads([second, first, thread_of(None, thread_id="three")])
        assert set(heads) == {"one", "two"}
        assert (heads["one"].values["total"], heads["two"].values["total"]) == (2, 2)
        for head in heads.values():
            ((asked,),) = head.interrupts.values()
            assert asked["value"] == "How many?"

    play(story)


def test_heads_of_many_threads_open_each_graph_once(play: Play) -> None:
    async def story(world: World) -> None:
        threads = [thread_of(graph, thread_id=f"{graph}{n}") for n in range(3) for graph in ("made", "sums")]
        for thread in threads:
            await world.run(thread, {"total": 1})
        openings.clear()
        assert len(await world.states.heads(threads)) == len(threads)
        assert openings == ["made"]

    play(story)


def test_heads_leave_out_threads_whose_graph_is_gone(play: Play) -> None:
    async def story(world: World) -> None:
        kept, orphan = thread_of("sums", thread_id="kept"), thread_of("gone", thread_id="orphan")
        await world.run(kept, {"total": 1})
        assert set(await world.states.heads([orphan, kept])) == {"kept"}

    play(story)


def test_another_owners_thread_of_the_same_name_is_another_thread(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        checkpoint_id = (await world.state(thread_of()))["checkpoint_id"]
        assert (await world.state(thread_of(owner="eve")))["values"] == {}
        with pytest.raises(CheckpointNotFound):
            await world.state(thread_of(owner="eve"), Place(id=checkpoint_id))

    play(story)


def test_a_refused_edit_leaves_every_row_as_it_was(play: Play) -> None:
    """LangGraph saves an update's writes before its reducers have taken them."""

    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        before = await world.rows()
        for as_node in ("ask", "count", None):
            with pytest.raises(Invalid) as caught:
                await world.states.edit(thread_of(), "sums", edit(Update(values={"total": "x"}, as_node=as_node)))
            assert "secret" not in str(caught.value)
        assert await world.rows() == before
        assert (await world.state(thread_of()))["next"] == ["ask"]

    play(story)


def test_a_later_superstep_that_is_refused_takes_the_earlier_ones_back(play: Play) -> None:
    async def story(world: World) -> None:
        steps = edit(
            Update(values={"total": 5}, as_node="__input__"),
            Update(values={"total": 5}, as_node="count"),
            Update(values={"total": "x"}, as_node="ask"),
        )
        with pytest.raises(Invalid):
            await world.states.edit(thread_of(), "sums", steps)
        assert await world.rows() == [[], []]

    play(story)


def test_supersteps_are_applied_to_what_the_ones_before_made(play: Play) -> None:
    async def story(world: World) -> None:
        steps = edit(
            Update(values={"total": 9}, as_node="__input__"),
            Update(values={"total": 5, "notes": ["a"]}, as_node="__start__"),
            Update(values={"total": 5, "notes": ["b"]}, as_node="count"),
            Update(values={"notes": ["c"]}, as_node="ask"),
        )
        edited = await world.states.edit(thread_of(), "sums", steps)
        state = await world.state(thread_of())
        assert state["values"] == {"total": 10, "notes": ["a", "b", "c"]}
        assert state["next"] == ["add"]
        assert state["checkpoint_id"] == edited.checkpoint["checkpoint_id"]
        assert edited.is_open
        assert not edited.is_asked
        history = await world.states.history(thread_of(), HistoryQuery())
        assert [len(s["values"]["notes"]) for s in history] == [3, 2, 1, 0]
        assert [s["tasks"][0]["result"] for s in history[1:3]] == [{"notes": ["c"]}, {"total": 5, "notes": ["b"]}]

    play(story)


def test_supersteps_build_on_writes_that_langgraph_replays(play: Play) -> None:
    """A delta channel's value is not in its checkpoint but made of the writes of the ones before."""

    async def story(world: World) -> None:
        thread = thread_of("deltas")
        await world.run(thread, {"lines": ["a"]})
        await world.states.edit(thread, "deltas", edit(Update(values={"lines": ["b"]}, as_node="add")))
        steps = edit(*(Update(values={"lines": [line]}, as_node="add") for line in "cde"))
        await world.states.edit(thread, "deltas", steps)
        assert (await world.state(thread))["values"]["lines"] == ["a", "ran", "b", "c", "d", "e"]
        history = await world.states.history(thread, HistoryQuery(limit=3))
        assert [len(state["values"]["lines"]) for state in history] == [6, 5, 4]

    play(story)


def test_an_edit_of_a_thread_at_a_question_says_that_it_will_be_asked_again(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        edited = await world.states.edit(thread_of(), "sums", edit(Update(values={"total": 100})))
        assert (edited.is_open, edited.is_asked) == (True, True)
        passed = await world.states.edit(thread_of(), "sums", edit(Update(values={"answer": 1}, as_node="ask")))
        assert (passed.is_open, passed.is_asked) == (True, False)
        ended = await world.states.edit(thread_of(), "sums", edit(Update(as_node="add", values={})))
        assert (ended.is_open, ended.is_asked) == (False, False)
        assert (await world.state(thread_of()))["values"]["total"] == 102

    play(story)


def test_end_and_copy_are_nodes_to_edit_as(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        await world.states.edit(thread_of(), "sums", edit(Update(as_node="__copy__")))
        assert (await world.state(thread_of()))["metadata"]["source"] == "fork"
        assert (await world.state(thread_of()))["next"] == ["ask"]
        ended = await world.states.edit(thread_of(), "sums", edit(Update(as_node="__end__")))
        assert not ended.is_open
        assert (await world.state(thread_of()))["values"]["total"] == 2

    play(story)


def test_an_edit_at_an_older_checkpoint_makes_a_branch_from_there(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        history = await world.states.history(thread_of(), HistoryQuery())
        start = next(state for state in history if state["next"] == ["count"])
        at = Place(id=start["checkpoint_id"])
        edited = await world.states.edit(thread_of(), "sums", edit(Update(values={"total": 5}), at=at))
        state = await world.state(thread_of())
        assert state["values"]["total"] == 6
        assert state["parent_checkpoint"]["checkpoint_id"] == at.id
        assert not edited.is_asked

    play(story)


def test_an_edit_at_a_checkpoint_that_is_not_there_is_refused(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        before = await world.rows()
        for at in (Place(id="1ef00000-0000-6000-8000-000000000000"), Place(ns="nowhere:1")):
            with pytest.raises(CheckpointNotFound):
                await world.states.edit(thread_of(), "sums", edit(Update(values={"total": 5}), at=at))
        assert await world.rows() == before

    play(story)


def test_the_state_of_a_subgraph_is_read_and_edited_by_its_namespace(play: Play) -> None:
    async def story(world: World) -> None:
        thread = thread_of("outer")
        await world.run(thread, {"total": 1})
        state = await world.state(thread)
        task = state["tasks"][0]
        assert task["state"] is None
        at = Place(ns=task["checkpoint"]["checkpoint_ns"])
        assert (await world.state(thread, at))["next"] == ["ask"]
        nested = (await world.state(thread, subgraphs=True))["tasks"][0]["state"]
        assert nested["values"]["total"] == 2
        edited = await world.states.edit(thread, "outer", edit(Update(values={"total": 40}), at=at))
        assert edited.is_open
        assert edited.checkpoint["checkpoint_ns"] == at.ns
        assert (await world.state(thread, at))["values"]["total"] == 42
        inner = await world.states.history(thread, HistoryQuery(ns=at.ns))
        assert [s["values"].get("total") for s in inner][:2] == [42, 2]

    play(story)


def test_a_long_history_is_whole_and_in_order(play: Play) -> None:
    async def story(world: World) -> None:
        number = HISTORY_PAGE * 2 + 5
        for _ in range(number):
            await world.states.edit(thread_of(), "sums", edit(Update(values={"total": 1}, as_node="add")))
        totals = list(range(number, 0, -1))
        history = await world.states.history(thread_of(), HistoryQuery(limit=1000))
        assert [state["values"]["total"] for state in history] == totals
        some = await world.states.history(thread_of(), HistoryQuery(limit=HISTORY_PAGE + 1))
        assert [state["values"]["total"] for state in some] == totals[: HISTORY_PAGE + 1]
        older = await world.states.history(thread_of(), HistoryQuery(before=history[3]["checkpoint_id"], limit=2))
        assert [state["values"]["total"] for state in older] == totals[4:6]

    play(story)


def test_history_is_filtered_by_metadata(play: Play) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        inputs = await world.states.history(thread_of(), HistoryQuery(metadata={"source": "input"}))
        assert [state["metadata"]["step"] for state in inputs] == [-1]
        first = await world.states.history(thread_of(), HistoryQuery(metadata={"source": "loop", "step": 1}))
        assert [state["next"] for state in first] == [["ask"]]

    play(story)


@pytest.mark.parametrize("metadata", [{"a'b": 1}, {"": 1}, {"a..b": 1}, {"a": 2**63}])
def test_a_filter_that_the_database_can_not_look_for_is_refused(play: Play, metadata: dict[str, Any]) -> None:
    async def story(world: World) -> None:
        with pytest.raises(Invalid):
            await world.states.history(thread_of(), HistoryQuery(metadata=metadata))

    play(story)


@pytest.mark.parametrize(
    ("update", "place"),
    [
        (Update(values={"total": 1}, as_node="nobody"), "as_node"),
        (Update(values=["not", "an", "object"], as_node="add"), "values"),
        (Update(values="text", as_node="add"), "values"),
        (Update(values=None, as_node="__input__"), "values"),
        (Update(command={"goto": "nobody"}, as_node="ask"), "command"),
        (Update(command={"goto": 7}, as_node="ask"), "command"),
    ],
)
def test_an_update_that_the_graph_does_not_take_is_refused(play: Play, update: Update, place: str) -> None:
    async def story(world: World) -> None:
        await world.run(thread_of(), {"total": 1})
        with pytest.raises(Invalid) as caught:
            await world.states.edit(thread_of(), "sums", edit(update))
        assert caught.value.fields["errors"][0]["loc"][1] == place

    play(story)


def test_an_update_that_could_be_from_several_nodes_must_name_one(play: Play) -> None:
    async def story(world: World) -> None:
        both = Edit(supersteps=[[Update(values={"total": 1}), Update(values={"total": 1}, as_node="add")]])
        with pytest.raises(Invalid) as caught:
            await world.states.edit(thread_of(), "sums", both)
        assert caught.value.fields["errors"][0]["loc"] == ["body", "as_node"]

    play(story)


def test_a_command_updates_the_state_and_jumps(play: Play) -> None:
    async def story(world: World) -> None:
        command = {"update": {"total": 7}, "goto": "add"}
        await world.states.edit(thread_of(), "sums", edit(Update(command=command, as_node="count")))
        state = await world.state(thread_of())
        assert state["values"]["total"] == 7
        assert "add" in state["next"]

    play(story)


def test_after_an_edit_a_run_that_was_before_it_can_write_nothing_more(play: Play) -> None:
    """A node that was stopped but does not stop must not write over what a human has changed."""

    async def story(world: World) -> None:
        thread = thread_of(version=4)
        await world.run(thread, {"total": 1})
        await world.states.edit(thread, "sums", edit(Update(values={"total": 5})))
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "c"}}
        with pytest.raises(LeaseLost):
            await world.checkpoints.saver("ada", lease=lease(4)).aput_writes(config, [("total", 1)], "task")
        await world.checkpoints.saver("ada", lease=lease(6)).aput_writes(config, [("total", 1)], "task")

    def lease(version: int) -> Lease:
        return Lease(run_key="ada/r", thread_key="ada/t", worker="w", epoch=1, attempt=1, version=version)

    play(story)


def test_a_copy_goes_on_by_itself_and_a_deleted_thread_is_gone(play: Play) -> None:
    async def story(world: World) -> None:
        source, copied = thread_of(), thread_of(thread_id="copy")
        await world.run(source, {"total": 1})
        await world.states.copy(source.key, copied.key)
        assert len(await world.states.history(copied, HistoryQuery())) == 3
        await world.states.edit(copied, "sums", edit(Update(values={"total": 100})))
        assert (await world.state(source))["values"]["total"] == 2
        await world.states.delete(source.key)
        assert (await world.state(source))["created_at"] is None
        assert (await world.state(copied))["values"]["total"] == 102

    play(story)


def test_the_graph_given_is_not_changed_by_an_edit(play: Play) -> None:
    async def story(world: World) -> None:
        await world.states.edit(thread_of(), "sums", edit(Update(values={"total": 1})))
        graph: Graph = sums
        assert graph.checkpointer is None

    play(story)
