"""Runs graphs in tasks that no connection owns.

`work` is the graph, and may be cancelled; a supervisor round it, which nobody cancels, writes the run's end in one
transaction with its status and the thread's release. Why a run was cancelled is held beside its task, never guessed
from a CancelledError afterwards.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from app.errors import LeaseLost
from app.runs.engine import (
    Cause,
    Conclusion,
    Drained,
    Engine,
    Execution,
    Failed,
    Finished,
    Lost,
    Past,
    RestartReason,
    Stopped,
)
from app.runs.event import NewEvent
from app.runs.log import LogWriter
from app.runs.model import CancelReason, Ending, Lease, Run, RunError
from app.runs.store import Page, Store

logger = logging.getLogger(__name__)

MAX_CRASHES: Final = 3
GIVE_UP_SECONDS: Final = 5.0  # for the last writes of a run that was stopped


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorLimits:
    """Seconds each: how long nobody may look on, a run may take or be silent, a stopped one may take to stop."""

    disconnect_grace_seconds: float
    max_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    stop_seconds: float = 30.0
    shutdown_grace_seconds: float = 20.0


class ActiveRun:
    """A run this process works on: its tasks, why it is to stop, and who looks on."""

    def __init__(self, run: Run, lease: Lease, log: LogWriter, past: Past) -> None:
        self.run = run
        self.lease = lease
        self.log = log
        self.past = past
        self.work: asyncio.Task[None] | None = None
        self.supervisor: asyncio.Task[None] | None = None
        self.execution: Execution | None = None
        self.reason: CancelReason | None = None
        self.keep_partial = False
        self.readers = 0
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.stopping = asyncio.get_running_loop().create_future()
        self.done = asyncio.Event()

    def cancel(self, reason: CancelReason, *, keep_partial: bool = False) -> None:
        """Stop the work. The first reason stays; a second cancel would cut LangGraph's own clean-up short."""
        if self.reason is None and not (self.work and self.work.done()):
            self.reason = reason
            self.keep_partial = keep_partial
            self.stopping.set_result(None)
            if self.work is not None:
                self.work.cancel()

    def set_timer(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self.clear_timer(name)
        self.timers[name] = asyncio.get_running_loop().call_later(seconds, action)

    def clear_timer(self, name: str) -> None:
        if timer := self.timers.pop(name, None):
            timer.cancel()

    def clear_timers(self) -> None:
        for name in list(self.timers):
            self.clear_timer(name)


class RunExecutor:
    """start, cancel(reason), join: the runs of this process."""

    def __init__(self, store: Store, engine: Engine, limits: ExecutorLimits, *, durable: bool) -> None:
        """`durable` says whether the store outlives the process: what is stopped by a shutdown goes on later then."""
        self._store = store
        self._durable = durable
        self._engine = engine
        self._limits = limits
        self._active: dict[str, ActiveRun] = {}
        self._closing = False

    @property
    def active_count(self) -> int:
        return len(self._active)

    def start(self, run: Run, lease: Lease, *, restart: RestartReason | None = None) -> None:
        """Begin an attempt, the first one or, after a crash or a deploy, another.

        Returns at once; the end is an event of the run's log.
        """
        past = Past(restart=restart, pages=lambda: written(self._store, run.key))
        active = ActiveRun(run, lease, LogWriter(self._store, lease), past)
        self._active[run.key] = active
        if run.cancel_reason is not None:
            active.cancel(run.cancel_reason)
        self._watch_readers(active)
        active.supervisor = asyncio.create_task(self._supervise(active), name=f"run {run.run_id}")  # noqa: TID251

    def cancel(self, run_key: str, reason: CancelReason, *, keep_partial: bool = False) -> bool:
        """Stop a run of this process; False when it is none."""
        active = self._active.get(run_key)
        if active is None:
            return False
        active.cancel(reason, keep_partial=keep_partial)
        return True

    async def join(self, run_key: str) -> None:
        """Wait until a run of this process has really stopped and its end is written."""
        if active := self._active.get(run_key):
            await active.done.wait()

    @contextlib.contextmanager
    def attach(self, run_key: str) -> Iterator[None]:
        """Look on: while somebody does, the clock of `on_disconnect` stands still."""
        active = self._active.get(run_key)
        if active is None:
            yield
            return
        active.readers += 1
        active.clear_timer("readers")
        try:
            yield
        finally:
            active.readers -= 1
            self._watch_readers(active)

    @property
    def is_durable(self) -> bool:
        return self._durable

    def begin_drain(self) -> None:
        """Let no run take another step from now on."""
        self._closing = True
        for active in self._active.values():
            if active.execution is not None:
                active.execution.drain()

    async def aclose(self) -> None:
        """Let running steps end, within the grace; what is left is given up for another process to take up."""
        self.begin_drain()
        supervisors = [a.supervisor for a in self._active.values() if a.supervisor]
        if supervisors:
            await asyncio.wait(supervisors, timeout=self._limits.shutdown_grace_seconds)
        for active in list(self._active.values()):
            active.cancel("shutdown")
        if supervisors:
            await asyncio.wait(supervisors, timeout=self._limits.stop_seconds + GIVE_UP_SECONDS)

    def _watch_readers(self, active: ActiveRun) -> None:
        if active.readers == 0 and active.run.on_disconnect == "cancel" and not active.done.is_set():
            grace = self._limits.disconnect_grace_seconds
            active.set_timer("readers", grace, lambda: active.cancel("disconnect"))

    def _watch_time(self, active: ActiveRun) -> None:
        asked = active.run.request.get("timeout_seconds")
        bounds = [s for s in (asked, self._limits.max_timeout_seconds) if s is not None]
        if bounds:
            active.set_timer("timeout", min(bounds), lambda: active.cancel("timeout"))
        self._watch_silence(active, -1)

    def _watch_silence(self, active: ActiveRun, seen: int) -> None:
        seconds = self._limits.idle_timeout_seconds
        if seconds is None:
            return
        if active.log.count == seen:
            active.cancel("idle_timeout")
            return
        count = active.log.count
        active.set_timer("idle", seconds, lambda: self._watch_silence(active, count))

    async def _supervise(self, active: ActiveRun) -> None:
        """Nobody cancels this task: it is what writes the end."""
        try:
            cause = await self._run(active)
            if self._durable and isinstance(cause, Stopped) and cause.reason == "shutdown":
                await self._give_up(active)
            else:
                await self._end(active, cause)
        except LeaseLost:
            logger.warning("run %s: taken over by another process, or ended", active.run.run_id)
        except Exception:
            # without its end the run stays claimable: the next sweep or start takes it up
            logger.exception("run %s: its end could not be written", active.run.run_id)
        finally:
            active.clear_timers()
            del self._active[active.run.key]
            active.done.set()

    async def _run(self, active: ActiveRun) -> Cause:
        try:
            execution = self._engine.execution(
                active.run, active.lease, active.log.put, active.past, flush=active.log.flush
            )
        except Exception as error:  # its graph is not registered any more, say
            return Failed(error=error)
        active.execution = execution
        if self._closing:
            execution.drain()
        if active.run.crashes >= MAX_CRASHES:
            return Lost()
        work = active.work = asyncio.create_task(execution.work(), name=f"work {active.run.run_id}")  # noqa: TID251
        pump = asyncio.create_task(active.log.pump(), name=f"log {active.run.run_id}")  # noqa: TID251
        self._watch_time(active)
        if active.reason is not None:
            work.cancel()
        try:
            await asyncio.wait({work, pump, active.stopping}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done() and not work.done():
                # the log can't be written: nothing this run still does would be seen
                active.cancel("shutdown")
            await self._stopped(active, work)
        finally:
            active.clear_timers()
            active.log.drain()
            await asyncio.wait({pump})
        pump.result()
        return self._cause(active, work)

    async def _stopped(self, active: ActiveRun, work: asyncio.Task[None]) -> None:
        """Wait, but not for ever, until what was cancelled has really stopped."""
        if active.reason is None or active.execution is None:
            return
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.stop_seconds
        await asyncio.wait({work}, timeout=self._limits.stop_seconds)
        settled = await active.execution.settle(max(deadline - clock(), 0.0))
        if not (settled and work.done()):
            # its lease ends with the run, so whatever it still writes is refused
            logger.error("run %s: a node goes on although the run was stopped", active.run.run_id)

    def _cause(self, active: ActiveRun, work: asyncio.Task[None]) -> Cause:
        if active.reason is not None and not (work.done() and not work.cancelled() and work.exception() is None):
            return Stopped(reason=active.reason, keep_partial=active.keep_partial)
        if work.cancelled():
            return Failed(error=asyncio.CancelledError("the graph cancelled itself"))
        error = work.exception()
        if error is None:
            return Finished()
        return Stopped(reason="shutdown") if isinstance(error, Drained) else Failed(error=error)

    async def _give_up(self, active: ActiveRun) -> None:
        rest = active.log.remainder()
        if rest:
            await self._store.append(active.lease, rest)
        await self._store.abandon(active.lease)

    async def _end(self, active: ActiveRun, cause: Cause) -> None:
        conclusion = unreadable_end(active.run)
        try:
            if active.execution is not None:
                conclusion = await active.execution.conclude(cause)
            elif isinstance(cause, Failed):
                logger.error("run %s: can't be begun", active.run.run_id, exc_info=cause.error)
        except LeaseLost:
            raise
        except Exception:
            logger.exception("run %s: how it ended could not be read", active.run.run_id)
        events = [*active.log.remainder(), *conclusion.events]
        await self._store.finish(active.lease, events, conclusion.ending)


async def written(store: Store, run_key: str) -> AsyncIterator[Page]:
    """What the log of a run has now."""
    after = 0
    while (page := await store.read(run_key, after=after)).events:
        yield page
        after = page.events[-1].seq


def unreadable_end(run: Run) -> Conclusion:
    """The end of a run whose state could not be read: every log ends with a terminal event."""
    message = "The run ended, but its result could not be read."
    body = {
        "event": "error",
        "error": message,
        "code": "graph_error",
        "node": None,
        "run_id": run.run_id,
        "retryable": True,
        "usage": None,
    }
    ending = Ending(status="error", thread_status="error", error=RunError(code="graph_error", message=message))
    return Conclusion(events=[NewEvent("error", orjson.dumps(body))], ending=ending)
