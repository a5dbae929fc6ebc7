"""Where checkpoints are: tables in a file or in memory, and the thread that writes them."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from langgraph.checkpoint.sqlite import SqliteSaver

from app.engine import undo

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS fences (thread_key TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS node_events (
    thread_key TEXT NOT NULL, run_key TEXT NOT NULL, task_id TEXT NOT NULL, text BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS node_events_of_thread ON node_events (thread_key);
"""


def set_up(connection: sqlite3.Connection) -> None:
    """Make the saver's tables and ours; those of `app.engine.undo` are described there.

    `fences` has for each thread the version of the claim that may write. `node_events` has the events of the newest
    run's nodes, written in one transaction with the nodes' writes: what a crash kept from the log is found there.
    """
    SqliteSaver(connection).setup()
    connection.executescript(SCHEMA + undo.SCHEMA)


class Backend(Protocol):
    """Where an operation on a saver is carried out."""

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    def write(self, operation: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Writes are carried out in the order of these calls; one is committed when it has been awaited."""
        ...

    async def reclaim(self) -> bool:
        """Give back some of the room that deletions have left. A small step: True when no more is worth the work."""
        ...

    async def aclose(self) -> None: ...


class Writer(Protocol):
    """The thread that owns the connection that writes."""

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Operations are carried out in the order of these calls; one is committed when it has been awaited."""
        ...

    async def reclaim(self) -> bool: ...

    async def aclose(self) -> None: ...


class FileBackend:
    """One writer thread, and two readers beside it."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self._path = path
        self._writer = writer
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="checkpoints-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: operation(self._connect()))

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # closed by another thread than the one that uses it, after all of them have ended
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def write(self, operation: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        return self._writer.submit(operation)

    async def reclaim(self) -> bool:
        return await self._writer.reclaim()

    async def aclose(self) -> None:
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        await self._writer.aclose()


class MemoryBackend:
    """The same tables in memory."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        set_up(self._connection)

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return operation(self._connection)

    def write(self, operation: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        written: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._connection.execute("BEGIN")
        try:
            result = operation(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:
            self._connection.execute("ROLLBACK")
            written.set_exception(error)
        else:
            written.set_result(result)
        return written

    async def reclaim(self) -> bool:
        return True

    async def aclose(self) -> None:
        self._connection.close()
