"""The decisions every store makes alike, without a database: who is let in, who may write, what a page holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, assert_never

import orjson

from app.errors import (
    GraphMismatch,
    Invalid,
    LeaseLost,
    LogClosed,
    StaleThread,
    ThreadBusy,
    ThreadNotFound,
    TooManyRuns,
)
from app.runs.event import TERMINAL, Event, NewEvent, with_seq
from app.runs.model import ENDED, Admission, Lease, NewRun, Run, RunStatus, Thread, ThreadStatus
from app.runs.store import Page, ThreadQuery

SortField = Literal["created_at", "updated_at", "thread_id", "status"]

_SORT_FIELDS: Final[Mapping[str, SortField]] = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "thread_id": "thread_id",
    "status": "status",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a store finds when a run asks to be let in. A thread that does not exist has the version 0."""

    thread_exists: bool
    graph: str | None
    version: int
    held: bool
    rest_status: ThreadStatus
    active_run_id: str | None  # the oldest active run of the thread
    active_runs: int  # of all owners
    active_runs_of_owner: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenure:
    """Who may write for a run, and until when (seconds of `Clock.monotonic`)."""

    status: RunStatus
    worker: str | None  # None: nobody had it, or it was given up
    epoch: int
    lease_until: float


def admit(new: NewRun, standing: Standing, *, is_claimed: bool, admission: Admission) -> None:
    """Raise what `Store.accept` says, in its order, unless the run may be stored."""
    if not standing.thread_exists and not new.create_thread:
        raise ThreadNotFound(new.thread_id)
    if standing.graph is not None and standing.graph != new.graph:
        raise GraphMismatch(new.thread_id, standing.graph)
    if standing.held:
        # not even in line: it may be deleted with all of its runs; if not, it is free in a moment
        raise ThreadBusy(new.thread_id, None)
    is_busy = standing.active_run_id is not None
    if is_busy and new.multitask_strategy == "reject":
        raise ThreadBusy(new.thread_id, standing.active_run_id)
    if is_claimed and is_busy:
        raise StaleThread(new.thread_id)
    if new.thread_version is not None and new.thread_version != standing.version:
        raise StaleThread(new.thread_id)
    if standing.active_runs >= admission.max_active:
        raise TooManyRuns(f"The server works on {admission.max_active} runs already; try again later.")
    bound = admission.max_active_of_owner
    if bound is not None and standing.active_runs_of_owner >= bound:
        raise TooManyRuns(f"{bound} of your runs are active already; try again when one has ended.")


def stops_others(new: NewRun) -> bool:
    """Whether a run stops the ones that are active on its thread."""
    return new.multitask_strategy in ("interrupt", "rollback")


def superseded(new: NewRun, others: Sequence[Run]) -> tuple[str, ...]:
    """The keys of the runs to undo before the new one begins; `others` are the active ones of its thread."""
    found = [key for run in others if run.status == "pending" for key in run.supersedes]
    if new.multitask_strategy == "rollback":
        found += [run.key for run in others]
    return tuple(dict.fromkeys(found))


def require_free(thread_id: str, *, held: bool, active_run_id: str | None) -> None:
    """Raise ThreadBusy when a run is active on the thread, or its state is being edited."""
    if held or active_run_id is not None:
        raise ThreadBusy(thread_id, active_run_id)


def fence(tenure: Tenure | None, lease: Lease) -> None:
    """Raise LeaseLost unless the lease still is the right to write for its run (LogClosed when the run has ended).

    A lease that ran out and that nobody took still is: only a claim takes the right away.
    """
    if tenure is None:
        raise LeaseLost(f"There is no run {lease.run_key}.")
    if tenure.status in ENDED:
        raise LogClosed(f"The run {lease.run_key} has ended.")
    if tenure.status != "running" or tenure.worker != lease.worker or tenure.epoch != lease.epoch:
        raise LeaseLost(f"The run {lease.run_key} is at epoch {tenure.epoch}, the lease at {lease.epoch}.")


def is_claimable(tenure: Tenure, *, now: float, is_turn: bool) -> bool:
    """Whether nobody works on the run; `is_turn`: its thread is not held, and it is the oldest active run of it."""
    match tenure.status:
        case "pending":
            return is_turn
        case "running":
            return tenure.lease_until <= now
        case "success" | "interrupted" | "cancelled" | "error" | "timeout":
            return False
        case _:
            assert_never(tenure.status)


def is_crash(tenure: Tenure) -> bool:
    """Whether a claim finds that the worker before went without a word; one that gave its lease up has no name left."""
    return tenure.status == "running" and tenure.worker is not None


