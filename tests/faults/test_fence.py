"""A process that was only asleep, and wakes after another one took its run over, can write nothing any more."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from app.errors import LeaseLost
from app.runs.event import NewEvent
from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.model import Admission, Run
from app.runs.service import RunService
from app.runs.store import Store
from app.storage.memory import MemoryStore
from app.storage.sqlite import SqliteStore
from tests.conformance.harness import ManualClock
from tests.engine.attempt import Bench, asked, bench, play
from tests.faults.graphs import State

LEASE_SECONDS = 30.0
RUN_ID = "00000000-0000-0000-0000-000000000001"


@dataclass
class Sleeper:
    """A node that waits in each attempt until that attempt is woken, and then may show something before it ends."""

    shows: bool = True
    began: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    woken: dict[int, asyncio.Event] = field(default_factory=dict)

    async def __call__(self, state: State) -> State:
        number = len(self.began) + 1
        self.began.append(f"attempt {number}")
        self.arrived.set()
        await self.woken.setdefault(number, asyncio.Event()).wait()
        if self.shows:
            get_stream_writer()({"attempt": number})
        return {"log": [f"attempt {number}"]}

    def wake(self, attempt: int) -> None:
        self.woken.setdefault(attempt, asyncio.Event()).set()

    async def asleep(self, attempt: int) -> None:
        async with asyncio.timeout(10):
            while len(self.began) < attempt:
                self.arrived.clear()
                await self.arrived.wait()


class Process:
    """What a process has of its own, where the store and the checkpoints are shared."""

    def __init__(self, name: str, store: Store, bench: Bench) -> None:
        limits = ExecutorLimits(disconnect_grace_seconds=1000.0, stop_seconds=5.0)
        self.executor = RunExecutor(store, bench.engine, limits, durable=True)
        self.runs = RunService(store, bench.engine, self.executor, worker=name, admission=Admission(max_active=10))


@dataclass
class World:
    bench: Bench
    store: Store
    clock: ManualClock
    sleeper: Sleeper
    first: Process
    second: Process

    async def taken_over(self) -> Run:
        """A run that the first process sleeps over, and the second one has taken up."""
        request = asked({"log": ["in"]}, thread_id="t", run_id=RUN_ID, on_disconnect="continue")
        run = (await self.first.runs.start(request)).run
        await self.sleeper.asleep(1)
        self.clock.advance(LEASE_SECONDS + 1)
        await self.second.runs.take_up()
        await self.sleeper.asleep(2)
        return run

    async def frames(self, run: Run) -> list[dict[str, Any]]:
        page = await self.store.read(run.key, after=0)
        return [json.loads(event.text) for event in page.events]

    async def log(self) -> list[str]:
        return list((await self.bench.state()).values["log"])


def graph(sleeper: Sleeper) -> Any:
    async def after(state: State) -> State:
        return {"log": ["after"]}

    builder = StateGraph(State).add_node("sleeper", sleeper.__call__).add_node("after", after)
    return builder.add_edge(START, "sleeper").add_edge("sleeper", "after").add_edge("after", END).compile()


@asynccontextmanager
async def opened_in_memory(folder: Path) -> AsyncIterator[World]:
    clock, sleeper = ManualClock(), Sleeper()
    store = MemoryStore(lease_seconds=LEASE_SECONDS, clock=clock)
    async with bench(graph(sleeper)) as engine:
        yield World(engine, store, clock, sleeper, Process("first", store, engine), Process("second", store, engine))
    await store.aclose()


@asynccontextmanager
async def opened_on_disk(folder: Path) -> AsyncIterator[World]:
    clock, sleeper = ManualClock(), Sleeper()
    store = await SqliteStore.open(folder / "data", lease_seconds=LEASE_SECONDS, clock=clock)
    async with bench(graph(sleeper), path=folder / "checkpoints.sqlite") as engine:
        yield World(engine, store, clock, sleeper, Process("first", store, engine), Process("second", store, engine))
    await store.aclose()


@pytest.fixture(params=[opened_in_memory, opened_on_disk], ids=["memory", "sqlite"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], None]:
    def run(scenario: Any) -> None:
        async def inside() -> None:
            async with request.param(tmp_path) as world:
                await scenario(world)

        play(inside)

    return run


@pytest.mark.parametrize("shows", [True, False])
def test_who_wakes_too_late_writes_neither_events_nor_checkpoints(scene: Callable[[Any], None], shows: bool) -> None:
    async def scenario(world: World) -> None:
        world.sleeper.shows = shows
        run = await world.taken_over()
        world.sleeper.wake(1)
        await world.first.executor.join(run.key)
        assert [frame["event"] for frame in await world.frames(run)] == ["start", "restart"]
        assert await world.log() == ["in"]
        world.sleeper.wake(2)
        await world.second.executor.join(run.key)
        frames = await world.frames(run)
        shown = [frame["data"]["attempt"] for frame in frames if frame["event"] == "custom"]
        assert shown == ([2] if shows else [])
        kinds = [frame["event"] for frame in frames if frame["event"] != "custom"]
        assert kinds == ["start", "restart", "node", "node", "complete"]
        assert await world.log() == ["in", "attempt 2", "after"]

    scene(scenario)


def test_who_wakes_when_all_is_over_changes_nothing(scene: Callable[[Any], None]) -> None:
    async def scenario(world: World) -> None:
        run = await world.taken_over()
        world.sleeper.wake(2)
        await world.second.executor.join(run.key)
        whole, state, row = await world.frames(run), await world.log(), await world.store.get_run(run.key)
        world.sleeper.wake(1)
        await world.first.executor.join(run.key)
        assert (await world.frames(run), await world.log()) == (whole, state)
        assert await world.store.get_run(run.key) == row
        assert world.first.executor.active_count == 0

    scene(scenario)


def test_a_run_that_was_taken_over_can_only_be_stopped_where_it_is_now(scene: Callable[[Any], None]) -> None:
    async def scenario(world: World) -> None:
        run = await world.taken_over()
        assert world.first.executor.cancel(run.key, "user")
        await world.first.executor.join(run.key)
        found = await world.store.get_run(run.key)
        assert found is not None
        assert found.status == "running"
        assert world.second.executor.cancel(run.key, "user")
        await world.second.executor.join(run.key)
        assert [frame["event"] for frame in await world.frames(run)] == ["start", "restart", "cancelled"]

    scene(scenario)


def test_a_lease_ends_with_the_claim_and_not_with_the_clock(scene: Callable[[Any], None]) -> None:
    async def scenario(world: World) -> None:
        request = asked({"log": ["in"]}, thread_id="t", run_id=RUN_ID, on_disconnect="continue")
        run = (await world.first.runs.start(request)).run
        await world.sleeper.asleep(1)
        world.clock.advance(LEASE_SECONDS + 1)
        world.sleeper.wake(1)
        await world.first.executor.join(run.key)
        assert [frame["event"] for frame in await world.frames(run)][-1] == "complete"
        await world.second.runs.take_up()
        assert world.second.executor.active_count == 0

    scene(scenario)


def test_of_two_that_claim_at_once_one_gets_the_run(scene: Callable[[Any], None]) -> None:
    async def scenario(world: World) -> None:
        request = asked({"log": ["in"]}, thread_id="t", run_id=RUN_ID, on_disconnect="continue")
        run = (await world.first.runs.start(request)).run
        await world.sleeper.asleep(1)
        world.clock.advance(LEASE_SECONDS + 1)
        leases = await asyncio.gather(*(world.store.claim(run.key, name) for name in ("second", "third")))
        won = [lease for lease in leases if lease is not None]
        assert [lease.epoch for lease in won] == [2]
        await world.store.append(won[0], [NewEvent("custom", b'{"event":"custom"}')])
        world.sleeper.wake(1)
        await world.first.executor.join(run.key)
        assert [frame["event"] for frame in await world.frames(run)] == ["start", "custom"]
        await world.store.abandon(won[0])
        with pytest.raises(LeaseLost):
            await world.store.append(won[0], [NewEvent("custom", b'{"event":"custom"}')])

    scene(scenario)
