"""What the API calls: every way to start, find, follow and stop a run. Knows no HTTP and no graph."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from app.errors import (
    EventIdAhead,
    IdempotencyConflict,
    RunNotFound,
    RunstreamError,
    ShuttingDown,
    StaleThread,
    ThreadBusy,
    ThreadNotFound,
)
from app.runs.engine import Engine, Outcome, RestartReason
from app.runs.event import Event, NewEvent
from app.runs.executor import RunExecutor
from app.runs.model import CancelReason, NewRun, Run, Thread, scoped
from app.runs.request import RunRequest
from app.runs.store import MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Page, Patience, RunQuery, Store, tail

MAX_CHECKS = 5
LARGE_EVENT_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Some events of a run, in order; none: there was silence, and `run` is the one before it, if any."""

    run: Run | None
    events: Sequence[Event]
    is_behind: bool = False  # the reader was at the log's end once, and is more than a whole page from it now


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A run that a start gave: a new one, or with `created=False` the earlier one with the same key."""

    run: Run
    created: bool


class RunService:
    """Admission, idempotency, resume checks, following and stopping; one instance an app."""

    def __init__(
        self, store: Store, engine: Engine, executor: RunExecutor, *, worker: str, max_concurrent_runs: int
    ) -> None:
        self._store = store
        self._engine = engine
        self._executor = executor
        self._worker = worker
        self._max_concurrent_runs = max_concurrent_runs
        self._draining = False

    async def repeated(self, owner: str, *, run_id: str | None, key: str | None, fingerprint: str) -> Run | None:
        """The run that an earlier request with this key made, if any.

        Looked at before anything else of a request (wire contract, section 1, `run_id`). Raises IdempotencyConflict
        when the bodies differ.
        """
        run = None
        if run_id is not None:
            run = await self._store.get_run(scoped(owner, run_id.lower()))
        if run is None and key is not None:
            run = await self._store.find_run(owner, key)
        if run is not None and run.fingerprint != fingerprint:
            raise IdempotencyConflict(run.run_id)
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
        for _ in range(MAX_CHECKS):
            new = await self._check(request)
            try:
                return await self._accept(new)
            except StaleThread:
                continue
        raise ThreadBusy(new.thread_id, None)

    async def _check(self, request: RunRequest) -> NewRun:
        thread_id = request.thread_id or str(uuid.uuid4())
        thread = await self._thread(request, thread_id)
        graph = self._engine.graph_name(request.graph, thread)
        if thread is not None and thread.status == "busy":
            active = await self._store.active_run(thread.key)
            if active is not None:
                raise ThreadBusy(thread_id, active.run_id)
        plan = await self._engine.plan(request, graph=graph, thread_id=thread_id, thread=thread)
        return NewRun(
            owner=request.owner,
            run_id=request.run_id or str(uuid.uuid4()),
            thread_id=thread_id,
            graph=graph,
            request=plan,
            fingerprint=request.fingerprint,
            idempotency_key=request.idempotency_key,
            stream_modes=request.stream_modes,
            metadata=request.metadata,
            multitask_strategy=request.multitask_strategy,
            on_disconnect=request.on_disconnect,
            create_thread=request.if_not_exists == "create",
            # checked as new: one that came into being since has a higher version
            thread_version=0 if thread is None else thread.version,
        )

    async def _thread(self, request: RunRequest, thread_id: str) -> Thread | None:
        if request.thread_id is None:
            return None
        thread = await self._store.get_thread(scoped(request.owner, thread_id))
        if thread is None and request.if_not_exists == "reject":
            raise ThreadNotFound(thread_id)
        return thread

    async def _accept(self, new: NewRun) -> Started:
        start = start_event(new, attempt=1)
        accepted = await self._store.accept(new, worker=self._worker, start=start, max_active=self._max_concurrent_runs)
        if not accepted.created and accepted.run.fingerprint != new.fingerprint:
            raise IdempotencyConflict(accepted.run.run_id)
        if accepted.lease is not None:
            self._executor.start(accepted.run, accepted.lease)
        return Started(run=accepted.run, created=accepted.created)

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
        self._executor.cancel(key, reason, keep_partial=keep_partial)
        if wait and not run.is_ended:
            await self._executor.join(key)
            async for _ in tail(self._store, key, after=run.last_seq):
                pass
        return await self.get(owner, run_id)

    async def check_cursor(self, run: Run, after: int) -> None:
        """Raise EventIdAhead for a cursor beyond the end of the log: never a silent gap."""
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

    @contextlib.contextmanager
    def attach(self, run: Run) -> Iterator[None]:
        """Look on: see RunExecutor.attach."""
        with self._executor.attach(run.key):
            yield

    async def follow(self, run: Run, *, after: int, patience: Patience = lambda: None) -> AsyncGenerator[Slice, None]:
        """A run's events after a cursor, then live to the end, looked on at; a slice without events is a silence."""
        was_at_end, full_pages = False, 0
        pages = tail(self._store, run.key, after=after, patience=patience)
        with self._executor.attach(run.key):
            async with aclosing(pages):
                async for page in pages:
                    full_pages = full_pages + 1 if is_full(page) else 0
                    is_behind = was_at_end and full_pages > 1 and page.is_live
                    yield Slice(run=run, events=page.events, is_behind=is_behind)
                    was_at_end = was_at_end or full_pages == 0

    async def follow_thread(
        self, owner: str, thread_id: str, *, past: Run | None, after: int, patience: Patience
    ) -> AsyncGenerator[Slice, None]:
        """The events of a thread's runs, one run after the other, without an end.

        From `past` at its cursor on where it is given, else from the thread's active run on, or the next one.
        """
        thread_key, last = scoped(owner, thread_id), past
        if past is not None:
            async with aclosing(self.follow(past, after=after, patience=patience)) as slices:
                async for piece in slices:
                    yield piece
        while True:
            following = await self._store.next_run(thread_key, after=last.key if last else None)
            if following is None:
                if await self._is_silent(thread_key, last, patience()):
                    yield Slice(run=last, events=())
                continue
            last = following
            async with aclosing(self.follow(following, after=0, patience=patience)) as slices:
                async for piece in slices:
                    yield piece

    async def _is_silent(self, thread_key: str, last: Run | None, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._store.wait_run(thread_key, after=last.key if last else None)
        except TimeoutError:
            return True
        return False

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
        for run in await self._store.list_claimable(self._max_concurrent_runs):
            lease = await self._store.claim(run.key, self._worker)
            claimed = await self._store.get_run(run.key)
            if lease is not None and claimed is not None:
                self._executor.start(claimed, lease, restart=restart_reason(run, claimed))

    @property
    def is_durable(self) -> bool:
        """Whether what the end of this process cuts off goes on in another one."""
        return self._executor.is_durable

    def begin_drain(self) -> None:
        """From now on take no new runs, and let those that go on take no other step."""
        self._draining = True
        self._executor.begin_drain()

    async def drain(self) -> None:
        """Let running steps end, within the grace, and give up the rest."""
        self.begin_drain()
        await self._executor.aclose()


def is_full(page: Page) -> bool:
    """Whether a page ends because of its size, so that more is there."""
    if len(page.events) >= MAX_PAGE_EVENTS:
        return True
    return sum(len(event.text) for event in page.events) > MAX_PAGE_BYTES - LARGE_EVENT_BYTES


def restart_reason(before: Run, claimed: Run) -> RestartReason | None:
    if before.attempt == 0:
        return None
    return "crash" if claimed.crashes > before.crashes else "deploy"


def start_event(new: NewRun, *, attempt: int) -> NewEvent:
    body = {
        "event": "start",
        "run_id": new.run_id,
        "thread_id": new.thread_id,
        "graph": new.graph,
        "attempt": attempt,
    }
    return NewEvent("start", orjson.dumps(body))
