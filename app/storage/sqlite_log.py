"""The logs in SQLite: many appends in a handful of statements, and a page in one."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from app.errors import EventsExpired, LeaseLost
from app.runs.event import Event, NewEvent
from app.runs.model import ENDED, Ending, Lease, RunStatus
from app.runs.store import Page
from app.storage import decide
from app.storage.decide import Tenure
from app.storage.sqlite_row import Sql, error_value, to_json
from app.storage.writer import NotAtOnce

SEGMENT_BYTES: Final = 256 * 1024
SEGMENTS_A_STATEMENT: Final = 64
COLUMNS_OF_APPENDS: Final = 7
MAX_TAILS: Final = 10_000

Segment = tuple[int, int, bytes]  # first seq, last seq, body


# tuples, as one of each is made for every token
class Write(NamedTuple):
    """Events for the end of a run's log, and how the run ends if they end it."""

    lease: Lease
    events: Sequence[NewEvent]
    ending: Ending | None = None


class Written(NamedTuple):
    run_key: str
    events: Sequence[Event]
    last_seq: int
    is_ended: bool


@dataclass(slots=True)
class Tail:
    """The end of a run's log, and the run's number."""

    number: int
    last_seq: int


@dataclass(slots=True)
class _Log:
    tail: Tail
    tenure: Tenure


