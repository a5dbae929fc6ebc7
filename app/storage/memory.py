"""The store that lives and dies with its process: plain dicts, for tests and for trying things out."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.errors import EventsExpired, LeaseLost, StaleThread, StoreUnavailable, ThreadNotFound
from app.runs.event import Event, NewEvent
from app.runs.model import (
    ACTIVE,
    Accepted,
    Admission,
    CancelReason,
    Ending,
    Lease,
    NewRun,
    Run,
    Thread,
    ThreadStatus,
    Turn,
    scoped,
)
from app.runs.store import MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Expiry, Page, RunQuery, ThreadQuery
from app.storage import decide
from app.storage.bell import Bells, runs_of
from app.storage.clock import Clock, SystemClock
from app.storage.decide import Standing, Tenure

LEASE_SECONDS: Final = 30.0


@dataclass(slots=True)
class _RunRecord:
    number: int
    run: Run
    worker: str | None = None
    lease_until: float = 0.0
    events: list[Event] = field(default_factory=list)

    @property
    def is_active(self) -> bool:
        return self.run.status in ACTIVE

    @property
    def tenure(self) -> Tenure:
        return Tenure(status=self.run.status, worker=self.worker, epoch=self.run.epoch, lease_until=self.lease_until)


@dataclass(slots=True)
class _ThreadRecord:
    number: int
    thread: Thread
    held_by: str | None = None


class MemoryStore:
    """`app.runs.store.Store` in one process. No method waits between its first look and its last change."""

    def __init__(self, *, lease_seconds: float = LEASE_SECONDS, clock: Clock | None = None) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock or SystemClock()
        self._runs: dict[str, _RunRecord] = {}  # in the order of acceptance
        self._threads: dict[str, _ThreadRecord] = {}
        self._bells = Bells()
        self._numbers = 0
        self._is_closed = False

    async def accept(
        self, new: NewRun, *, worker: str | None, start: NewEvent | None, admission: Admission
    ) -> Accepted:
        decide.require_open_ended([start] if start is not None else [])
        earlier = self._earlier(new)
        if earlier is not None:
            return Accepted(run=earlier, created=False, lease=None)
        standing = self._standing(new)
        decide.admit(new, standing, is_claimed=worker is not None, admission=admission)
        to_stop = self._stop_others(new)
        events = decide.numbered([start] if worker is not None and start is not None else [], after=0)
        run = decide.first_row(
            new,
            worker=worker,
            last_seq=len(events),
            now=self._clock.now(),
            thread_status=standing.rest_status,
            supersedes=decide.superseded(new, to_stop),
        )
        record = _RunRecord(self._next_number(), run, worker, 0.0 if worker is None else self._lease_until(), events)
        self._runs[run.key] = record
        thread = self._occupy(new, claims=run.epoch)
        is_new = not standing.thread_exists
        lease = None if worker is None else decide.lease_of(run, worker, version=thread.version, is_new_thread=is_new)
        self._bells.ring(run.key)
        self._bells.ring(runs_of(new.thread_key))
        return Accepted(run=run, created=True, lease=lease, to_stop=to_stop)

    def _stop_others(self, new: NewRun) -> tuple[Run, ...]:
        if not decide.stops_others(new):
            return ()
        others = self._active(new.thread_key)
        for record in others:
            record.run = replace(record.run, cancel_reason=record.run.cancel_reason or "superseded")
        return tuple(record.run for record in others)

    async def claim(
        self, run_key: str, worker: str, *, start: NewEvent | None = None, turn: Turn | None = None
    ) -> Lease | None:
        record = self._runs.get(run_key)
        if record is None:
            return None
        is_turn = self._is_turn(record)
        if not decide.is_claimable(record.tenure, now=self._clock.monotonic(), is_turn=is_turn):
            return None
        if record.run.status == "pending" and turn is not None:
            if turn.thread_version != self._threads[record.run.thread_key].thread.version:
                raise StaleThread(record.run.thread_id)
            request = decide.plain(turn.request)
            record.run = replace(record.run, request=request, thread_status=turn.thread_status)
        record.run = replace(
            record.run,
            status="running",
            epoch=record.run.epoch + 1,
            attempt=record.run.attempt + 1,
            crashes=record.run.crashes + decide.is_crash(record.tenure),
            started_at=record.run.started_at or self._clock.now(),
        )
        record.worker, record.lease_until = worker, self._lease_until()
        held = self._threads[record.run.thread_key]
        held.thread = replace(held.thread, version=held.thread.version + 1)
        if start is not None and record.run.last_seq == 0:
            self._extend(record, [start])
        return decide.lease_of(record.run, worker, version=held.thread.version)

    async def dismiss(
        self, run_key: str, events: Sequence[NewEvent], ending: Ending, *, keeps_status: bool = True
    ) -> bool:
        decide.require_ending(events)
        record = self._runs.get(run_key)
        if record is None or record.run.status != "pending":
            return False
        run = replace(record.run, epoch=record.run.epoch + 1, attempt=record.run.attempt + 1)
        held = self._threads[run.thread_key]
        if keeps_status:
            ending = replace(ending, thread_status=held.thread.rest_status)
        self._conclude(record, run, ending)
        self._extend(record, events)
        return True

    async def renew(self, lease: Lease) -> bool:
        self.renew_now([lease])
        return self._owned(lease) is not None

    def renew_now(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            record = self._owned(lease)
            if record is not None:
                record.lease_until = self._lease_until()

    async def abandon(self, lease: Lease) -> None:
        record = self._owned(lease)
        if record is not None:
            record.worker, record.lease_until = None, 0.0

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> int:
        decide.require_open_ended(events)
        return self._extend(self._fenced(lease), events)

    def submit(self, lease: Lease, events: Sequence[NewEvent]) -> asyncio.Future[int]:
        decide.require_open_ended(events)
        appended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            appended.set_result(self._extend(self._fenced(lease), events))
        except LeaseLost as error:
            appended.set_exception(error)
        return appended

    async def finish(self, lease: Lease, events: Sequence[NewEvent], ending: Ending) -> int:
        decide.require_ending(events)
        record = self._fenced(lease)
        self._conclude(record, record.run, ending)
        return self._extend(record, events)

    def _conclude(self, record: _RunRecord, run: Run, ending: Ending) -> None:
        now = self._clock.now()
        record.run = replace(
            run,
            status=ending.status,
            finished_at=now,
            usage=None if ending.usage is None else decide.plain(ending.usage),
            error=ending.error,
            checkpoint_id=ending.checkpoint_id,
        )
        held = self._threads[run.thread_key]
        status: ThreadStatus = "busy" if self._active(run.thread_key) else ending.thread_status
        version = held.thread.version + 1
        held.thread = replace(
            held.thread, status=status, rest_status=ending.thread_status, version=version, updated_at=now
        )

    async def read(
        self, run_key: str, *, after: int, max_events: int = MAX_PAGE_EVENTS, max_bytes: int = MAX_PAGE_BYTES
    ) -> Page:
        self._require_open()
        record = self._runs.get(run_key)
        if record is None:
            return Page(events=(), closed=True)
        if record.run.expired:
            raise EventsExpired(record.run.run_id, record.run.thread_id)
        events = decide.cut(record.events, after, max_events=max_events, max_bytes=max_bytes)
        return decide.page(events, after=after, last_seq=record.run.last_seq, is_ended=record.run.is_ended)

    async def wait(self, run_key: str, *, after: int, seconds: float | None = None) -> bool:
        self._require_open()
        with self._bells.listen(run_key) as bell:
            return self._has_news(run_key, after) or await bell.wait(seconds)

    async def request_cancel(self, run_key: str, reason: CancelReason) -> Run | None:
        record = self._runs.get(run_key)
        if record is None:
            return None
        if record.is_active and record.run.cancel_reason is None:
            record.run = replace(record.run, cancel_reason=reason)
        return record.run

    async def get_run(self, run_key: str) -> Run | None:
        record = self._runs.get(run_key)
        return None if record is None else record.run

    async def find_run(self, owner: str, idempotency_key: str) -> Run | None:
        runs = (record.run for record in self._runs.values())
        return next((run for run in runs if (run.owner, run.idempotency_key) == (owner, idempotency_key)), None)

    async def list_runs(self, query: RunQuery) -> tuple[Sequence[Run], str | None]:
        before = decide.parse_cursor(query.cursor)
        found = [
            record
            for record in reversed(self._runs.values())
            if record.run.owner == query.owner
            and query.thread_id in (None, record.run.thread_id)
            and query.status in (None, record.run.status)
            and (before is None or record.number < before)
        ]
        given = found[: query.limit]
        return [record.run for record in given], str(given[-1].number) if given and len(found) > len(given) else None

    async def list_claimable(self, limit: int) -> Sequence[Run]:
        now = self._clock.monotonic()
        return [record.run for record in self._runs.values() if self._is_waiting(record, now)][:limit]

    async def list_pending(self, limit: int) -> Sequence[Run]:
        return [record.run for record in self._runs.values() if record.run.status == "pending"][:limit]

    async def active_run(self, thread_key: str) -> Run | None:
        return next((record.run for record in self._active(thread_key)), None)

    async def next_run(self, thread_key: str, *, after: str | None) -> Run | None:
        number = self._runs[after].number if after in self._runs else 0
        later = (r.run for r in self._runs.values() if r.number > number and r.run.thread_key == thread_key)
        return next(later, None)

    async def wait_run(self, thread_key: str, *, after: str | None, seconds: float | None = None) -> bool:
        self._require_open()
        with self._bells.listen(runs_of(thread_key)) as bell:
            return await self.next_run(thread_key, after=after) is not None or await bell.wait(seconds)

    async def expire_runs(self, seconds: float) -> Expiry:
        due = [record for record in self._ended_before(seconds) if not record.run.expired]
        for record in due:
            record.events.clear()
            record.run = replace(record.run, request={}, expired=True)
            self._bells.ring(record.run.key)
        return Expiry(thread_keys=[record.run.thread_key for record in due], is_done=True)

    async def delete_expired_runs(self, seconds: float) -> bool:
        for record in self._ended_before(seconds):
            if record.run.expired:
                del self._runs[record.run.key]
        return True

    async def list_unused_threads(self, status: ThreadStatus, seconds: float, limit: int) -> Sequence[Thread]:
        before = self._clock.now() - timedelta(seconds=seconds)
        free = (record.thread for record in self._threads.values() if record.held_by is None)
        unused = [thread for thread in free if thread.status == status != "busy" and thread.updated_at <= before]
        return sorted(unused, key=lambda thread: thread.updated_at)[:limit]

    async def list_ended_threads(self, after: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        runs = [record.run for record in self._runs.values() if not record.run.expired]
        ends = [(run.thread_key, run.finished_at) for run in runs if run.finished_at and run.finished_at > after]
        return sorted(ends, key=lambda end: end[1])[:limit]

    async def checkpoints_in_use(self, thread_key: str) -> Collection[str]:
        runs = [record.run for record in self._runs.values() if record.run.thread_key == thread_key]
        ends = [run.checkpoint_id for run in runs if not run.expired]
        begins = [run.request.get("checkpoint_id") for run in runs if not run.is_ended]
        return {checkpoint_id for checkpoint_id in [*ends, *begins] if checkpoint_id is not None}

    async def reclaim(self) -> bool:
        return True

    async def create_thread(self, thread: Thread) -> Thread | None:
        if thread.key in self._threads:
            return None
        kept = replace(thread, metadata=decide.plain(thread.metadata), rest_status=thread.status)
        self._threads[thread.key] = _ThreadRecord(self._next_number(), kept)
        return kept

    async def get_thread(self, thread_key: str) -> Thread | None:
        record = self._threads.get(thread_key)
        return None if record is None else record.thread

    async def update_thread(self, thread_key: str, *, metadata: Mapping[str, Any]) -> Thread | None:
        record = self._threads.get(thread_key)
        if record is None:
            return None
        merged = {**record.thread.metadata, **decide.plain(metadata)}
        record.thread = replace(record.thread, metadata=merged, updated_at=self._clock.now())
        return record.thread

    async def delete_thread(self, thread_key: str, worker: str) -> bool:
        record = self._threads.get(thread_key)
        if record is None or record.held_by != worker:
            return False
        del self._threads[thread_key]
        for run_key in [key for key, kept in self._runs.items() if kept.run.thread_key == thread_key]:
            del self._runs[run_key]
            self._bells.ring(run_key)
        return True

    async def search_threads(self, query: ThreadQuery) -> Sequence[Thread]:
        name = decide.sort_field(query)
        found = sorted(
            self._matching(query),
            key=lambda record: (getattr(record.thread, name), record.number),
            reverse=query.descending,
        )
        return [record.thread for record in found[query.offset : query.offset + query.limit]]

    async def count_threads(self, query: ThreadQuery) -> int:
        return len(self._matching(query))

    async def hold(self, thread_key: str, worker: str) -> Thread:
        record = self._threads.get(thread_key)
        thread_id = decide.thread_id_of(thread_key)
        if record is None:
            raise ThreadNotFound(thread_id)
        active = await self.active_run(thread_key)
        decide.require_free(
            thread_id, held=record.held_by is not None, active_run_id=None if active is None else active.run_id
        )
        record.held_by = worker
        return record.thread

    async def release(
        self, thread_key: str, worker: str, *, status: ThreadStatus | None, graph: str | None = None
    ) -> None:
        record = self._threads.get(thread_key)
        if record is None or record.held_by != worker:
            return
        record.held_by = None
        record.thread = replace(record.thread, graph=record.thread.graph or graph)
        if status is not None:
            version, now = record.thread.version + 1, self._clock.now()
            record.thread = replace(record.thread, status=status, rest_status=status, version=version, updated_at=now)

    async def ping(self) -> None:
        self._require_open()

    async def aclose(self) -> None:
        self._is_closed = True
        self._bells.ring_all()

    def _earlier(self, new: NewRun) -> Run | None:
        by_id = self._runs.get(new.key)
        runs = (record.run for record in self._runs.values() if new.idempotency_key is not None)
        wanted = (new.owner, new.idempotency_key)
        by_key = next((run for run in runs if (run.owner, run.idempotency_key) == wanted), None)
        return by_key or (None if by_id is None else by_id.run)

    def _standing(self, new: NewRun) -> Standing:
        record = self._threads.get(new.thread_key)
        active = self._active(new.thread_key)
        return Standing(
            thread_exists=record is not None,
            graph=None if record is None else record.thread.graph,
            version=0 if record is None else record.thread.version,
            held=record is not None and record.held_by is not None,
            rest_status="idle" if record is None else record.thread.rest_status,
            active_run_id=active[0].run.run_id if active else None,
            active_runs=sum(kept.is_active for kept in self._runs.values()),
            active_runs_of_owner=sum(kept.is_active and kept.run.owner == new.owner for kept in self._runs.values()),
        )

    def _occupy(self, new: NewRun, *, claims: int) -> Thread:
        now = self._clock.now()
        record = self._threads.get(new.thread_key)
        if record is None:
            record = _ThreadRecord(self._next_number(), decide.first_thread(new, now=now))
            self._threads[new.thread_key] = record
        thread = record.thread
        record.thread = replace(
            thread, status="busy", graph=thread.graph or new.graph, version=thread.version + claims, updated_at=now
        )
        return record.thread

    def _active(self, thread_key: str) -> Sequence[_RunRecord]:
        return [record for record in self._runs.values() if record.run.thread_key == thread_key and record.is_active]

    def _is_waiting(self, record: _RunRecord, now: float) -> bool:
        return decide.is_claimable(record.tenure, now=now, is_turn=record.is_active and self._is_turn(record))

    def _is_turn(self, record: _RunRecord) -> bool:
        is_held = self._threads[record.run.thread_key].held_by is not None
        return not is_held and self._active(record.run.thread_key)[:1] == [record]

    def _matching(self, query: ThreadQuery) -> Sequence[_ThreadRecord]:
        keys = None if query.ids is None else {scoped(query.owner, thread_id) for thread_id in query.ids}
        return [
            record
            for key, record in self._threads.items()
            if record.thread.owner == query.owner
            and (keys is None or key in keys)
            and query.status in (None, record.thread.status)
            and decide.contains(record.thread.metadata, query.metadata or {})
        ]

    def _fenced(self, lease: Lease) -> _RunRecord:
        record = self._runs.get(lease.run_key)
        decide.fence(None if record is None else record.tenure, lease)
        assert record is not None  # the fence has seen it
        return record

    def _owned(self, lease: Lease) -> _RunRecord | None:
        try:
            return self._fenced(lease)
        except LeaseLost:
            return None

    def _extend(self, record: _RunRecord, events: Sequence[NewEvent]) -> int:
        record.events.extend(decide.numbered(events, after=record.run.last_seq))
        record.run = replace(record.run, last_seq=len(record.events))
        self._bells.ring(record.run.key)
        return record.run.last_seq

    def _has_news(self, run_key: str, after: int) -> bool:
        record = self._runs.get(run_key)
        return record is None or record.run.is_ended or record.run.last_seq > after

    def _ended_before(self, seconds: float) -> Sequence[_RunRecord]:
        before = self._clock.now() - timedelta(seconds=seconds)
        ends = ((record.run.finished_at, record) for record in self._runs.values())
        return [record for finished_at, record in ends if finished_at is not None and finished_at <= before]

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _lease_until(self) -> float:
        return self._clock.monotonic() + self._lease_seconds

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
