"""The store of the embedded default: one SQLite file in a data directory that belongs to one process."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from app.errors import ConfigInvalid, StoreUnavailable
from app.runs.event import NewEvent
from app.runs.model import Accepted, Admission, CancelReason, Ending, Lease, NewRun, Run, Thread, ThreadStatus, Turn
from app.runs.store import MAX_PAGE_BYTES, MAX_PAGE_EVENTS, Expiry, Page, RunQuery, ThreadQuery
from app.storage import decide
from app.storage.bell import Bells, runs_of
from app.storage.clock import Clock, SystemClock
from app.storage.lock import DirectoryLock
from app.storage.sqlite_group import LogWriter
from app.storage.sqlite_log import LogTable, Write, Written
from app.storage.sqlite_read import SqliteReaders
from app.storage.sqlite_retention import Deleted, Expiration, Expired
from app.storage.sqlite_row import SCHEMA_VERSION, Sql, load_migrations, load_schema, load_sql
from app.storage.sqlite_run import RunTable
from app.storage.sqlite_thread import ThreadTable, add_functions
from app.storage.window import Windows
from app.storage.writer import SqliteWriter, connect

FILE_NAME: Final = "runstream.db"
LEASE_SECONDS: Final = 30.0


class SqliteStore:
    """`app.runs.store.Store` on SQLite: one writer thread, natural batching, every commit synced to the disk.

    A process that opens the directory has it alone (`DirectoryLock`), so leases and holds that it finds are those of
    a process that is gone, and are void. Live readers are served from memory, others from a few reader threads.
    """

    def __init__(
        self, *, lock: DirectoryLock, writer: SqliteWriter, path: Path, sql: Sql, lease_seconds: float, clock: Clock
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._sql = sql
        self._log = LogTable(sql)
        self._runs = RunTable(sql, self._log, clock=clock, lease_seconds=lease_seconds)
        self._threads = ThreadTable(sql, clock=clock)
        self._expiration = Expiration(sql, clock=clock)
        self._readers = SqliteReaders(path, setup=add_functions, caught_up=writer.caught_up)
        self._log_writer = LogWriter(writer, self._log, clock=clock, publish=self._publish)
        self._windows = Windows()
        self._bells = Bells()
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Clock | None = None,
        connection_factory: Callable[[Path], sqlite3.Connection] = connect,
    ) -> Self:
        """Open the store in a directory, both made when missing. `connection_factory` makes the writer's connection.

        Raises ConfigInvalid, with a sentence, when another process holds the directory, when a newer version wrote
        the database, or when the file can't be used.
        """
        lock = DirectoryLock.take(data_dir)
        try:
            path = data_dir / FILE_NAME
            sql = load_sql()
            setup = partial(_set_up, path=path, sql=sql)
            writer = await SqliteWriter.open(path, setup=setup, connection_factory=connection_factory)
        except BaseException:
            lock.release()
            raise
        return cls(
            lock=lock, writer=writer, path=path, sql=sql, lease_seconds=lease_seconds, clock=clock or SystemClock()
        )

    async def accept(
        self, new: NewRun, *, worker: str | None, start: NewEvent | None, admission: Admission
    ) -> Accepted:
        decide.require_open_ended([start] if start is not None else [])

        def operation(connection: sqlite3.Connection) -> tuple[Accepted, Written | None]:
            return self._runs.accept(connection, new, worker, start, admission)

        accepted, _ = await self._writer.run(
            operation, on_commit=lambda result: self._admitted(new.thread_key, result[1])
        )
        return accepted

    async def claim(
        self, run_key: str, worker: str, *, start: NewEvent | None = None, turn: Turn | None = None
    ) -> Lease | None:
        lease, _ = await self._writer.run(
            lambda connection: self._runs.claim(connection, run_key, worker, start, turn),
            on_commit=lambda result: self._publish(result[1]),
        )
        return lease

    async def dismiss(
        self, run_key: str, events: Sequence[NewEvent], ending: Ending, *, keeps_status: bool = True
    ) -> bool:
        decide.require_ending(events)
        written = await self._writer.run(
            lambda connection: self._runs.dismiss(connection, run_key, events, ending, keeps_status),
            on_commit=self._publish,
        )
        return written is not None

    async def renew(self, lease: Lease) -> bool:
        return await self._writer.run(lambda connection: self._runs.renew(connection, lease))

    def renew_now(self, leases: Sequence[Lease]) -> None:
        self._writer.run_now(lambda connection: [self._runs.renew(connection, lease) for lease in leases])

    async def abandon(self, lease: Lease) -> None:
        await self._writer.run(lambda connection: self._runs.abandon(connection, lease))

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> int:
        return await self.submit(lease, events)

    def submit(self, lease: Lease, events: Sequence[NewEvent]) -> asyncio.Future[int]:
        decide.require_open_ended(events)
        return self._log_writer.write(Write(lease=lease, events=tuple(events)))

    async def finish(self, lease: Lease, events: Sequence[NewEvent], ending: Ending) -> int:
        decide.require_ending(events)
        return await self._log_writer.write(Write(lease=lease, events=tuple(events), ending=ending))

    async def read(
        self, run_key: str, *, after: int, max_events: int = MAX_PAGE_EVENTS, max_bytes: int = MAX_PAGE_BYTES
    ) -> Page:
        self._require_open()
        window = self._windows.get(run_key)
        if window is not None:
            page = window.page(after=after, max_events=max_events, max_bytes=max_bytes)
            if page is not None:
                return page
        return await self._readers.run(
            lambda connection: self._log.page(
                connection, run_key, after=after, max_events=max_events, max_bytes=max_bytes
            )
        )

    async def wait(self, run_key: str, *, after: int, seconds: float | None = None) -> bool:
        self._require_open()
        with self._bells.listen(run_key) as bell:  # before the look: what is committed after it rings
            window = self._windows.get(run_key)
            if window is None:
                has_news = await self._readers.run(
                    lambda connection: self._log.has_news(connection, run_key, after=after)
                )
            else:
                has_news = window.has_news(after=after)
            return has_news or await bell.wait(seconds)

    async def request_cancel(self, run_key: str, reason: CancelReason) -> Run | None:
        return await self._writer.run(lambda connection: self._runs.request_cancel(connection, run_key, reason))

    async def get_run(self, run_key: str) -> Run | None:
        return await self._readers.run(lambda connection: self._runs.get(connection, run_key))

    async def find_run(self, owner: str, idempotency_key: str) -> Run | None:
        return await self._readers.run(lambda connection: self._runs.find(connection, owner, idempotency_key))

    async def list_runs(self, query: RunQuery) -> tuple[Sequence[Run], str | None]:
        return await self._readers.run(lambda connection: self._runs.list(connection, query))

    async def list_claimable(self, limit: int) -> Sequence[Run]:
        return await self._readers.run(lambda connection: self._runs.list_claimable(connection, limit))

    async def list_pending(self, limit: int) -> Sequence[Run]:
        return await self._readers.run(lambda connection: self._runs.list_pending(connection, limit))

    async def active_run(self, thread_key: str) -> Run | None:
        return await self._readers.run(lambda connection: self._runs.active(connection, thread_key))

    async def next_run(self, thread_key: str, *, after: str | None) -> Run | None:
        return await self._readers.run(lambda connection: self._runs.next(connection, thread_key, after))

    async def wait_run(self, thread_key: str, *, after: str | None, seconds: float | None = None) -> bool:
        self._require_open()
        with self._bells.listen(runs_of(thread_key)) as bell:
            return await self.next_run(thread_key, after=after) is not None or await bell.wait(seconds)

    async def expire_runs(self, seconds: float) -> Expiry:
        def forget(expired: Expired) -> None:
            self._forget(expired.run_keys)

        expired = await self._writer.run(
            lambda connection: self._expiration.expire(connection, seconds), on_commit=forget
        )
        return expired.expiry

    async def delete_expired_runs(self, seconds: float) -> bool:
        return await self._writer.run(lambda connection: self._expiration.delete(connection, seconds))

    async def list_unused_threads(self, status: ThreadStatus, seconds: float, limit: int) -> Sequence[Thread]:
        return await self._readers.run(
            lambda connection: self._expiration.unused_threads(connection, status, seconds, limit)
        )

    async def list_ended_threads(self, after: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        return await self._readers.run(lambda connection: self._expiration.ended_threads(connection, after, limit))

    async def checkpoints_in_use(self, thread_key: str) -> Collection[str]:
        return await self._readers.run(lambda connection: self._expiration.checkpoints_in_use(connection, thread_key))

    async def reclaim(self) -> bool:
        return await self._writer.reclaim()

    async def create_thread(self, thread: Thread) -> Thread | None:
        return await self._writer.run(lambda connection: self._threads.create(connection, thread))

    async def get_thread(self, thread_key: str) -> Thread | None:
        return await self._readers.run(lambda connection: self._threads.get(connection, thread_key))

    async def update_thread(self, thread_key: str, *, metadata: Mapping[str, Any]) -> Thread | None:
        return await self._writer.run(lambda connection: self._threads.update(connection, thread_key, metadata))

    async def delete_thread(self, thread_key: str, worker: str) -> bool:
        while True:
            deleted = await self._writer.run(
                lambda connection: self._expiration.delete_thread(connection, thread_key, worker),
                on_commit=self._forget_deleted,
            )
            if deleted is None or deleted.is_done:
                return deleted is not None

    async def search_threads(self, query: ThreadQuery) -> Sequence[Thread]:
        return await self._readers.run(lambda connection: self._threads.search(connection, query))

    async def count_threads(self, query: ThreadQuery) -> int:
        return await self._readers.run(lambda connection: self._threads.count(connection, query))

    async def hold(self, thread_key: str, worker: str) -> Thread:
        return await self._writer.run(lambda connection: self._threads.hold(connection, thread_key, worker))

    async def release(
        self, thread_key: str, worker: str, *, status: ThreadStatus | None, graph: str | None = None
    ) -> None:
        await self._writer.run(lambda connection: self._threads.release(connection, thread_key, worker, status, graph))

    async def ping(self) -> None:
        await self._writer.run(lambda connection: _execute(connection, _touch(self._sql)))

    async def aclose(self) -> None:
        """Commit what was asked for, wake every waiting reader, and give the directory up."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._writer.aclose()
            await self._readers.aclose()
        finally:
            self._bells.ring_all()
            self._lock.release()

    def _admitted(self, thread_key: str, written: Written | None) -> None:
        self._publish(written)
        self._bells.ring(runs_of(thread_key))

    def _publish(self, written: Written | None) -> None:
        if written is not None:
            self._windows.extend(written.run_key, written.events, is_ended=written.is_ended)
            self._bells.ring(written.run_key)

    def _forget_deleted(self, deleted: Deleted | None) -> None:
        self._forget(deleted.run_keys if deleted else ())

    def _forget(self, run_keys: Sequence[str]) -> None:
        for run_key in run_keys:
            self._windows.forget(run_key)
            self._bells.ring(run_key)

    def _require_open(self) -> None:
        # without it a reader of a closed store would turn for ever: nothing to read, nothing to wait for
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")


def _set_up(connection: sqlite3.Connection, *, path: Path, sql: Sql) -> None:
    """Make the tables of a new file, refuse one that a newer version wrote, and void what dead processes left."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigInvalid(
            f"The database {path} has the schema version {version}, and this version of Runstream knows them up to "
            f"{SCHEMA_VERSION}: start the newer version that wrote it, or choose another data directory."
        )
    if version < SCHEMA_VERSION:
        changes = load_schema() if version == 0 else load_migrations(version)
        connection.executescript(f"BEGIN; {changes} {_touch(sql)}; COMMIT;")
    connection.executescript(f"PRAGMA temp_store = MEMORY; {sql['set_up_appends']}")
    _execute(connection, sql["void_leases"])
    _execute(connection, sql["void_holds"])


def _touch(sql: Sql) -> str:
    return sql["touch"].format(version=SCHEMA_VERSION)


def _execute(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
