"""The writer thread: together, each for itself, and in order."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigInvalid, StoreUnavailable
from app.storage.writer import SqliteWriter, connect

TEST_SECONDS = 20.0
Scenario = Callable[[SqliteWriter], Coroutine[Any, Any, None]]


class Gate:
    """An operation that keeps the thread until it is let go, so that what comes meanwhile shares the next commit."""

    def __init__(self) -> None:
        self.is_entered = threading.Event()
        self._go = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.is_entered.set()
        assert self._go.wait(TEST_SECONDS)

    def open(self) -> None:
        self._go.set()


class CountingConnection(sqlite3.Connection):
    """Counts the transactions."""

    commits = 0

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        self.commits += sql == "COMMIT"
        return super().execute(sql, *arguments)


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);"
        "CREATE TABLE items (n INTEGER UNIQUE, parent REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
    )


def insert(n: int) -> Callable[[sqlite3.Connection], int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO items (n) VALUES (?)", (n,))
        return n

    return operation


def insert_and_fail(n: int) -> Callable[[sqlite3.Connection], int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO items (n) VALUES (?)", (n,))
        raise LookupError(f"after {n}")

    return operation


def select(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT n FROM items ORDER BY rowid").fetchall()]


def stored(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return select(connection)
    finally:
        connection.close()


async def blocked(writer: SqliteWriter) -> tuple[Gate, Awaitable[None]]:
    """The thread is in an operation now, until the gate is opened."""
    gate = Gate()
    running = writer.submit(gate)
    assert await asyncio.to_thread(gate.is_entered.wait, TEST_SECONDS)
    return gate, running


def play(path: Path, scenario: Scenario, **options: Any) -> None:
    async def whole() -> None:
        writer = await SqliteWriter.open(path, **{"setup": make_table, **options})
        try:
            await scenario(writer)
        finally:
            await writer.aclose()

    asyncio.run(asyncio.wait_for(whole(), TEST_SECONDS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


def test_what_an_operation_returned_comes_back_once_others_can_see_it(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        assert await writer.run(insert(7)) == 7
        assert stored(path) == [7]

    play(path, scenario)


def test_the_file_is_in_wal_mode_synced_in_full_and_vacuumed_bit_by_bit(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        def pragmas(connection: sqlite3.Connection) -> list[Any]:
            names = ("journal_mode", "synchronous", "auto_vacuum")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await writer.run(pragmas) == ["wal", 2, 2]

    play(path, scenario)


def test_what_gathers_during_an_operation_shares_one_commit_in_the_order_of_the_calls(path: Path) -> None:
    connections: list[CountingConnection] = []

    def factory(file: Path) -> sqlite3.Connection:
        connections.append(sqlite3.connect(file, isolation_level=None, factory=CountingConnection))
        return connections[-1]

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = asyncio.gather(*(writer.run(insert(n)) for n in (3, 1, 2)))
        await asyncio.sleep(0)
        gate.open()
        assert await waiting == [3, 1, 2]
        await running
        assert connections[0].commits == 2
        assert await writer.run(select) == [3, 1, 2]

    play(path, scenario, connection_factory=factory)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_operation_that_raises_is_undone_alone(path: Path, place: int) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        operations = [insert(1), insert(2)]
        operations.insert(place, insert_and_fail(9))
        waiting = asyncio.gather(*map(writer.run, operations), return_exceptions=True)
        await asyncio.sleep(0)
        gate.open()
        await running
        results = await waiting
        assert isinstance(results.pop(place), LookupError)
        assert results == [1, 2]
        assert stored(path) == [1, 2]

    play(path, scenario)


def test_an_operation_that_raises_before_it_changes_anything_costs_the_others_nothing(path: Path) -> None:
    calls: list[int] = []

    def noted(connection: sqlite3.Connection) -> int:
        calls.append(1)
        return insert(1)(connection)

    def refused(connection: sqlite3.Connection) -> None:
        raise LookupError

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = asyncio.gather(writer.run(noted), writer.run(refused), return_exceptions=True)
        await asyncio.sleep(0)
        gate.open()
        await running
        assert isinstance((await waiting)[1], LookupError)
        assert len(calls) == 1  # not carried out a second time

    play(path, scenario)


def test_a_broken_constraint_reaches_its_caller_only(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = asyncio.gather(*(writer.run(insert(n)) for n in (1, 1, 2)), return_exceptions=True)
        await asyncio.sleep(0)
        gate.open()
        await running
        first, second, third = await waiting
        assert (first, third) == (1, 2)
        assert isinstance(second, sqlite3.IntegrityError)

    play(path, scenario)


def test_a_cancelled_caller_takes_nothing_back_and_disturbs_nobody(path: Path) -> None:
    noticed: list[int] = []

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        tasks = [
            asyncio.ensure_future(writer.run(insert(n), on_commit=noticed.append))  # noqa: TID251
            for n in (1, 2, 3)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        gate.open()
        await running
        assert [await tasks[0], await tasks[2]] == [1, 3]
        assert tasks[1].cancelled()
        assert stored(path) == noticed == [1, 2, 3]

    play(path, scenario)


def test_a_commit_that_fails_fails_all_its_operations_and_the_next_one_works(path: Path) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO items (n, parent) VALUES (99, 12345)")  # the key is looked at by the commit

    noticed: list[object] = []

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        operations = [insert(1), orphan, insert(2)]
        waiting = asyncio.gather(
            *(writer.run(operation, on_commit=noticed.append) for operation in operations), return_exceptions=True
        )
        await asyncio.sleep(0)
        gate.open()
        await running
        assert all(isinstance(result, StoreUnavailable) for result in await waiting)
        assert (stored(path), noticed) == ([], [])
        assert await writer.run(insert(3)) == 3

    play(path, scenario)


def test_a_full_disk_is_store_unavailable_and_nothing_is_kept(path: Path) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS blobs (b BLOB)")

    def limit(connection: sqlite3.Connection) -> None:
        make_table(connection)
        fill(connection)
        connection.execute("PRAGMA max_page_count = 20")

    def too_much(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO blobs VALUES (zeroblob(1000000))")

    async def scenario(writer: SqliteWriter) -> None:
        with pytest.raises(StoreUnavailable):
            await writer.run(too_much)
        assert await writer.run(insert(1)) == 1
        assert await writer.run(lambda connection: connection.execute("SELECT count(*) FROM blobs").fetchone()) == (0,)

    play(path, scenario, setup=limit)


def test_somebody_elses_lock_is_store_unavailable_after_the_busy_timeout(path: Path) -> None:
    def impatient(file: Path) -> sqlite3.Connection:
        return sqlite3.connect(file, isolation_level=None, timeout=0.05)

    async def scenario(writer: SqliteWriter) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await writer.run(insert(1))
        other.close()
        assert await writer.run(insert(2)) == 2

    play(path, scenario, connection_factory=impatient)


def test_commits_are_told_in_their_order_before_any_caller_goes_on(path: Path) -> None:
    told: list[int] = []

    async def call(writer: SqliteWriter, n: int) -> list[int]:
        await writer.run(insert(n), on_commit=told.append)
        return list(told)

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = asyncio.gather(*(call(writer, n) for n in range(5)))
        await asyncio.sleep(0)
        gate.open()
        await running
        assert await waiting == [[0, 1, 2, 3, 4]] * 5

    play(path, scenario)


def test_an_on_commit_that_raises_fails_its_own_caller_only(path: Path) -> None:
    def broken(n: int) -> None:
        raise LookupError

    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = asyncio.gather(writer.run(insert(1), on_commit=broken), writer.run(insert(2)), return_exceptions=True)
        await asyncio.sleep(0)
        gate.open()
        await running
        first, second = await waiting
        assert isinstance(first, LookupError)
        assert second == 2

    play(path, scenario)


def test_closing_carries_out_what_was_asked_for_and_refuses_what_comes_after(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        gate, running = await blocked(writer)
        waiting = [writer.submit(insert(n)) for n in range(3)]
        closing = asyncio.gather(writer.aclose(), writer.aclose())
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await writer.run(insert(9))
        gate.open()
        await closing
        await running
        assert [await future for future in waiting] == [0, 1, 2]

    play(path, scenario)
    assert stored(path) == [0, 1, 2]


def test_an_operation_that_raises_stop_iteration_does_not_hang_anybody(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await writer.run(lambda connection: next(iter([])))
        assert await writer.run(insert(1)) == 1

    play(path, scenario)


def test_a_file_that_can_not_be_opened_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="can't be opened: unable to open database file"):
        asyncio.run(SqliteWriter.open(tmp_path / "nowhere" / "test.db"))


def test_what_the_setup_raises_is_raised_by_open(path: Path) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        asyncio.run(SqliteWriter.open(path, setup=refuse))


def test_the_connection_is_one_that_the_caller_may_make(path: Path) -> None:
    made: list[Path] = []

    def factory(file: Path) -> sqlite3.Connection:
        made.append(file)
        return connect(file)

    async def scenario(writer: SqliteWriter) -> None:
        assert made == [path]

    play(path, scenario, connection_factory=factory)


def test_it_has_caught_up_at_once_when_nothing_is_committed(path: Path) -> None:
    async def scenario(writer: SqliteWriter) -> None:
        await writer.caught_up()
        await writer.run(insert(1))
        gate, running = await blocked(writer)  # an operation runs, nobody can have seen anything of it
        await writer.caught_up()
        gate.open()
        await running

    play(path, scenario)