class LogTable:
    """`runs.last_seq` and the segments. Its methods are operations on a connection, inside a transaction but for one.

    What it remembers are hints, which every statement that leans on them checks: a transaction may be rolled back.
    """

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        row = f"({', '.join('?' * COLUMNS_OF_APPENDS)})"
        # the statement for so many segments
        self._appends = [f"{sql['append']} {', '.join([row] * rows)}" for rows in range(SEGMENTS_A_STATEMENT + 1)]
        self._tails: dict[str, Tail] = {}  # of logs that are being written; for the writer's thread alone

    def write(self, connection: sqlite3.Connection, writes: Sequence[Write], now: str) -> Sequence[Written | LeaseLost]:
        """Carry out each of the writes, in order, whose lease still holds; the others write nothing.

        The epochs are looked at in the transaction that writes. Statements: one where all of the logs are known, else
        three; and two for each end.
        """
        try:
            outcomes: Sequence[Written | LeaseLost] = self._write_known(connection, writes)
        except NotAtOnce:
            outcomes = self._write_found(connection, writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if write.ending is not None and isinstance(outcome, Written):
                self._tails.pop(outcome.run_key, None)
                self.finish(connection, outcome.run_key, write.lease.thread_key, write.ending, now)
        return outcomes

    def write_at_once(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> Sequence[Written]:
        """`write` as one statement, which is a transaction of its own where there is none.

        Raises NotAtOnce, with nothing written, when it takes more than one: an end, no event, a log that is not known
        or not as it was, a lease that is lost.
        """
        for write in writes:
            if write.ending is not None:
                raise NotAtOnce
        return self._write_known(connection, writes)

    def _write_known(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> Sequence[Written]:
        written: dict[str, Written] = {}
        values: list[Any] = []
        for write in writes:
            lease = write.lease
            tail = self._tails.get(lease.run_key)
            # without a row nothing would look at the lease
            if tail is None or not write.events or lease.run_key in written:
                raise NotAtOnce
            outcome = written[lease.run_key] = _written(write, after=tail.last_seq)
            for segment in segments_of(outcome.events):
                values += (tail.number, lease.run_key, *segment, lease.epoch, lease.worker)
        rows = len(values) // COLUMNS_OF_APPENDS
        if rows > SEGMENTS_A_STATEMENT:
            raise NotAtOnce
        try:
            connection.execute(self._appends[rows], values)
        except sqlite3.IntegrityError:
            for run_key in written:
                del self._tails[run_key]
            raise NotAtOnce from None
        for run_key, outcome in written.items():
            self._tails[run_key].last_seq = outcome.last_seq
        return list(written.values())

    def _write_found(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Written | LeaseLost]:
        logs = self._logs(connection, {write.lease.run_key for write in writes})
        outcomes: list[Written | LeaseLost] = []
        segments: list[Any] = []
        for write in writes:
            try:
                outcomes.append(_placed(logs.get(write.lease.run_key), write, segments))
            except LeaseLost as error:
                outcomes.append(error)
        self.insert(connection, segments)
        if segments:
            moves = [(log.tail.number, log.tail.last_seq) for log in logs.values()]
            connection.execute(self._sql["advance"], {"moves": to_json(moves)})
        for outcome in outcomes:
            if isinstance(outcome, Written):
                self.know(outcome.run_key, logs[outcome.run_key].tail)
        return outcomes

    def know(self, run_key: str, tail: "Tail") -> None:
        """Where a log ends, for its next write. It need not stay true: that write looks whether it is."""
        if len(self._tails) >= MAX_TAILS:
            self._tails.clear()
        self._tails[run_key] = tail

    def insert(self, connection: sqlite3.Connection, segments: list[Any]) -> None:
        """Insert segments, given as one flat list: run, first seq, last seq, body, run, and so on."""
        step = 4 * SEGMENTS_A_STATEMENT
        for start in range(0, len(segments), step):
            values = segments[start : start + step]
            rows = ", ".join(["(?, ?, ?, ?)"] * (len(values) // 4))
            connection.execute(f"{self._sql['insert_segments']} {rows}", values)

    def append(
        self,
        connection: sqlite3.Connection,
        run_key: str,
        number: int,
        events: Sequence[NewEvent],
        *,
        after: int,
        is_ended: bool = False,
    ) -> Written:
        """Write to one log, without a look at its lease."""
        placed = decide.numbered(events, after=after)
        for segment in segments_of(placed):
            self.insert(connection, [number, *segment])
        last_seq = after + len(placed)
        connection.execute(self._sql["advance"], {"moves": to_json([(number, last_seq)])})
        if not is_ended:
            self.know(run_key, Tail(number, last_seq))
        return Written(run_key=run_key, events=placed, last_seq=last_seq, is_ended=is_ended)

    def page(
        self, connection: sqlite3.Connection, run_key: str, *, after: int, max_events: int, max_bytes: int
    ) -> Page:
        values = {"run_key": run_key, "after": after, "max_events": max(max_events, 1), "max_bytes": max(max_bytes, 0)}
        row = connection.execute(self._sql["page"], values).fetchone()
        if row is None:
            return Page(events=(), closed=True)
        run_id, thread_id, expired, status, last_seq, first_seq, body = row
        if expired:
            raise EventsExpired(run_id, thread_id)
        events: Sequence[Event] = ()
        if body is not None:
            start = max(after + 1 - first_seq, 0)  # the first segment may begin before the page
            texts = body.split(b"\n")[start : start + max(max_events, 1)]
            near = [Event(seq, text) for seq, text in enumerate(texts, first_seq + start)]
            events = decide.cut(near, 0, max_events=max_events, max_bytes=max_bytes)
        return decide.page(events, after=after, last_seq=last_seq, is_ended=status in ENDED)

    def has_news(self, connection: sqlite3.Connection, run_key: str, *, after: int) -> bool:
        """Whether something is after `after`, or nothing ever will be."""
        row = connection.execute(self._sql["log_end"], {"run_key": run_key}).fetchone()
        return row is None or row[0] in ENDED or row[1] > after

    def _logs(self, connection: sqlite3.Connection, run_keys: set[str]) -> dict[str, _Log]:
        values = {"run_keys": to_json(list(run_keys))}
        (rows,) = connection.execute(self._sql["logs"], values).fetchone()
        return {
            key: _Log(Tail(number, seq), Tenure(status=status, worker=worker, epoch=epoch, lease_until=lease_until))
            for key, number, seq, status, worker, epoch, lease_until in orjson.loads(rows)
        }

    def finish(self, connection: sqlite3.Connection, run_key: str, thread_key: str, ending: Ending, now: str) -> None:
        """How the run ends, and what its thread is then."""
        values = {
            "run_key": run_key,
            "status": ending.status,
            "now": now,
            "usage": None if ending.usage is None else to_json(dict(ending.usage)),
            "error": error_value(ending.error),
            "checkpoint_id": ending.checkpoint_id,
            "thread_status": ending.thread_status,
            "thread_key": thread_key,
        }
        connection.execute(self._sql["finish_run"], values)
        connection.execute(self._sql["finish_thread"], values)


def segments_of(events: Sequence[Event]) -> Sequence[Segment]:
    """The events as bodies of at most SEGMENT_BYTES; one that is larger has a segment of its own."""
    if len(events) == 1:
        return [_segment(events)]
    segments: list[Segment] = []
    start, size = 0, 0
    for index, event in enumerate(events):
        if size and size + len(event.text) > SEGMENT_BYTES:
            segments.append(_segment(events[start:index]))
            start, size = index, 0
        size += len(event.text) + 1
    if events:
        segments.append(_segment(events[start:]))
    return segments


def _segment(events: Sequence[Event]) -> Segment:
    return events[0].seq, events[-1].seq, b"\n".join([event.text for event in events])


def _placed(log: _Log | None, write: Write, segments: list[Any]) -> Written:
    """Number the events and add them to the segments. Raises LeaseLost. Moves the log, for the writes behind it."""
    decide.fence(None if log is None else log.tenure, write.lease)
    assert log is not None  # the fence has seen it
    written = _written(write, after=log.tail.last_seq)
    for segment in segments_of(written.events):
        segments.extend((log.tail.number, *segment))
    log.tail.last_seq = written.last_seq
    if write.ending is not None:
        log.tenure = _ended(log.tenure, write.ending.status)
    return written


def _written(write: Write, *, after: int) -> Written:
    events = decide.numbered(write.events, after=after)
    last_seq, is_ended = after + len(events), write.ending is not None
    return Written(run_key=write.lease.run_key, events=events, last_seq=last_seq, is_ended=is_ended)


def _ended(tenure: Tenure, status: RunStatus) -> Tenure:
    return Tenure(status=status, worker=tenure.worker, epoch=tenure.epoch, lease_until=tenure.lease_until)
