"""A few threads with read-only connections, for everything that is read and not in memory."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from app.errors import StoreUnavailable
from app.storage.turn import ThreadTurns
from app.storage.writer import BUSY_SECONDS

T = TypeVar("T")
READER_THREADS: Final = 2


class SqliteReaders:
    """Runs queries in threads of its own, each with one connection that can't write.

    A result is handed out when `caught_up` has returned: not before the writer has told of all that is in it.

    A query sees one moment of the database when it is a single statement.
    """

    def __init__(
        self,
        path: Path,
        *,
        setup: Callable[[sqlite3.Connection], None],
        caught_up: Callable[[], Awaitable[None]],
        threads: int = READER_THREADS,
    ) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._setup = setup
        self._caught_up = caught_up
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._turns = ThreadTurns()
        self._is_closed = False

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What the query returns; what it raises is raised here. Raises StoreUnavailable when SQLite can't read."""
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
        self._turns.begin()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._pool, self._query, query)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable("The store can't be read at the moment.") from error
        finally:
            self._turns.end()
        await self._caught_up()
        return result

    async def aclose(self) -> None:
        """Let running queries end, then close the connections and end the threads."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        for connection in self._connections:
            connection.close()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
            self._connections.append(connection)
        return query(connection)

    def _connect(self) -> sqlite3.Connection:
        # closed by another thread than its own, after its own has ended
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._setup(connection)
        return connection
