"""One thread that owns one SQLite connection, and commits together whatever gathered while the last commit ran."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal, Self, TypeVar

from app.errors import ConfigInvalid, StoreUnavailable
from app.storage.turn import ThreadTurns

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Synchronous = Literal["FULL", "NORMAL"]

BUSY_SECONDS: Final = 5.0  # how long somebody else's lock (a shell, a backup) is waited for
WAL_BYTES: Final = 64 * 1024 * 1024  # what the log file is cut to after it has grown
VACUUM_PAGES: Final = 64  # in one step; for each the thread waits for the GIL
SPARE_PAGES: Final = 256  # so few free pages are not worth the work


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=256)


class NotAtOnce(Exception):
    """An operation takes more than one statement this time."""


@dataclass(slots=True, eq=False)
class _Job:
    operation: Operation[Any]
    on_commit: Callable[[Any], None] | None
    future: asyncio.Future[Any] | ThreadFuture[Any] | None
    is_alone: bool = False  # not in a transaction with others, nor in one of its own
    at_once: Operation[Any] | None = None  # the same as one statement, which needs no transaction round it
    on_failure: Callable[[BaseException], None] | None = None
    result: Any = None
    error: BaseException | None = None

    @property
    def is_of_thread(self) -> bool:
        """Whether a thread waits for it, and not the loop."""
        return isinstance(self.future, ThreadFuture)

    def attempt(self, connection: sqlite3.Connection) -> bool:
        self.error = None
        try:
            self.result = self.operation(connection)
        except Exception as error:
            self.error = error
        return self.error is None

    def attempt_at_once(self, at_once: Operation[Any], connection: sqlite3.Connection) -> bool:
        """Whether that could be tried; then it is committed, or has failed."""
        try:
            self.result = at_once(connection)
        except NotAtOnce:
            return False
        except sqlite3.Error as error:  # the commit's, too
            self.error = _unavailable(error)
        except Exception as error:
            self.error = error
        return True

    def settle(self) -> None:
        if self.error is None and self.on_commit is not None:
            try:
                self.on_commit(self.result)
            except Exception as error:  # its own caller's trouble, not that of the others
                self.error = error
        if self.error is not None and self.on_failure is not None:
            self.on_failure(_shown(self.error))
        if self.future is None or self.future.done():  # cancelled: what the caller asked for is committed all the same
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(_shown(self.error))


class SqliteWriter:
    """Runs operations in a thread, one after the other, many to a transaction (BEGIN IMMEDIATE, WAL).

    One that comes alone and is a single statement is its own (`post`).

    No timers: an operation that comes while nothing runs is committed at once, one that comes during a commit waits
    for it, and all that waited share the next. An operation gets the connection, and may be called a second time
    after a rollback, so its effects are on the database, and elsewhere they are hints that are checked. It neither
    commits nor begins, and changes no schema.
    Every statement of it makes the thread wait for the GIL, up to 5 ms under a busy loop: use few.

    Bound to the event loop it was opened in.
    """

    def __init__(
        self,
        path: Path,
        *,
        setup: Callable[[sqlite3.Connection], None],
        synchronous: Synchronous,
        connection_factory: Callable[[Path], sqlite3.Connection],
    ) -> None:
        self._path = path
        self._setup = setup
        self._synchronous = synchronous
        self._connection_factory = connection_factory
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._left: _Job | None = None  # taken from the queue, and for a turn of its own
        self._turns = ThreadTurns()
        self._is_closed = False
        self._committing = 0  # the number of the batch that others may see, set by the thread before each COMMIT
        self._settled = 0  # the number of the newest batch whose callers have been told
        self._settling: asyncio.Event | None = None  # there while somebody waits for the next one
        # a daemon, so that a writer nobody closed does not keep the process from ending
        self._thread = threading.Thread(target=self._work, name=f"sqlite-writer-{path.name}", daemon=True)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        setup: Callable[[sqlite3.Connection], None] = lambda connection: None,
        synchronous: Synchronous = "FULL",
        connection_factory: Callable[[Path], sqlite3.Connection] = connect,
    ) -> Self:
        """Open the file, or make it, and run `setup` on the connection, outside of any transaction.

        Raises ConfigInvalid when SQLite can't use the file, and whatever `setup` raises.
        """
        writer = cls(path, setup=setup, synchronous=synchronous, connection_factory=connection_factory)
        writer._thread.start()
        try:
            await asyncio.shield(writer._opened)
        except BaseException:
            await writer.aclose()
            raise
        return writer

    async def run(self, operation: Operation[T], *, on_commit: Callable[[T], None] | None = None) -> T:
        """What the operation returned, once it is committed.

        What it raises is raised here, and its changes alone are undone. Raises StoreUnavailable when SQLite can't
        commit (then nothing of the transaction is kept), or the writer is closed. A caller that is cancelled does not
        take its operation back. `on_commit` is called in the event loop, in the order of the commits, before any
        caller of the transaction goes on.
        """
        return await self.submit(operation, on_commit=on_commit)

    def submit(self, operation: Operation[T], *, on_commit: Callable[[T], None] | None = None) -> asyncio.Future[T]:
        """`run` without waiting: operations are carried out in the order of these calls."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._put(_Job(operation, on_commit, future))
        return future

    def post(
        self,
        operation: Operation[T],
        *,
        at_once: Operation[T],
        on_commit: Callable[[T], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`submit` with nobody who waits: one of the two is called in the event loop.

        `at_once` does the same in one statement, or raises NotAtOnce and has done nothing. It is tried when nothing
        else is to be committed: without a BEGIN and a COMMIT, the thread has to wait for the GIL half as often.
        """
        self._put(_Job(operation, on_commit, None, at_once=at_once, on_failure=on_failure))

    def _put(self, job: _Job) -> None:
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
        self._queue.put(job)
        self._turns.begin()

    def run_now(self, operation: Operation[T]) -> T:
        """`run` for another thread than the loop's: blocks until the commit, and needs no turn of the loop."""
        if self._is_closed:
            raise StoreUnavailable("The store is closed.")
        done: ThreadFuture[T] = ThreadFuture()
        self._queue.put(_Job(operation, None, done))
        return done.result()

    async def caught_up(self) -> None:
        """Return when the `on_commit` of all that another connection could have seen until now has been called.

        Others see a commit a moment before this loop hears of it. Whoever reads through another connection waits for
        this before it tells what it saw, so that nobody knows more than memory does.
        """
        seen = self._committing
        while self._settled < seen:
            if self._settling is None:
                self._settling = asyncio.Event()
            await self._settling.wait()

    async def reclaim(self) -> bool:
        """Give the file system some of the room that deletions have left: a small step, True when no more is worth it.

        A tenth of the file stays for what comes next.
        """
        vacuumed: asyncio.Future[tuple[bool, bool]] = self._loop.create_future()
        self._put(_Job(_vacuum, None, vacuumed, is_alone=True))
        is_changed, is_done = await vacuumed
        if is_changed and is_done:
            with ThreadPoolExecutor(1, thread_name_prefix="sqlite-truncate") as pool:
                await self._loop.run_in_executor(pool, _truncate, self._path)
        return is_done

    async def aclose(self) -> None:
        """Carry out what was asked for before, then close the connection and end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _work(self) -> None:
        try:
            connection = self._open_connection()
        except Exception as error:
            self._call(_fail, self._opened, error)
        else:
            self._call(self._opened.set_result, None)
            for number in count(1):
                batch = self._gather()
                if not batch:
                    break
                if batch[0].is_alone:
                    batch[0].attempt(connection)
                else:
                    self._commit(connection, batch, number)
                for job in batch:
                    if job.is_of_thread:
                        job.settle()
                self._call(self._settle, batch, number)
            connection.close()
        self._call(self._ended.set_result, None)

    def _open_connection(self) -> sqlite3.Connection:
        try:
            connection = self._connection_factory(self._path)
        except sqlite3.Error as error:
            raise ConfigInvalid(f"The database {self._path} can't be opened: {error}.") from error
        try:
            if connection.execute("PRAGMA page_count").fetchone() == (0,):  # later it can't be changed
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._setup(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise ConfigInvalid(f"The database {self._path} can't be used: {error}.") from error
            raise
        return connection

    def _gather(self) -> Sequence[_Job]:
        batch: list[_Job] = []
        job = self._left or self._queue.get()
        self._left = None
        while job is not None:
            if job.is_alone and batch:
                self._left = job
                return batch
            batch.append(job)
            if job.is_alone or self._queue.empty():
                return batch
            job = self._queue.get()
        if batch:
            self._queue.put(None)  # for the next time: nothing comes after it
        return batch

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Job], number: int) -> None:
        if len(batch) == 1 and (at_once := batch[0].at_once) is not None:
            self._committing = number
            if batch[0].attempt_at_once(at_once, connection):
                return
        try:
            if not _carry_out_together(connection, batch):
                _carry_out_apart(connection, batch)
            self._committing = number
            connection.execute("COMMIT")
        except BaseException as error:
            for job in batch:
                job.error = _unavailable(error)
        finally:
            _roll_back(connection)

    def _settle(self, batch: Sequence[_Job], number: int) -> None:
        for job in batch:
            if not job.is_of_thread:
                job.settle()
                self._turns.end()
        self._settled = number
        if self._settling is not None:
            self._settling.set()
            self._settling = None

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, so nobody waits
            pass


def _carry_out_together(connection: sqlite3.Connection, batch: Sequence[_Job]) -> bool:
    """False when an operation failed after it had changed something: then nothing is kept."""
    connection.execute("BEGIN IMMEDIATE")
    for job in batch:
        before = connection.total_changes
        if job.attempt(connection) or (connection.total_changes == before and connection.in_transaction):
            continue
        if not connection.in_transaction:  # a full disk, say: SQLite has rolled the whole transaction back
            raise StoreUnavailable("The transaction was rolled back.") from job.error
        connection.execute("ROLLBACK")
        return False
    return True


def _carry_out_apart(connection: sqlite3.Connection, batch: Sequence[_Job]) -> None:
    """The same with a savepoint round each operation: more statements, only paid for when one has failed."""
    connection.execute("BEGIN IMMEDIATE")
    for job in batch:
        connection.execute("SAVEPOINT operation")
        if not job.attempt(connection):
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:  # the next BEGIN tells
            pass


def _vacuum(connection: sqlite3.Connection) -> tuple[bool, bool]:
    """Whether pages were given back, and whether no more are to be."""
    before, surplus = _free_pages(connection)
    if surplus <= 0:
        return False, True
    # a page is a row without columns: `execute` stops after the first one, and a script goes through all
    connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, VACUUM_PAGES)})")
    after, surplus = _free_pages(connection)
    is_stuck = after >= before  # a file that was made without auto_vacuum
    return not is_stuck, is_stuck or surplus <= 0


def _free_pages(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many pages are free, and by how many these are too many."""
    ((free,),) = connection.execute("PRAGMA freelist_count").fetchall()
    ((total,),) = connection.execute("PRAGMA page_count").fetchall()
    return free, free - max(total // 10, SPARE_PAGES)


def _truncate(path: Path) -> None:
    """Bring the database and its log down to their size, as far as no reader is in the way."""
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the work, beside the writer
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # an instant, in which it waits


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _shown(error: BaseException) -> BaseException:
    match error:
        case sqlite3.OperationalError():
            return _unavailable(error)
        case StopIteration():  # a future can't carry one
            return RuntimeError("The operation raised StopIteration.")
        case _:
            return error


def _unavailable(error: BaseException) -> StoreUnavailable:
    unavailable = StoreUnavailable("The store can't be written to at the moment.")
    unavailable.__cause__ = error
    return unavailable
