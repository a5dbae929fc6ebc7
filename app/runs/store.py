"""The one interface to what is durable, and the one way to read a log.

Writers never know readers: a reader pulls what is after its cursor (`read`), and is told to look again (`wait`).
A notification is a hint, never data, so resuming, joining late, long-polling and a slow phone are all `tail`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from app.runs.event import Event, NewEvent
from app.runs.model import (
    Accepted,
    Admission,
    CancelReason,
    Ending,
    Lease,
    NewRun,
    Run,
    RunStatus,
    Thread,
    ThreadStatus,
    Turn,
)

MAX_PAGE_EVENTS: Final = 1_000
MAX_PAGE_BYTES: Final = 256 * 1024


class Page(NamedTuple):
    """A piece of a run's log: gapless, in order; `closed` when nothing will ever come after it.

    `is_live`: the run had not ended when it was read, so a reader that gets much at once lags behind it.
    """

    events: Sequence[Event]
    closed: bool
    is_live: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiry:
    """What one call of `Store.expire_runs` did: the threads of the runs it finished with, and whether more are due."""

    thread_keys: Sequence[str]  # one for each run
    is_done: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs to list: newest first; `cursor` is what the page before gave."""

    owner: str
    thread_id: str | None = None
    status: RunStatus | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreadQuery:
    """Which threads to list. `metadata` must be contained in a thread's own, key by key."""

    owner: str
    status: ThreadStatus | None = None
    metadata: Mapping[str, Any] | None = None
    ids: Sequence[str] | None = None
    sort_by: str = "created_at"  # created_at, updated_at, thread_id, status
    descending: bool = True
    limit: int = 10
    offset: int = 0


