"""The writing end of one run's log, and how much may go into it."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.errors import LogClosed
from app.runs.event import NewEvent
from app.runs.model import Lease
from app.runs.store import Store

# saved with what a node wrote, so a crash can't lose it; a wait for it would cost every step a commit
SAVED_ELSEWHERE: Final = frozenset({"node"})

# what a log that is full still takes: without it the mirror would not apply, and a node that ended would have no event
ALWAYS_TAKEN: Final = frozenset({"node", "state", "restart", "discard"})


MAX_BATCH: Final = 5_000  # events of one append: in the store it costs several times its size
# how long a burst is gathered: so many turns of the event loop, or more of them in so many seconds
MAX_TURNS: Final = 128
MIN_SECONDS: Final = 0.05
# but only so long at first, twice as long for each later append, and never longer: in a busy loop a turn takes its time
FIRST_SECONDS: Final = 0.02
MAX_SECONDS: Final = 0.25
MAX_QUIET_TURNS: Final = 3
MANY_WAITING: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLimits:
    """How much a run may say, and how much of it may wait for the disk. Bytes are those of one attempt's texts."""

    max_events: float = math.inf
    max_bytes: float = math.inf
    max_waiting_bytes: float = math.inf


class LogWriter:
    """Takes events without waiting and appends them in order: what gathers during one append goes into the next.

    `put` is for the loop's own thread. `pump` is a task's body; it ends with `drain`, or raises what an append raised.

    Nobody can hold a node that speaks without a pause, so what waits has a bound: beyond a limit `on_full` is called,
    once, and previews are dropped from then on. Nodes in threads of their own are held in time (`is_behind`).
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        *,
        limits: LogLimits,
        events_before: int = 0,
        on_full: Callable[[str], None] = lambda limit: None,
        on_append: Callable[[Sequence[NewEvent], float], None] = lambda batch, seconds: None,
    ) -> None:
        """`events_before` is what earlier attempts have written; `on_full` gets the name of the limit.

        `on_append` gets each batch once it is durable, and how many seconds that took.
        """
        self._store = store
        self._lease = lease
        self._limits = limits
        self._on_full = on_full
        self._on_append = on_append
        self.last_seq = events_before
        self._bytes = 0  # of all that was put
        self._written_bytes = 0
        self._events_left = limits.max_events - events_before
        self._stop_bytes = 0.0  # up to here nothing has to be looked at
        self.is_full = False
        self._pending: list[NewEvent] = []
        self._loop = asyncio.get_running_loop()
        self._asleep: asyncio.Future[None] | None = None  # there while the pump has nothing to do
        self._draining = False
        self._is_burst = False
        self._gather_seconds = FIRST_SECONDS
        self._written = 0
        self._to_flush = 0
        self._moved: asyncio.Future[None] | None = None  # there while somebody waits until something is written
        self._is_over = False
        self._error: Exception = LogClosed("The log takes no more of this attempt.")
        self.count = 0
        self._written_up_to(0)

    def put(self, event: NewEvent) -> None:
        self._bytes += len(event.text)
        if (self._bytes > self._stop_bytes or self.count >= self._events_left) and not self._takes(event):
            return
        self._pending.append(event if len(self._pending) < MANY_WAITING else compact(event))
        self.count += 1
        if event.kind not in SAVED_ELSEWHERE:
            self._to_flush = self.count
        if self._asleep is not None:
            self._wake()

    def _wake(self) -> None:
        _settle(self._asleep)
        self._asleep = None

    @property
    def is_behind(self) -> bool:
        """Whether half of what may wait does. May be asked in any thread."""
        waiting = self._bytes - self._written_bytes
        return waiting > self._limits.max_waiting_bytes / 2 and not (self.is_full or self._draining or self._is_over)

    def _takes(self, event: NewEvent) -> bool:
        if not self.is_full:
            self.is_full = True
            self._on_full(self._limit_hit())
        return event.kind in ALWAYS_TAKEN

    def _limit_hit(self) -> str:
        if self.count >= self._events_left:
            return "run_events"
        return "run_bytes" if self._bytes > self._limits.max_bytes else "waiting_bytes"

    def _written_up_to(self, total: int) -> None:
        self._written_bytes = total
        self._stop_bytes = min(self._limits.max_bytes, total + self._limits.max_waiting_bytes)

    async def flush(self) -> None:
        """Return when what was put until now, and is nowhere else, is in the log.

        Raises what an append raised, or LogClosed.
        """
        count = self._to_flush
        while self._written < count:
            if self._is_over:
                raise self._error
            if self._moved is None:
                self._moved = self._loop.create_future()
            await asyncio.shield(self._moved)  # others may wait for it, too

    async def pump(self) -> None:
        try:
            while not self._draining:
                if not self._pending:
                    self._asleep = self._loop.create_future()
                    await self._asleep
                if self._is_burst:
                    await self._gather()
                if self._pending and not self._draining:
                    await self._append()
        except Exception as error:
            self._error = error
            raise
        finally:
            self._is_over = True
            self._has_moved()

    def _has_moved(self) -> None:
        _settle(self._moved)
        self._moved = None

    async def _gather(self) -> None:
        """In a burst, let more come as long as turns of the loop bring more: an append costs as much as fifty tokens.

        It is a burst when several events came with the last append; a lone one goes at once, and nothing waits for a
        clock. A few turns may pass without an event, since a model that is read from a socket takes some for each
        token, and there may be more of them (docs/performance.md).
        """
        begun_at, turns, quiet, seconds = time.monotonic(), 0, 0, 0.0
        while seconds < self._gather_seconds and (turns < MAX_TURNS or seconds < MIN_SECONDS):
            count = self.count
            await asyncio.sleep(0)
            turns += 1
            seconds = time.monotonic() - begun_at
            quiet = quiet + 1 if self.count == count else 0
            if quiet > MAX_QUIET_TURNS or self._draining:
                return

    async def _append(self) -> None:
        batch, self._pending, total = self._pending, [], self._bytes
        if len(batch) > MAX_BATCH:
            batch, self._pending = batch[:MAX_BATCH], batch[MAX_BATCH:]
            total = self._written_bytes + sum(len(event.text) for event in batch)
        goes_on, self._is_burst = self._is_burst and len(batch) > 1, len(batch) > 1
        self._gather_seconds = min(2 * self._gather_seconds, MAX_SECONDS) if goes_on else FIRST_SECONDS
        begun_at = time.monotonic()
        self.last_seq = await self._store.append(self._lease, batch)
        self._on_append(batch, time.monotonic() - begun_at)
        self._written += len(batch)
        self._written_up_to(total)
        self._has_moved()

    def drain(self) -> None:
        """Let the pump end after the append under way; what is left is for `remainder`."""
        self._draining = True
        self._wake()

    def remainder(self) -> Sequence[NewEvent]:
        """What was not appended: it goes into the transaction of the end."""
        rest, self._pending = self._pending, []
        return rest


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def compact(event: NewEvent) -> NewEvent:
    """The same event in as many bytes as its text has: what orjson gives keeps 4 KiB, and many may wait."""
    return NewEvent(event.kind, event.text[:-1] + event.text[-1:])
