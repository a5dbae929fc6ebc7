"""The writing end of one run's log, and how much may go into it."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
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
LINGER_TURNS: Final = 12  # for an event that is saved elsewhere
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
    One that is cancelled appends no more.

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
        self._end: asyncio.Future[None] = self._loop.create_future()  # of the pump
        self._is_idle = False  # the pump has nothing to do
        self._context: Context | None = None  # the pump's: what is called back must not keep that of a node
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
        if self._is_idle:
            self._is_idle = False
            self._call_soon(self._go_on)  # with what else this turn of the loop brings

    def _call_soon(self, function: Callable[..., None], *arguments: float) -> None:
        self._loop.call_soon(function, *arguments, context=self._context)

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

    @property
    def mark(self) -> int:
        """The place of what was put until now and is nowhere else, for a `flush` that comes later."""
        return self._to_flush

    async def flush(self, mark: int | None = None) -> None:
        """Return when what was put until a mark (until now without one), and is nowhere else, is in the log.

        Raises what an append raised, or LogClosed.
        """
        count = self._to_flush if mark is None else mark
        while self._written < count:
            if self._is_over:
                raise self._error
            if self._moved is None:
                self._moved = self._loop.create_future()
            await asyncio.shield(self._moved)  # others may wait for it, too

    async def pump(self) -> None:
        self._context = copy_context()
        self._go_on()
        try:
            await self._end
        except Exception as error:
            self._error = error
            raise
        finally:
            self._is_idle, self._is_over = False, True
            self._has_moved()

    def _has_moved(self) -> None:
        _settle(self._moved)
        self._moved = None

    def _go_on(self) -> None:
        """What is next. The loop calls back: a task that wakes up for it, and again behind the append, costs more."""
        if self._draining or self._is_over:
            _settle(self._end)
        elif not self._pending:
            self._is_idle = True
        elif self._is_burst:
            self._call_soon(self._gather, time.monotonic(), 1, 0, self.count)
        elif self._to_flush <= self._written:
            self._call_soon(self._linger, 1, self.count)
        else:
            self._append()

    def _linger(self, turns: int, count: int) -> None:
        """Let something join the event of a node, which is saved already: the next node's words, or the run's end.

        Most often that is there in a few turns of the loop, and an append less.
        """
        if turns >= LINGER_TURNS or self.count > count or self._draining:
            self._append()
        else:
            self._call_soon(self._linger, turns + 1, count)

    def _gather(self, begun_at: float, turns: int, quiet: int, count: int) -> None:
        """In a burst, let more come as long as turns of the loop bring more: an append costs as much as fifty tokens.

        It is a burst when several events came with the last append; a lone one goes at once, unless it is a node's
        (`_linger`), and nothing waits for a clock. A few turns may pass without an event, since a model that is read
        from a socket takes some for each token, and there may be more of them (docs/performance.md). `count` is that of
        the turn before.
        """
        seconds = time.monotonic() - begun_at
        quiet = quiet + 1 if self.count == count else 0
        is_long = seconds >= self._gather_seconds or (turns >= MAX_TURNS and seconds >= MIN_SECONDS)
        if is_long or quiet > MAX_QUIET_TURNS or self._draining:
            self._append()
        else:
            self._call_soon(self._gather, begun_at, turns + 1, quiet, self.count)

    def _append(self) -> None:
        if self._draining or self._is_over:
            _settle(self._end)
            return
        batch, self._pending, total = self._pending, [], self._bytes
        if len(batch) > MAX_BATCH:
            batch, self._pending = batch[:MAX_BATCH], batch[MAX_BATCH:]
            total = self._written_bytes + sum(len(event.text) for event in batch)
        goes_on, self._is_burst = self._is_burst and len(batch) > 1, len(batch) > 1
        self._gather_seconds = min(2 * self._gather_seconds, MAX_SECONDS) if goes_on else FIRST_SECONDS
        begun_at = time.monotonic()
        try:
            appending = self._store.submit(self._lease, batch)
        except Exception as error:
            self._fail(error)
        else:
            appending.add_done_callback(partial(self._appended, batch, total, begun_at), context=self._context)

    def _appended(self, batch: Sequence[NewEvent], total: int, begun_at: float, appending: asyncio.Future[int]) -> None:
        try:
            self.last_seq = appending.result()
            self._on_append(batch, time.monotonic() - begun_at)
        except Exception as error:
            self._fail(error)
            return
        self._written += len(batch)
        self._written_up_to(total)
        self._has_moved()
        self._go_on()

    def _fail(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    def drain(self) -> None:
        """Let the pump end after the append under way; what is left is for `remainder`."""
        self._draining = True
        if self._is_idle:
            _settle(self._end)

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
