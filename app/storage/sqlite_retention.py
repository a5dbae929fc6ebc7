"""What is deleted because it is old, in SQLite: small operations on a connection, each inside a transaction."""

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.runs.model import Thread, ThreadStatus
from app.runs.store import Expiry
from app.storage.clock import Clock
from app.storage.sqlite_row import Sql, to_json, to_text, to_thread

# of one step; others wait for its end: about 10 ms
RUNS: Final = 50
SEGMENTS: Final = 200
BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    run_keys: Sequence[str]
    expiry: Expiry


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted:
    """A step of the deletion of a thread: runs whose logs are gone, wholly or in part."""

    run_keys: Sequence[str]
    is_done: bool


class Expiration:
    """Runs that ended long ago. One that is `expired` is gone for readers; 2 says that all but its row is deleted."""

    def __init__(self, sql: Sql, *, clock: Clock) -> None:
        self._sql = sql
        self._clock = clock

    def expire(self, connection: sqlite3.Connection, seconds: float) -> Expired:
        """See `Store.expire_runs`; also the keys of the runs that it dealt with."""
        due = {"before": self._before(seconds), "limit": RUNS}
        rows = connection.execute(self._sql["ended_runs"], due).fetchall()
        if not rows:
            return Expired(run_keys=(), expiry=Expiry(thread_keys=(), is_done=True))
        numbers = to_json([number for number, _, _ in rows])
        connection.execute(self._sql["hide_runs"], {"numbers": numbers})
        is_gone = self._delete_logs(connection, numbers)
        if is_gone:
            connection.execute(self._sql["clear_requests"], {"numbers": numbers})
            connection.execute(self._sql["expire_runs"], {"numbers": numbers})
        thread_keys = [thread_key for _, _, thread_key in rows] if is_gone else []
        expiry = Expiry(thread_keys=thread_keys, is_done=is_gone and len(rows) < RUNS)
        return Expired(run_keys=[key for _, key, _ in rows], expiry=expiry)

    def delete(self, connection: sqlite3.Connection, seconds: float) -> bool:
        """See `Store.delete_expired_runs`."""
        due = {"before": self._before(seconds), "limit": SEGMENTS}
        numbers = [number for (number,) in connection.execute(self._sql["expired_runs"], due).fetchall()]
        self._delete_rows(connection, to_json(numbers))
        return len(numbers) < SEGMENTS

    def delete_thread(self, connection: sqlite3.Connection, thread_key: str, worker: str) -> Deleted | None:
        """A step of `Store.delete_thread`; None when the worker does not hold the thread."""
        values = {"thread_key": thread_key, "limit": SEGMENTS}
        row = connection.execute(self._sql["occupation"], values).fetchone()
        if row is None or row[0] != worker:
            return None
        connection.execute(self._sql["hide_thread_runs"], values)
        rows = connection.execute(self._sql["thread_runs"], values).fetchall()
        numbers = to_json([number for number, _ in rows])
        is_gone = self._delete_logs(connection, numbers)
        if is_gone:
            self._delete_rows(connection, numbers)
        is_done = is_gone and len(rows) < SEGMENTS
        if is_done:
            connection.execute(self._sql["delete_thread"], values)
        return Deleted(run_keys=[key for _, key in rows], is_done=is_done)

    def unused_threads(
        self, connection: sqlite3.Connection, status: ThreadStatus, seconds: float, limit: int
    ) -> Sequence[Thread]:
        values = {"status": status, "before": self._before(seconds), "limit": limit}
        statement = f"{self._sql['select_thread']} {self._sql['where_unused']}"
        return [to_thread(row) for row in connection.execute(statement, values).fetchall()]

    def ended_threads(
        self, connection: sqlite3.Connection, after: datetime, limit: int
    ) -> Sequence[tuple[str, datetime]]:
        rows = connection.execute(self._sql["ended_threads"], {"after": to_text(after), "limit": limit}).fetchall()
        return [(thread_key, datetime.fromisoformat(finished_at)) for thread_key, finished_at in rows]

    def checkpoints_in_use(self, connection: sqlite3.Connection, thread_key: str) -> Collection[str]:
        rows = connection.execute(self._sql["checkpoints_in_use"], {"thread_key": thread_key}).fetchall()
        return {checkpoint_id for (checkpoint_id,) in rows if checkpoint_id is not None}

    def _delete_rows(self, connection: sqlite3.Connection, numbers: str) -> None:
        for name in ("delete_numbered_requests", "delete_numbered_runs"):
            connection.execute(self._sql[name], {"numbers": numbers})

    def _delete_logs(self, connection: sqlite3.Connection, numbers: str) -> bool:
        """Delete a piece of these logs. True when nothing of them is left."""
        bounds = {"numbers": numbers, "max_segments": SEGMENTS, "max_bytes": BYTES}
        connection.execute(self._sql["delete_logs"], bounds)
        (is_left,) = connection.execute(self._sql["has_logs"], {"numbers": numbers}).fetchone()
        return not is_left

    def _before(self, seconds: float) -> str:
        return to_text(self._clock.now() - timedelta(seconds=seconds))
