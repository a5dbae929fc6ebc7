"""What the API calls: every way to start, find, follow and stop a run. Knows no HTTP and no graph."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from app.errors import (
    EventIdAhead,
    EventsExpired,
    IdempotencyConflict,
    RunNotFound,
    RunstreamError,
    ShuttingDown,
    StaleThread,
    ThreadBusy,
    ThreadNotFound,
)
from app.runs.engine import Engine, Outcome, RestartReason
from app.runs.event import Event
from app.runs.executor import RunExecutor
from app.runs.log import LogWriter
from app.runs.model import Accepted, Admission, CancelReason, Lease, NewRun, Run, Thread, scoped
from app.runs.random_id import RandomIds
from app.runs.request import RunRequest
from app.runs.store import MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Page, Patience, RunQuery, Store, tail
from app.runs.trace import Tracing, Untraced
from app.runs.turn import MAX_CHECKS, Turns, start_event, waiting

WAIT_SECONDS = 0.02
MAX_WAITS = 100
# of a run that would wait for its turn, too
MAX_CHECKS_IN_LINE = 100
MAX_WAITS_IN_LINE = 1500
LARGE_EVENT_BYTES = 16 * 1024
FAR_BEHIND_PAGES = 4  # as much comes at once from a fast model, and says nothing of the reader

logger = logging.getLogger(__name__)


class Slice(NamedTuple):
    """Some events of a run, in order; none: there was silence, and `run` is the one before it, if any."""

    run: Run | None
    events: Sequence[Event]
    is_past: bool = False  # it is before the reader's cursor, for a view that has to know it
    is_behind: bool = False  # the reader was at the log's end while the run went on, and has fallen far behind since


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A run that a start gave: a new one, or with `created=False` the earlier one with the same key."""

    run: Run
    created: bool


class Cursor:
    """How far a reader has been sent a run's log, and its writing end where that is in this process.

    One of `cursors` as long as its `with` lasts.
    """

    __slots__ = ("_cursors", "log", "seq")

    def __init__(self, cursors: "set[Cursor]", log: LogWriter | None, seq: int) -> None:
        self._cursors = cursors
        self.log = log
        self.seq = seq

    def __enter__(self) -> Self:
        self._cursors.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cursors.discard(self)