def first_row(
    new: NewRun,
    *,
    worker: str | None,
    last_seq: int,
    now: datetime,
    thread_status: ThreadStatus,
    supersedes: tuple[str, ...] = (),
) -> Run:
    """The row of a run that has just been let in: running when a worker is named, otherwise pending."""
    turn = 0 if worker is None else 1
    return Run(
        owner=new.owner,
        run_id=new.run_id,
        thread_id=new.thread_id,
        graph=new.graph,
        status="pending" if worker is None else "running",
        request=plain(new.request),
        fingerprint=new.fingerprint,
        idempotency_key=new.idempotency_key,
        stream_modes=tuple(new.stream_modes),
        metadata=plain(new.metadata),
        multitask_strategy=new.multitask_strategy,
        on_disconnect=new.on_disconnect,
        epoch=turn,
        attempt=turn,
        crashes=0,
        last_seq=last_seq,
        created_at=now,
        started_at=None if worker is None else now,
        supersedes=supersedes,
        thread_status=thread_status,
    )


def first_thread(new: NewRun, *, now: datetime) -> Thread:
    """The thread that a run makes when it names one that does not exist; the run's own claim is not counted in it."""
    return Thread(
        owner=new.owner,
        thread_id=new.thread_id,
        graph=new.graph,
        status="busy",
        metadata={},
        version=0,
        created_at=now,
        updated_at=now,
    )


def thread_id_of(thread_key: str) -> str:
    return thread_key.rpartition("/")[2]


def lease_of(run: Run, worker: str, *, version: int, is_new_thread: bool = False) -> Lease:
    """The lease that a claim gives; `version` is the thread's, after the claim."""
    return Lease(
        run_key=run.key,
        thread_key=run.thread_key,
        worker=worker,
        epoch=run.epoch,
        attempt=run.attempt,
        version=version,
        is_new_thread=is_new_thread,
    )


def require_open_ended(events: Sequence[NewEvent]) -> None:
    """Raise ValueError unless the events may be appended: one line each, none of them terminal."""
    for event in events:
        _require_line(event)
        if event.kind in TERMINAL:
            raise ValueError("A terminal event is written by finish, with the run's status.")


def require_ending(events: Sequence[NewEvent]) -> None:
    """Raise ValueError unless the last of the events, and no other one, is terminal."""
    for event in events:
        _require_line(event)
    if not events or not events[-1].is_terminal or any(event.is_terminal for event in events[:-1]):
        raise ValueError("A run ends with exactly one terminal event, the last one.")


def _require_line(event: NewEvent) -> None:
    # strict JSON has no raw newline: it is what separates the events of a stored segment
    if b"\n" in event.text:
        raise ValueError("The text of an event is one line.")


def numbered(events: Sequence[NewEvent], *, after: int) -> list[Event]:
    """The events with their places in the log, the first one at `after` + 1."""
    return [Event(seq, with_seq(event.text, seq)) for seq, event in enumerate(events, after + 1)]


def cut(events: Sequence[Event], start: int, *, max_events: int, max_bytes: int) -> Sequence[Event]:
    """The events from the index `start` on, at most so many and so many bytes of text, yet one at the least."""
    stop = min(len(events), start + max(max_events, 1))
    size = 0
    for index in range(start, stop):
        size += len(events[index].text)
        if size > max_bytes and index > start:
            return events[start:index]
    return events[start:stop]


def page(events: Sequence[Event], *, after: int, last_seq: int, is_ended: bool) -> Page:
    """A page of a log that ends at `last_seq`: closed when the run has ended and nothing is after the page."""
    reached = events[-1].seq if events else after
    return Page(events=events, closed=is_ended and reached >= last_seq, is_live=not is_ended)


def parse_cursor(cursor: str | None) -> int | None:
    """The run's number in a cursor of `Store.list_runs`. Raises Invalid for text that is none."""
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise Invalid("The cursor is not one that a page of runs gave.", loc=("query", "cursor"))
    return int(cursor)


def sort_field(query: ThreadQuery) -> SortField:
    """Raises Invalid for a field that threads are not sorted by."""
    field = _SORT_FIELDS.get(query.sort_by)
    if field is None:
        raise Invalid(f"Threads are sorted by one of: {', '.join(_SORT_FIELDS)}.", loc=("body", "sort_by"))
    return field


def contains(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether each wanted key is there with an equal value, equal as JSON: 1 is not true."""
    return all(key in metadata and _canonical(metadata[key]) == _canonical(value) for key, value in wanted.items())


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as any store gives it back. Raises TypeError for what is no JSON."""
    return orjson.loads(orjson.dumps(dict(value)))  # type: ignore[no-any-return]


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
