"""Makes one operation of all the appends that gather while a commit runs."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from app.errors import LeaseLost
from app.storage.clock import Clock
from app.storage.sqlite_log import LogTable, Write, Written
from app.storage.sqlite_row import to_text
from app.storage.writer import SqliteWriter

Outcomes = Sequence[Written | LeaseLost]


@dataclass(slots=True, eq=False)
class _Group:
    """Writes, and beside each its caller's future."""

    writes: list[Write] = field(default_factory=list)
    callers: list[asyncio.Future[int]] = field(default_factory=list)

    def settle(self, outcomes: Outcomes) -> None:
        for caller, outcome in zip(self.callers, outcomes, strict=True):
            if caller.done():  # cancelled, and its events are committed all the same
                continue
            if isinstance(outcome, LeaseLost):
                caller.set_exception(outcome)
            else:
                caller.set_result(outcome.last_seq)

    def fail(self, error: BaseException) -> None:
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(error)


class LogWriter:
    """Writes to logs in groups: fifty runs that each append cost the statements of one.

    Each statement makes the writer's thread wait for the GIL, so their number is what counts, not their size.
    A group takes writes until its turn has come in the writer's thread.
    """

    def __init__(
        self, writer: SqliteWriter, log: LogTable, *, clock: Clock, publish: Callable[[Written], None]
    ) -> None:
        self._writer = writer
        self._log = log
        self._clock = clock
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # between the event loop, which adds, and the thread, which takes
        self._gathering: _Group | None = None

    def write(self, write: Write) -> asyncio.Future[int]:
        """The last seq of the log, once the write is committed. Raises LeaseLost and StoreUnavailable."""
        caller: asyncio.Future[int] = self._loop.create_future()
        with self._lock:
            group = self._gathering or self._submit()
            group.writes.append(write)
            group.callers.append(caller)
            self._gathering = group
        return caller

    def _submit(self) -> _Group:
        group = _Group()
        self._writer.post(
            partial(self._write, group),
            at_once=partial(self._write_at_once, group),
            on_commit=partial(self._committed, group),
            on_failure=group.fail,
        )
        return group

    def _write_at_once(self, group: _Group, connection: sqlite3.Connection) -> Outcomes:
        self._take(group)
        return self._log.write_at_once(connection, group.writes)

    def _take(self, group: _Group) -> None:
        with self._lock:
            if self._gathering is group:
                self._gathering = None

    def _write(self, group: _Group, connection: sqlite3.Connection) -> Outcomes:
        self._take(group)
        return self._log.write(connection, group.writes, to_text(self._clock.now()))

    def _committed(self, group: _Group, outcomes: Outcomes) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Written):
                self._publish(outcome)
        group.settle(outcomes)
