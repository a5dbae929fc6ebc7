"""Runs graphs in tasks that no connection owns.

`work` is the graph, and may be cancelled; a supervisor round it, which nobody cancels, writes the run's end in one
transaction with its status and the thread's release. Why a run was cancelled is held beside its task, never guessed
from a CancelledError afterwards.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from app.errors import LeaseLost
from app.runs.audience import Audiences
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
from app.runs.failure import error_event
from app.runs.label import RunLabel, current_run
from app.runs.log import LogLimits, LogWriter
from app.runs.model import CancelReason, Ending, Lease, Run, RunError
from app.runs.observer import Nobody, Observer, RunMeter, age_seconds
from app.runs.store import Page, Store
from app.runs.trace import Tracing, Untraced

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
    log: LogLimits = field(default_factory=LogLimits)


class ActiveRun:
    """A run this process works on: its tasks, and why it is to stop."""

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

    def __init__(
        self,
        store: Store,
        engine: Engine,
        limits: ExecutorLimits,
        *,
        durable: bool,
        observer: Observer | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`durable` says whether the store outlives the process: what is stopped by a shutdown goes on later then."""
        self._store = store
        self._durable = durable
        self._engine = engine
        self._limits = limits
        self._observer: Observer = observer or Nobody()
        self._tracing = tracing or Untraced()
        self._active: dict[str, ActiveRun] = {}
        self._audiences = Audiences(limits.disconnect_grace_seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._when_free: Callable[[str], Awaitable[None]] = nobody_waits
        self._closing = False

    @property
    def active_count(self) -> int:
        return len(self._active)

    def when_free(self, take_turn: Callable[[str], Awaitable[None]]) -> None:
        """What is done with the key of a thread whose run has ended."""
        self._when_free = take_turn

    def leases(self) -> Sequence[Lease]:
        """Of the runs that it works on now; may be called from another thread."""
        return [active.lease for active in list(self._active.values())]

    def is_active(self, run_key: str) -> bool:
        return run_key in self._active

    def repeat(self, work: Callable[[], Awaitable[None]], *, seconds: float) -> None:
        """Do something every so many seconds, until the executor is closed."""
        self._spawn(self._repeat(work, seconds), name=f"repeat {work.__name__}")

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                logger.exception("%s failed; it is tried again", work.__name__)

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=name)  # noqa: TID251
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wait_turn(self, run: Run, dismiss: Callable[[Run, CancelReason], Awaitable[None]]) -> None:
        """Watch over a run that has not begun: when nobody looks on for the grace, it is dismissed."""
        if run.key not in self._audiences:
            self._audiences.watch(run, lambda: self._spawn(self._dismiss(run, dismiss), name=f"dismiss {run.run_id}"))

    async def _dismiss(self, run: Run, dismiss: Callable[[Run, CancelReason], Awaitable[None]]) -> None:
        try:
            await dismiss(run, "disconnect")
        except Exception:
            logger.exception("run %s: could not be dismissed", run.run_id)

    def forget(self, run_key: str) -> None:
        """A run has ended without ever being begun."""
        self._audiences.forget(run_key)

    def start(self, run: Run, lease: Lease, *, restart: RestartReason | None = None) -> None:
        """Begin an attempt, the first one or, after a crash or a deploy, another.

        Returns at once; the end is an event of the run's log.
        """
        past = Past(restart=restart, pages=lambda: written(self._store, run.key))
        log = LogWriter(
            self._store,
            lease,
            limits=self._limits.log,
            events_before=run.last_seq,
            on_full=lambda limit: self._say_too_much(active, limit),
            on_append=RunMeter(self._observer, run).appended,
        )
        active = ActiveRun(run, lease, log, past)
        self._active[run.key] = active
        if restart is None:
            self._observer.run_started(run.graph, waited_seconds=age_seconds(run))
        else:
            self._observer.run_taken_up("lost" if run.crashes >= MAX_CRASHES else restart)
        if run.cancel_reason is not None:
            active.cancel(run.cancel_reason)
        self._audiences.watch(run, lambda: active.cancel("disconnect"))
        active.supervisor = asyncio.create_task(self._supervise(active), name=f"run {run.run_id}")  # noqa: TID251

    def cancel(self, run_key: str, reason: CancelReason, *, keep_partial: bool = False) -> bool:
        """Stop a run of this process; False when it is none."""
        active = self._active.get(run_key)
        if active is None:
            return False
        active.cancel(reason, keep_partial=keep_partial)
        return True

    def log(self, run_key: str) -> LogWriter | None:
        """The writing end of the log of a run of this process; None when it is none."""
        active = self._active.get(run_key)
        return None if active is None else active.log

    def run(self, run_key: str) -> Run | None:
        """A run of this process, as it was when this attempt began; None when it is none."""
        active = self._active.get(run_key)
        return None if active is None else active.run

    async def join(self, run_key: str) -> None:
        """Wait until a run of this process has really stopped and its end is written."""
        if active := self._active.get(run_key):
            await active.done.wait()

    def attach(self, run_key: str) -> AbstractContextManager[object]:
        """Look on: while somebody does, the clock of `on_disconnect` stands still."""
        return self._audiences.attach(run_key)

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
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        supervisors = [a.supervisor for a in self._active.values() if a.supervisor]
        if supervisors:
            await asyncio.wait(supervisors, timeout=self._limits.shutdown_grace_seconds)
        for active in list(self._active.values()):
            active.cancel("shutdown")
        if supervisors:
            await asyncio.wait(supervisors, timeout=self._limits.stop_seconds + GIVE_UP_SECONDS)

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

    def _say_too_much(self, active: ActiveRun, limit: str) -> None:
        logger.error("run %s: more %s than it may have", active.run.run_id, limit.replace("_", " "))
        self._observer.limit_hit(limit)
        active.cancel("limit_exceeded")

    async def _supervise(self, active: ActiveRun) -> None:
        """Nobody cancels this task: it is what writes the end."""
        current_run.set(RunLabel.of(active.run))
        try:
            with self._tracing.run(active.run, active.run.request.get("trace") or {}):
                await self._attempt(active)
        except LeaseLost:
            self._observer.lease_lost()
            logger.warning("run %s: taken over by another process, or ended", active.run.run_id)
        except Exception:
            # without its end the run stays claimable: the next sweep or start takes it up
            logger.exception("run %s: its end could not be written", active.run.run_id)
        finally:
            active.clear_timers()
            if self._active.get(active.run.key) is active:  # not when its next attempt is here, too
                del self._active[active.run.key]
                self._audiences.forget(active.run.key)
            active.done.set()
        await self._free(active.run.thread_key)

    async def _free(self, thread_key: str) -> None:
        try:
            await self._when_free(thread_key)
        except Exception:
            logger.exception("thread %s: the next run could not begin; the sweep tries again", thread_key)

    async def _attempt(self, active: ActiveRun) -> None:
        logger.info("run %s: attempt %d of graph %s", active.run.run_id, active.lease.attempt, active.run.graph)
        cause = await self._run(active)
        if self._durable and isinstance(cause, Stopped) and cause.reason == "shutdown":
            await self._give_up(active)
        else:
            await self._end(active, cause)

    async def _run(self, active: ActiveRun) -> Cause:
        try:
            execution = self._engine.execution(active.run, active.lease, active.log, active.past)
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
        logger.info("run %s: left to the next process", active.run.run_id)

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
        active.log.last_seq = await self._store.finish(active.lease, events, conclusion.ending)
        self._observer.run_ended(active.run.graph, conclusion.ending, active.reason)
        self._tracing.ended(conclusion.ending)
        logger.info("run %s: ended as %s", active.run.run_id, conclusion.ending.status)


async def nobody_waits(thread_key: str) -> None:
    """For threads on which no run ever waits for its turn."""


async def written(store: Store, run_key: str) -> AsyncIterator[Page]:
    """What the log of a run has now."""
    after = 0
    while (page := await store.read(run_key, after=after)).events:
        yield page
        after = page.events[-1].seq


def unreadable_end(run: Run) -> Conclusion:
    """The end of a run whose state could not be read: every log ends with a terminal event."""
    error = RunError(code="graph_error", message="The run ended, but its result could not be read.")
    return Conclusion(
        events=[error_event(error, run_id=run.run_id, retryable=True)],
        ending=Ending(status="error", thread_status="error", error=error),
    )
