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
    future: asyncio.Future[Outcomes]
    writes: list[Write] = field(default_factory=list)


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
        self._lock = threading.Lock()  # between the event loop, which adds, and the thread, which takes
        self._gathering: _Group | None = None

    async def write(self, write: Write) -> int:
        """The last seq of the log, once the write is committed. Raises LeaseLost and StoreUnavailable."""
        group, place = self._join(write)
        outcome = (await asyncio.shield(group.future))[place]
        if isinstance(outcome, LeaseLost):
            raise outcome
        return outcome.last_seq

    def _join(self, write: Write) -> tuple[_Group, int]:
        with self._lock:
            group = self._gathering
            if group is None:
                group = self._gathering = self._submit()
            group.writes.append(write)
            return group, len(group.writes) - 1

    def _submit(self) -> _Group:
        gathered: list[Write] = []
        future = self._writer.submit(partial(self._write, gathered), on_commit=self._committed)
        return _Group(future, gathered)

    def _write(self, gathered: list[Write], connection: sqlite3.Connection) -> Outcomes:
        with self._lock:
            if self._gathering is not None and self._gathering.writes is gathered:
                self._gathering = None
        return self._log.write(connection, gathered, to_text(self._clock.now()))

    def _committed(self, outcomes: Outcomes) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Written):
                self._publish(outcome)
