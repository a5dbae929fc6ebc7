"""Deletes what is old, in steps that are small enough for everybody else to write in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.runs.model import ThreadStatus
from app.runs.store import Store
from app.runs.threads import ThreadService

logger = logging.getLogger(__name__)

MAX_PAUSE_SECONDS: Final = 60.0
MIN_PAUSE_SECONDS: Final = 0.05
SWEEPS_A_PERIOD: Final = 4  # something is deleted at most a quarter of its time too late
BATCH: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionPolicy:
    """How long things are kept, in seconds; None is for ever."""

    run_seconds: float | None = None  # a run's request and events, after its end
    row_seconds: float | None = None  # what is left of it then: its row
    thread_seconds: float | None = None  # a thread with all that it has, after its last change
    paused_thread_seconds: float | None = None  # the same, of one that waits for a human
    newest_checkpoints: int | None = None  # of a thread; None: all

    @property
    def pause_seconds(self) -> float:
        """How long to wait between two sweeps."""
        periods = (self.run_seconds, self.row_seconds, self.thread_seconds, self.paused_thread_seconds)
        shortest = min((seconds for seconds in periods if seconds is not None), default=MAX_PAUSE_SECONDS)
        return min(max(shortest / SWEEPS_A_PERIOD, MIN_PAUSE_SECONDS), MAX_PAUSE_SECONDS)


class Retention:
    """Sweeps until it is told to stop."""

    def __init__(self, store: Store, threads: ThreadService, policy: RetentionPolicy) -> None:
        self._store = store
        self._threads = threads
        self._policy = policy
        self._stopping = asyncio.Event()
        self._to_prune: set[str] = set()
        self._pruned_until = datetime.min.replace(tzinfo=UTC)  # the end of the newest run that was seen

    async def run(self) -> None:
        """Sweep now, and again after each pause, until `stop`. What goes wrong is logged, and tried again."""
        while not self._stopping.is_set():
            try:
                await self.sweep()
            except Exception:
                logger.exception("Old data could not be deleted; it is tried again in a moment")
            await self._rest(self._policy.pause_seconds)

    def stop(self) -> None:
        """Let `run` return after the step under way."""
        self._stopping.set()

    async def sweep(self) -> None:
        """Delete all that is due."""
        policy = self._policy
        if policy.run_seconds is not None:
            await self._expire_runs(policy.run_seconds)
        if policy.row_seconds is not None:
            seconds = max(policy.row_seconds, policy.run_seconds or 0.0)
            await self._repeat(lambda: self._store.delete_expired_runs(seconds))
        for status in ("idle", "error"):
            await self._delete_threads(status, policy.thread_seconds)
        await self._delete_threads("interrupted", policy.paused_thread_seconds)
        if policy.newest_checkpoints is not None:
            await self._prune(policy.newest_checkpoints)
        await self._repeat(self._store.reclaim)
        await self._repeat(self._threads.reclaim)

    async def _expire_runs(self, seconds: float) -> None:
        runs = 0

        async def step() -> bool:
            nonlocal runs
            expiry = await self._store.expire_runs(seconds)
            runs += len(expiry.thread_keys)
            if self._policy.newest_checkpoints is not None:
                self._to_prune.update(expiry.thread_keys)  # the checkpoints at which they ended are free now
            return expiry.is_done

        await self._repeat(step)
        if runs:
            logger.info("Deleted the events of %d runs", runs)

    async def _delete_threads(self, status: ThreadStatus, seconds: float | None) -> None:
        if seconds is None:
            return
        threads = 0

        async def step() -> bool:
            nonlocal threads
            unused = await self._store.list_unused_threads(status, seconds, BATCH)
            deleted = 0
            for thread in unused:
                if self._stopping.is_set():
                    break
                deleted += await self._threads.delete_unused(thread)
            threads += deleted
            return len(unused) < BATCH or not deleted  # what could not be deleted now is tried in the next sweep

        await self._repeat(step)
        if threads:
            logger.info("Deleted %d threads", threads)

    async def _prune(self, newest: int) -> None:
        await self._repeat(self._find_to_prune)
        for thread_key in sorted(self._to_prune):
            if self._stopping.is_set():
                return
            if await self._threads.prune(thread_key, newest):
                self._to_prune.discard(thread_key)

    async def _find_to_prune(self) -> bool:
        ended = await self._store.list_ended_threads(self._pruned_until, BATCH)
        for thread_key, ended_at in ended:
            self._to_prune.add(thread_key)
            self._pruned_until = ended_at
        return len(ended) < BATCH

    async def _repeat(self, step: Callable[[], Awaitable[bool]]) -> None:
        """Take steps until one says that it was the last, and rest after each for as long as it took."""
        clock = asyncio.get_running_loop().time
        is_done = False
        while not is_done and not self._stopping.is_set():
            began = clock()
            is_done = await step()
            if not is_done:
                await self._rest(clock() - began)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