class RunService:
    """Admission, idempotency, resume checks, following and stopping; one instance an app."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        executor: RunExecutor,
        *,
        worker: str,
        admission: Admission,
        tracing: Tracing | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._executor = executor
        self._worker = worker
        self._admission = admission
        self._turns = Turns(store, engine, executor, worker=worker)
        self._tracing = tracing or Untraced()
        self._draining = False
        self._cursors: set[Cursor] = set()
        self._ids = RandomIds()
        executor.when_free(self._turns.take)

    async def repeated(self, owner: str, *, run_id: str | None, key: str | None, fingerprint: str) -> Run | None:
        """The run that an earlier request with this key made, if any.

        Looked at before anything else of a request (wire contract, section 1, `run_id`). Raises IdempotencyConflict
        when the bodies differ, and EventsExpired for a run of which only the row is left: it is not executed again.
        """
        run = None
        if run_id is not None:
            run = await self._store.get_run(scoped(owner, run_id.lower()))
        if run is None and key is not None:
            run = await self._store.find_run(owner, key)
        if run is not None:
            check_repetition(run, fingerprint)
        return run

    async def start(self, request: RunRequest) -> Started:
        """Accept a run and begin it. When this returns, the run is durable and its first event is in the log."""
        if self._draining:
            raise ShuttingDown("The server is about to stop; try again in a moment.")
        try:
            return await self._check_and_accept(request)
        except RunstreamError:
            # the same request, sent twice at once: what its twin did to the thread is no reason to refuse it
            twin = await self.repeated(
                request.owner,
                run_id=request.run_id,
                key=request.idempotency_key,
                fingerprint=request.fingerprint,
            )
            if twin is None:
                raise
            return Started(run=twin, created=False)

    async def _check_and_accept(self, request: RunRequest) -> Started:
        checks, waits = 0, 0
        may_wait = request.multitask_strategy != "reject"
        max_checks, max_waits = (MAX_CHECKS_IN_LINE, MAX_WAITS_IN_LINE) if may_wait else (MAX_CHECKS, MAX_WAITS)
        while checks < max_checks:
            new, is_turn = await self._check(request)
            try:
                return await self._accept(new, worker=self._worker if is_turn else None)
            except StaleThread:
                checks += 1
            except ThreadBusy as busy:
                waits += 1
                if busy.fields["run_id"] is not None or waits > max_waits:
                    raise
                # no run, but its state is being edited, or old checkpoints are deleted: that takes a moment. It is not
                # put in line meanwhile: the thread may be being deleted, and the runs that wait on it with it
                await asyncio.sleep(WAIT_SECONDS)
        raise ThreadBusy(new.thread_id, None)

    async def _check(self, request: RunRequest) -> tuple[NewRun, bool]:
        """The run to accept, and whether it may begin at once; else it is checked against the state at its turn."""
        thread_id = request.thread_id or self._ids.new()
        thread = await self._thread(request, thread_id)
        graph = self._engine.graph_name(request.graph, thread)
        busy = None if thread is None or thread.status != "busy" else await self._store.active_run(thread.key)
        if busy is not None and request.multitask_strategy == "reject":
            raise ThreadBusy(thread_id, busy.run_id)
        if busy is not None:
            ahead = await self._engine.check_ahead(request, graph=graph)
            return self._new_run(request, thread_id, graph, waiting(request, ahead), version=None), False
        plan = await self._engine.plan(request, graph=graph, thread_id=thread_id, thread=thread)
        # checked as new: one that came into being since has a higher version
        version = 0 if thread is None else thread.version
        return self._new_run(request, thread_id, graph, plan, version=version), True

    def _new_run(
        self, request: RunRequest, thread_id: str, graph: str, plan: Mapping[str, Any], *, version: int | None
    ) -> NewRun:
        return NewRun(
            owner=request.owner,
            run_id=request.run_id or self._ids.new(),
            thread_id=thread_id,
            graph=graph,
            request={**plan, "trace": self._tracing.carrier()},
            fingerprint=request.fingerprint,
            idempotency_key=request.idempotency_key,
            stream_modes=request.stream_modes,
            metadata=request.metadata,
            multitask_strategy=request.multitask_strategy,
            on_disconnect=request.on_disconnect,
            create_thread=request.if_not_exists == "create",
            thread_version=version,
        )

    async def _thread(self, request: RunRequest, thread_id: str) -> Thread | None:
        if request.thread_id is None:
            return None
        thread = await self._store.get_thread(scoped(request.owner, thread_id))
        if thread is None and request.if_not_exists == "reject":
            raise ThreadNotFound(thread_id)
        return thread

    async def _accept(self, new: NewRun, *, worker: str | None) -> Started:
        start = start_event(new, attempt=1)
        accepted = await self._store.accept(new, worker=worker, start=start, admission=self._admission)
        if not accepted.created:
            check_repetition(accepted.run, new.fingerprint)
        if accepted.lease is not None:
            self._executor.start(accepted.run, accepted.lease)
        elif accepted.created:
            self._turns.wait(accepted.run)
            await asyncio.shield(self._line_up(accepted))
        return Started(run=accepted.run, created=accepted.created)

    async def _line_up(self, accepted: Accepted) -> None:
        """Stop what the run supersedes; and the one before it may have ended since it was looked for."""
        for other in accepted.to_stop:
            if not self._executor.cancel(other.key, "superseded") and other.status == "pending":
                await self._turns.dismiss(other, "superseded")
        await self._turns.take(accepted.run.thread_key)

    async def get(self, owner: str, run_id: str) -> Run:
        """A run's row. Raises RunNotFound, for another owner's too."""
        run = await self._store.get_run(scoped(owner, run_id.lower()))
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def list(self, query: RunQuery) -> tuple[Sequence[Run], str | None]:
        return await self._store.list_runs(query)

    async def active_run(self, owner: str, thread_id: str) -> Run | None:
        return await self._store.active_run(scoped(owner, thread_id))

    async def cancel(
        self,
        owner: str,
        run_id: str,
        *,
        reason: CancelReason = "user",
        wait: bool = False,
        keep_partial: bool = False,
    ) -> Run:
        """Ask a run to stop; with `wait`, return when it has. Idempotent. Raises RunNotFound.

        `keep_partial` writes what was said so far into the thread, which is idle then.
        """
        key = scoped(owner, run_id.lower())  # a UUID is the same in capitals
        run = await self._store.request_cancel(key, reason)
        if run is None:
            raise RunNotFound(run_id)
        is_stopped = self._executor.cancel(key, reason, keep_partial=keep_partial)
        if run.status == "pending" and not is_stopped:
            await self._turns.dismiss(run, run.cancel_reason or reason)
        if wait and not run.is_ended:
            await self._executor.join(key)
            async for _ in tail(self._store, key, after=run.last_seq):
                pass
        return await self.get(owner, run_id)

    async def check_cursor(self, run: Run, after: int) -> None:
        """Raise EventIdAhead for a cursor beyond the end of the log, EventsExpired when it is deleted: never a gap."""
        if run.expired:
            raise EventsExpired(run.run_id, run.thread_id)
        if after <= run.last_seq:
            return
        newest = await self._store.get_run(run.key)
        last_seq = newest.last_seq if newest else 0
        if after > last_seq:
            raise EventIdAhead(after, last_seq)

    async def has_ended_at(self, run: Run, after: int) -> bool:
        """Whether the run is over and nothing comes after the cursor."""
        page = await self._store.read(run.key, after=after, max_events=1)
        return page.closed and not page.events

    def attach(self, run: Run) -> contextlib.AbstractContextManager[object]:
        """Look on: see RunExecutor.attach."""
        return self._executor.attach(run.key)

    def known(self, run: Run) -> Run:
        """The run as this process holds it while it works on it: its readers need no copy of their own."""
        return self._executor.run(run.key) or run

    async def follow(
        self, run: Run, *, after: int, patience: Patience = lambda: None, recall: bool = False
    ) -> AsyncGenerator[Slice, None]:
        """A run's events after a cursor, then live to the end, looked on at; a slice without events is a silence.

        With `recall`, what is before the cursor comes first, as slices that say `is_past`.
        """
        was_at_end, full_pages = False, 0
        pages = tail(self._store, run.key, after=after, patience=patience)
        with self._executor.attach(run.key), Cursor(self._cursors, self._executor.log(run.key), after) as cursor:
            if recall:
                async for events in self._before(run, after):
                    yield Slice(run=run, events=events, is_past=True)
            async with aclosing(pages):
                async for page in pages:
                    full_pages = full_pages + 1 if is_full(page) else 0
                    # whether the run has ended meanwhile or not: who reads a finished run was never at its end
                    yield Slice(run=run, events=page.events, is_behind=was_at_end and full_pages > FAR_BEHIND_PAGES)
                    was_at_end = was_at_end or (page.is_live and full_pages == 0)
                    if page.events:
                        cursor.seq = page.events[-1].seq

    def lags(self) -> Sequence[int]:
        """How many events each reader has not been sent yet, of those that came while their run was at work."""
        return [max(cursor.log.last_seq - cursor.seq, 0) for cursor in self._cursors if cursor.log is not None]

    async def _before(self, run: Run, after: int) -> AsyncIterator[Sequence[Event]]:
        at = 0
        while at < after:
            page = await self._store.read(run.key, after=at, max_events=min(after - at, MAX_PAGE_EVENTS))
            if not page.events:
                return
            yield page.events
            at = page.events[-1].seq

    async def follow_thread(
        self, owner: str, thread_id: str, *, past: Run | None, after: int, patience: Patience, recall: bool = False
    ) -> AsyncGenerator[Slice, None]:
        """The events of a thread's runs, one run after the other, without an end.

        From `past` at its cursor on where it is given, else from the thread's active run on, or the next one.
        """
        thread_key, last, following = scoped(owner, thread_id), past, None
        if past is not None:
            async with aclosing(self.follow(past, after=after, patience=patience, recall=recall)) as slices:
                async for piece in slices:
                    yield piece
        else:
            last, following = await self._beginning(owner, thread_id)
        while True:
            if following is None:
                following = await self._store.next_run(thread_key, after=last.key if last else None)
            if following is None:
                after_key = last.key if last else None
                if not await self._store.wait_run(thread_key, after=after_key, seconds=patience()):
                    yield Slice(run=last, events=())
                continue
            last, following = following, None
            async with aclosing(self.follow(last, after=0, patience=patience)) as slices:
                async for piece in slices:
                    yield piece

    async def _beginning(self, owner: str, thread_id: str) -> tuple[Run | None, Run | None]:
        """For who comes to a thread: the newest run that is over, and the one to look at first, if one is active."""
        runs, _ = await self._store.list_runs(RunQuery(owner=owner, thread_id=thread_id, limit=1))
        newest = runs[0] if runs else None
        active = await self.active_run(owner, thread_id)
        # one that was accepted since is found behind the newest, and what came before it too
        if active is None or newest is None or active.created_at > newest.created_at:
            return newest, None
        return None, active

    async def page(self, run: Run, *, after: int, limit: int, wait_seconds: float) -> Page:
        """One page of the log; when there is nothing yet, waits at most so long for the first new event."""
        page = await self._store.read(run.key, after=after, max_events=limit)
        if page.events or page.closed or wait_seconds <= 0:
            return page
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                while not (page.events or page.closed):
                    await self._store.wait(run.key, after=after)
                    page = await self._store.read(run.key, after=after, max_events=limit)
        return page

    async def outcome(self, run: Run) -> Outcome:
        return await self._engine.outcome(run)

    async def take_up(self) -> None:
        """Claim and go on with the runs that nobody works on: left by a process that ended, or never begun."""
        for run in await self._store.list_pending(self._admission.max_active):
            if run.cancel_reason is None:
                self._turns.wait(run)
            else:
                await self._turns.dismiss(run, run.cancel_reason)
        found = await self._store.list_claimable(self._admission.max_active)
        async with asyncio.TaskGroup() as group:  # so that many claims share a commit
            for run in found:
                # one whose lease ran out while the loop was stuck is ours still
                if run.status != "pending" and not self._executor.is_active(run.key):
                    group.create_task(self._take_over(run))
        for run in found:
            if run.status == "pending":
                await self._turns.take(run.thread_key)

    async def _take_over(self, run: Run) -> None:
        try:
            start = start_event(run, attempt=run.attempt + 1)
            lease = await self._store.claim(run.key, self._worker, start=start)
            claimed = await self._store.get_run(run.key)
            if lease is not None and claimed is not None:
                self._executor.start(claimed, lease, restart=restart_reason(run, claimed))
        except Exception:  # the others are taken up all the same
            logger.exception("run %s: could not be taken up; the sweep tries again", run.run_id)

    def leases(self) -> Sequence[Lease]:
        """Of the runs that this process works on now; may be called from another thread."""
        return self._executor.leases()

    def sweep(self, *, seconds: float) -> None:
        """Take up again and again what nobody works on, until the drain."""
        self._executor.repeat(self.take_up, seconds=seconds)

    @property
    def is_durable(self) -> bool:
        """Whether what the end of this process cuts off goes on in another one."""
        return self._executor.is_durable

    def begin_drain(self) -> None:
        """From now on take no new runs, and let those that go on take no other step."""
        self._draining = True
        self._turns.close()
        self._executor.begin_drain()

    async def drain(self) -> None:
        """Let running steps end, within the grace, and give up the rest."""
        self.begin_drain()
        await self._executor.aclose()
        if not self.is_durable:
            for run in await self._store.list_pending(self._admission.max_active):
                await self._turns.dismiss(run, "shutdown")


def check_repetition(run: Run, fingerprint: str) -> None:
    if run.fingerprint != fingerprint:
        raise IdempotencyConflict(run.run_id)
    if run.expired:
        raise EventsExpired(run.run_id, run.thread_id)


def is_full(page: Page) -> bool:
    """Whether a page ends because of its size, so that more is there."""
    if len(page.events) >= MAX_PAGE_EVENTS:
        return True
    return sum([len(event.text) for event in page.events]) > MAX_PAGE_BYTES - LARGE_EVENT_BYTES


def restart_reason(before: Run, claimed: Run) -> RestartReason | None:
    if before.attempt == 0:
        return None
    return "crash" if claimed.crashes > before.crashes else "deploy"