class Store(Protocol):
    """Runs, events and threads in one database. Every method is atomic; every write is durable when it returns.

    Runs and threads are named by their keys (`scoped(owner, id)`).
    """

    async def accept(
        self, new: NewRun, *, worker: str | None, start: NewEvent | None, admission: Admission
    ) -> Accepted:
        """Store a run with its input, in one transaction, and claim it for `worker` if one is named.

        The idempotency key (or the run id) is looked at before anything else: an earlier run with it is given back
        with `created=False`, and nothing is written (comparing the fingerprints is the caller's). Otherwise, in this
        order: ThreadNotFound (no such thread and `create_thread` is False), GraphMismatch, ThreadBusy (a hold on the
        thread; or an active run, and the strategy is `reject`), StaleThread (the thread's version is not
        `new.thread_version`, when that is not None; or a run is active and a worker is named), TooManyRuns (see
        `Admission`). A thread without a graph gets the run's.

        With a worker the run is `running` with epoch 1 and attempt 1, and `start` is its first event; without, it is
        `pending` with an empty log. The thread is `busy` either way. A claim grows the thread's version by one, and the
        lease has the new one.

        With the strategy `interrupt` or `rollback` the thread's other active runs are asked to stop (`superseded`);
        with `rollback` they become the run's `supersedes`. What a pending one of them was to undo, this one is.
        """
        ...

    async def claim(
        self, run_key: str, worker: str, *, start: NewEvent | None = None, turn: Turn | None = None
    ) -> Lease | None:
        """Take a run over, when its turn has come or its lease has run out: epoch + 1, attempt + 1. Otherwise None.

        A pending run's turn comes when the thread is not held and has no older active run. `turn` is what it begins
        with, as if it had been accepted so; raises StaleThread when the thread's version is another than the turn's.
        A claim of a running run ignores it and counts one crash (`Run.crashes`). An empty log gets `start`. The
        thread's version grows by one.
        """
        ...

    async def dismiss(
        self, run_key: str, events: Sequence[NewEvent], ending: Ending, *, keeps_status: bool = True
    ) -> bool:
        """End a pending run that never began: its whole log, its status, and the thread's, at once. False: it is none.

        The thread is `busy` as long as another run is active on it, and then what it was before; or, unless
        `keeps_status`, what the ending says.
        """
        ...

    async def renew(self, lease: Lease) -> bool:
        """Keep the lease alive; False when it is lost."""
        ...

    def renew_now(self, leases: Sequence[Lease]) -> None:
        """`renew` for another thread than the event loop's, which may be stuck: blocks until it is done."""
        ...

    async def abandon(self, lease: Lease) -> None:
        """Give the lease up without an end: the run goes on in another process. It is not a crash."""
        ...

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> int:
        """Write events, none of them terminal, at the end of the log and return the last seq.

        Raises LeaseLost, inside the transaction, when the epoch is not the run's any more or the run has ended.
        """
        ...

    def submit(self, lease: Lease, events: Sequence[NewEvent]) -> asyncio.Future[int]:
        """`append` for who has no task to wait in. Events are written in the order of these calls."""
        ...

    async def finish(self, lease: Lease, events: Sequence[NewEvent], ending: Ending) -> int:
        """Write events, the last of them terminal, with the run's status and the thread's release, at once.

        The thread stays `busy` as long as another run waits for its turn; its `rest_status` is the ending's. Its
        version grows by one. Raises LeaseLost as `append` does.
        """
        ...

    async def read(
        self,
        run_key: str,
        *,
        after: int,
        max_events: int = MAX_PAGE_EVENTS,
        max_bytes: int = MAX_PAGE_BYTES,
    ) -> Page:
        """What is in the log after `after`: committed, gapless, at most so much (yet one event at the least).

        `closed` when the page ends with the terminal event, or the log does and nothing is after it. An unknown run
        has an empty, closed log. Raises EventsExpired when it was deleted by `expire_runs`: never a silent gap.
        """
        ...

    async def wait(self, run_key: str, *, after: int, seconds: float | None = None) -> bool:
        """Return True when there may be something after `after`, or the log is closed. May be early, may never miss.

        False when nothing came for so many seconds. Safe to cancel.
        """
        ...

    async def request_cancel(self, run_key: str, reason: CancelReason) -> Run | None:
        """Note on an active run that it is to stop; the first reason stays. The row as it is now; None if unknown.

        A pending run is not ended by this.
        """
        ...

    async def get_run(self, run_key: str) -> Run | None: ...

    async def find_run(self, owner: str, idempotency_key: str) -> Run | None: ...

    async def list_runs(self, query: RunQuery) -> tuple[Sequence[Run], str | None]:
        """A page of runs, newest first, and the cursor of the next one (None at the end)."""
        ...

    async def list_claimable(self, limit: int) -> Sequence[Run]:
        """Runs nobody works on, oldest first.

        Pending ones whose turn has come, and running ones whose lease ran out.
        """
        ...

    async def list_pending(self, limit: int) -> Sequence[Run]:
        """Runs that wait for their turn, oldest first."""
        ...

    async def active_run(self, thread_key: str) -> Run | None:
        """The oldest active run of a thread."""
        ...

    async def next_run(self, thread_key: str, *, after: str | None) -> Run | None:
        """The run that a thread accepted next after the one with the key `after`; for None its first one.

        When that one is deleted, whatever is left came after it.
        """
        ...

    async def wait_run(self, thread_key: str, *, after: str | None, seconds: float | None = None) -> bool:
        """Return True when `next_run` may give a run. May be early, may never miss.

        False when none came for so many seconds. Safe to cancel.
        """
        ...

    async def expire_runs(self, seconds: float) -> Expiry:
        """Delete requests and events of runs that ended at least so long ago. Their rows stay, `expired`.

        A small step, so that no other write waits for long: call it until it is done. A log is gone for its readers
        before the first of its events is deleted.
        """
        ...

    async def delete_expired_runs(self, seconds: float) -> bool:
        """Delete rows of expired runs that ended at least so long ago. A small step: True when none is left."""
        ...

    async def list_unused_threads(self, status: ThreadStatus, seconds: float, limit: int) -> Sequence[Thread]:
        """Threads with this status that did not change for so long and that nobody holds, the oldest change first."""
        ...

    async def list_ended_threads(self, after: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        """The keys of threads with the ends of their runs after a moment, oldest first, a thread once for each run.

        Without those of expired runs.
        """
        ...

    async def checkpoints_in_use(self, thread_key: str) -> Collection[str]:
        """The ids of a thread's checkpoints at which its unexpired runs ended or its active ones begin."""
        ...

    async def reclaim(self) -> bool:
        """Give back some of the room that deletions have left. A small step: True when no more is worth the work."""
        ...

    async def create_thread(self, thread: Thread) -> Thread | None:
        """Store a thread; None, and nothing written, when its key is taken."""
        ...

    async def get_thread(self, thread_key: str) -> Thread | None: ...

    async def update_thread(self, thread_key: str, *, metadata: Mapping[str, Any]) -> Thread | None:
        """Merge into the metadata, key by key; None when unknown."""
        ...

    async def delete_thread(self, thread_key: str, worker: str) -> bool:
        """Delete a thread held by `worker` with its runs and their logs; False when it is not held by it.

        In small steps: a reader of one of its logs finds EventsExpired at first, then an unknown run.
        """
        ...

    async def search_threads(self, query: ThreadQuery) -> Sequence[Thread]: ...

    async def count_threads(self, query: ThreadQuery) -> int: ...

    async def hold(self, thread_key: str, worker: str) -> Thread:
        """Keep runs off a thread while its state is edited. Raises ThreadNotFound, or ThreadBusy (a run, another hold).

        A hold ends with `release`, or with the process.
        """
        ...

    async def release(
        self, thread_key: str, worker: str, *, status: ThreadStatus | None, graph: str | None = None
    ) -> None:
        """End a hold. With a status the state was changed: the status is set and the version grows.

        `graph` gives a graph to a thread that has none.
        """
        ...

    async def ping(self) -> None:
        """Raise StoreUnavailable unless a write transaction can be made now."""
        ...

    async def aclose(self) -> None: ...


Patience = Callable[[], float | None]

SILENCE: Final = Page(events=(), closed=False, is_live=True)


async def tail(
    store: Store, run_key: str, *, after: int, patience: Patience = lambda: None
) -> AsyncGenerator[Page, None]:
    """Everything after `after`: what is there, then what comes, until the log is closed. Replay and live are one loop.

    A page is without events only when nothing came for the seconds that `patience` gave when the wait began.
    """
    while True:
        page = await store.read(run_key, after=after)
        if page.events:
            yield page
            after = page.events[-1].seq
        if page.closed:
            return
        if page.is_live:  # `wait` knows whether this was all
            while not await store.wait(run_key, after=after, seconds=patience()):
                yield SILENCE
