"""RunService and RunExecutor on a real store, with an engine that does what a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.errors import IdempotencyConflict, NothingToContinue, RunNotFound, ShuttingDown
from app.runs.engine import Finished, Stopped
from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.model import Admission, Run
from app.runs.request import NewInput, RunRequest
from app.runs.service import RunService
from app.runs.turn import MAX_CHECKS
from app.storage.memory import MemoryStore
from tests.runs.scripted import ScriptedEngine, Work, at_once, failed, for_ever, no_wait

WAIT_SECONDS = 10.0


class Bench:
    """A service, its engine and its store."""

    def __init__(self, work: Work, limits: ExecutorLimits) -> None:
        self.store = MemoryStore()
        self.engine = ScriptedEngine(work)
        self.executor = RunExecutor(self.store, self.engine, limits, durable=True)
        self.service = RunService(
            self.store, self.engine, self.executor, worker="w", admission=Admission(max_active=10)
        )

    async def start(self, thread_id: str = "t", **fields: object) -> Run:
        request = RunRequest(owner="", action=NewInput(value={}), fingerprint="f", thread_id=thread_id, **fields)  # type: ignore[arg-type]
        return (await self.service.start(request)).run

    async def last(self, run: Run) -> bytes:
        """The text of the last event of a run that has ended."""
        return (await self.store.read(run.key, after=0)).events[-1].text

    async def kinds(self, run: Run) -> list[str]:
        """The events of a run, read to its end."""
        async with asyncio.timeout(WAIT_SECONDS):
            return [event.kind async for piece in self.service.follow(run, after=0) for event in piece.events]


@asynccontextmanager
async def bench(work: Work, **limits: Any) -> AsyncIterator[Bench]:
    opened = Bench(work, ExecutorLimits(**{"disconnect_grace_seconds": 60.0, "shutdown_grace_seconds": 0.0, **limits}))
    try:
        yield opened
    finally:
        await opened.service.drain()
        await opened.store.aclose()


def test_a_run_ends_with_one_terminal_event_and_its_thread_is_free_by_then() -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            run = await it.start()
            assert await it.kinds(run) == ["start", "custom", "complete"]
            thread = await it.store.get_thread(run.thread_key)
            assert thread is not None
            assert thread.status == "idle"

    asyncio.run(scenario())


def test_the_first_reason_for_stopping_stays() -> None:
    async def scenario() -> None:
        async with bench(for_ever) as it:
            run = await it.start()
            it.executor.cancel(run.key, "superseded")
            await it.service.cancel("", run.run_id, wait=True)
            assert it.engine.executions[0].causes == [Stopped(reason="superseded")]

    asyncio.run(scenario())


def test_a_run_cancelled_before_its_first_step_still_ends() -> None:
    async def scenario() -> None:
        async with bench(for_ever) as it:
            run = await it.start()
            ended = await it.service.cancel("", run.run_id, wait=True)
            assert ended.status == "cancelled"
            assert await it.kinds(run) == ["start", "cancelled"]

    asyncio.run(scenario())


def test_work_that_swallows_its_cancel_and_finishes_has_finished() -> None:
    began = asyncio.Event()

    async def stubborn(put: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def scenario() -> None:
        async with bench(stubborn) as it:
            run = await it.start()
            await began.wait()
            await it.service.cancel("", run.run_id, wait=True)
            assert it.engine.executions[0].causes == [Finished()]

    asyncio.run(scenario())


def test_work_that_does_not_stop_is_left_behind_and_its_run_ends() -> None:
    released = asyncio.Event()

    async def deaf(put: object) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async def scenario() -> None:
        async with bench(deaf, stop_seconds=0.05) as it:
            run = await it.start()
            ended = await it.service.cancel("", run.run_id, wait=True)
            assert ended.status == "cancelled"
            released.set()

    asyncio.run(scenario())


def test_a_run_that_nobody_looks_on_is_cancelled_after_the_grace_and_not_before() -> None:
    async def scenario() -> None:
        async with bench(for_ever, disconnect_grace_seconds=0.05) as it:
            run = await it.start()
            assert await it.store.get_run(run.key) is not None
            with it.service.attach(run):
                other = await it.start("other")
                await it.executor.join(other.key)  # its grace is over, and this run's would be
                assert not it.engine.executions[0].causes
            await it.executor.join(run.key)
            assert it.engine.executions[0].causes == [Stopped(reason="disconnect")]

    asyncio.run(scenario())


def test_a_run_that_takes_too_long_or_is_silent_for_too_long_is_stopped() -> None:
    async def scenario() -> None:
        async with bench(for_ever, max_timeout_seconds=60.0, idle_timeout_seconds=0.05) as it:
            silent = await it.start("silent")
            await it.executor.join(silent.key)
            slow = await it.start("slow", timeout_seconds=0.01)
            await it.executor.join(slow.key)
            causes = [execution.causes[0] for execution in it.engine.executions]
            assert causes == [Stopped(reason="idle_timeout"), Stopped(reason="timeout")]

    asyncio.run(scenario())


def test_a_run_whose_end_cannot_be_read_ends_with_an_error() -> None:
    began = asyncio.Event()

    async def work(put: object) -> None:
        began.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with bench(work) as it:
            run = await it.start()
            await began.wait()
            it.engine.executions[0].conclusion_error = OSError("the disk is gone")
            await it.service.cancel("", run.run_id, wait=True)
            assert await it.kinds(run) == ["start", "error"]
            assert await it.last(run) == (
                b'{"event":"error","error":"The run ended, but its result could not be read.","code":"graph_error",'
                b'"node":null,"run_id":"%b","retryable":true,"usage":null,"seq":2}' % run.run_id.encode()
            )
            ended = await it.service.get("", run.run_id)
            assert (ended.status, ended.error and ended.error.code) == ("error", "graph_error")

    asyncio.run(scenario())


def test_a_run_that_cannot_begin_at_its_turn_ends_with_the_error_that_its_request_would_have_had() -> None:
    async def refuse() -> None:
        raise NothingToContinue

    async def scenario() -> None:
        async with bench(for_ever) as it:
            first = await it.start()
            waiting = await it.start(multitask_strategy="enqueue")
            it.engine.planning = refuse
            await it.service.cancel("", first.run_id, wait=True)
            assert await it.kinds(waiting) == ["start", "error"]
            assert await it.last(waiting) == (
                b'{"event":"error","error":"The thread is neither paused nor failed, so there is nothing to continue.",'
                b'"code":"nothing_to_continue","node":null,"run_id":"%b","retryable":false,"usage":null,"seq":2}'
                % waiting.run_id.encode()
            )
            ended = await it.service.get("", waiting.run_id)
            assert (ended.status, ended.error and ended.error.code) == ("error", "nothing_to_continue")

    asyncio.run(scenario())


def test_work_that_cancels_itself_has_failed() -> None:
    async def suicidal(put: object) -> None:
        raise asyncio.CancelledError

    async def scenario() -> None:
        async with bench(suicidal) as it:
            run = await it.start()
            await it.executor.join(run.key)
            assert isinstance(failed(it.engine.executions[0].causes[0]), asyncio.CancelledError)

    asyncio.run(scenario())


def test_a_new_thread_that_was_made_meanwhile_is_looked_at_again() -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            held = asyncio.Event()
            planning = asyncio.Event()

            async def hold() -> None:
                planning.set()
                await held.wait()

            it.engine.planning = hold
            late = asyncio.get_running_loop().create_task(it.start())
            await planning.wait()
            assert it.engine.plans == [None]
            it.engine.planning = no_wait
            await it.kinds(await it.start())
            held.set()
            await it.kinds(await late)
            assert it.engine.plans[-1] is not None, "the late request was checked against the thread that is there now"

    asyncio.run(scenario())


@pytest.mark.parametrize("strategy", ["reject", "enqueue", "interrupt", "rollback"])
def test_a_start_on_a_thread_that_is_only_held_waits_for_the_end_of_the_hold(strategy: Any) -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            await it.kinds(await it.start())
            held = await it.store.hold("/t", "w")
            planned = asyncio.Event()

            async def plan() -> None:
                planned.set()

            it.engine.planning = plan
            late = asyncio.get_running_loop().create_task(it.start(multitask_strategy=strategy))
            for _ in range(MAX_CHECKS + 1):  # it is no change of the thread, which is looked at so often only
                planned.clear()
                await planned.wait()
            await it.store.release(held.key, "w", status=None)
            assert await it.kinds(await late) == ["start", "custom", "complete"]

    asyncio.run(scenario())


@pytest.mark.parametrize("strategy", ["enqueue", "interrupt", "rollback"])
def test_a_start_that_may_wait_is_checked_again_when_the_thread_has_changed_ever_so_often(strategy: Any) -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            await it.kinds(await it.start())
            edits = iter(range(MAX_CHECKS + 1))

            async def edit() -> None:
                if next(edits, None) is not None:
                    held = await it.store.hold("/t", "w")
                    await it.store.release(held.key, "w", status="idle")

            it.engine.planning = edit
            assert await it.kinds(await it.start(multitask_strategy=strategy)) == ["start", "custom", "complete"]

    asyncio.run(scenario())


def test_a_key_with_another_body_is_refused_and_the_same_one_finds_its_run() -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            run = await it.start(idempotency_key="k")
            assert await it.service.repeated("", run_id=None, key="k", fingerprint="f") is not None
            with pytest.raises(IdempotencyConflict):
                await it.service.repeated("", run_id=None, key="k", fingerprint="other")
            assert await it.service.repeated("somebody else", run_id=None, key="k", fingerprint="f") is None
            await it.kinds(run)

    asyncio.run(scenario())


def test_nothing_begins_once_the_process_is_about_to_stop() -> None:
    async def scenario() -> None:
        async with bench(at_once) as it:
            it.service.begin_drain()
            with pytest.raises(ShuttingDown):
                await it.start()
            with pytest.raises(RunNotFound):
                await it.service.get("", "nothing")

    asyncio.run(scenario())


def test_what_is_left_by_a_stop_is_taken_up_by_the_next_process() -> None:
    async def scenario() -> None:
        limits = ExecutorLimits(disconnect_grace_seconds=60.0, shutdown_grace_seconds=0.0)
        store = MemoryStore()
        before, after = ScriptedEngine(for_ever), ScriptedEngine(at_once)
        executor = RunExecutor(store, before, limits, durable=True)
        service = RunService(store, before, executor, worker="a", admission=Admission(max_active=10))
        request = RunRequest(owner="", action=NewInput(value={}), fingerprint="f", thread_id="t")
        run = (await service.start(request)).run
        await service.drain()
        assert not before.executions[0].causes, "a durable run that is given up has no end yet"
        executor = RunExecutor(store, after, limits, durable=True)
        service = RunService(store, after, executor, worker="b", admission=Admission(max_active=10))
        await service.take_up()
        await executor.join(run.key)
        ended = await service.get("", run.run_id)
        assert (ended.status, ended.attempt, ended.crashes) == ("success", 2, 0)
        await store.aclose()

    asyncio.run(scenario())
