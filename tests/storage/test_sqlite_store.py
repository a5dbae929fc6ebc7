"""What only the SQLite store can get wrong: its memory of a log beside the database."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.runs.model import Admission, Lease
from app.runs.store import tail
from app.storage.sqlite import FILE_NAME, SqliteStore
from tests.conformance.harness import (
    COMPLETE,
    SUCCESS,
    is_gapless,
    key_of,
    log_of,
    new_run,
    spawn,
    started,
    token,
    tokens,
    turns,
)

TEST_SECONDS = 20.0


class SlowAfterCommit(sqlite3.Connection):
    """Lets a test stand between a commit and the moment when the event loop hears of it."""

    gate: threading.Event | None = None
    committed = threading.Event()

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *arguments)
        # a lone append is a statement that commits by itself
        is_commit = sql == "COMMIT" or (sql.startswith("INSERT INTO temp.appends") and not self.in_transaction)
        if is_commit and self.gate is not None:
            self.committed.set()
            assert self.gate.wait(TEST_SECONDS)
        return cursor


def factory_of(made: list[SlowAfterCommit]) -> Callable[[Path], sqlite3.Connection]:
    def factory(path: Path) -> sqlite3.Connection:
        made.append(sqlite3.connect(path, isolation_level=None, factory=SlowAfterCommit))
        return made[-1]

    return factory


@contextlib.asynccontextmanager
async def between_commit_and_news(
    path: Path, write: Callable[[SqliteStore, Lease], Coroutine[Any, Any, object]]
) -> AsyncIterator[tuple[SqliteStore, threading.Event]]:
    """A store whose write to a run is committed, and the event loop does not hear of it until the gate is opened."""
    made: list[SlowAfterCommit] = []
    store = await SqliteStore.open(path, connection_factory=factory_of(made))
    lease = await started(store)
    gate = made[0].gate = threading.Event()
    made[0].committed = threading.Event()
    writing = spawn(write(store, lease))
    assert await asyncio.to_thread(made[0].committed.wait, TEST_SECONDS)
    yield store, gate
    await writing
    await store.aclose()


def test_no_row_says_that_a_run_has_ended_before_its_log_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        finish = between_commit_and_news(tmp_path, lambda store, lease: store.finish(lease, [COMPLETE], SUCCESS))
        async with finish as (store, gate):
            looking = [spawn(store.get_run(key_of())), spawn(store.find_run("owner", "nothing"))]
            await asyncio.wait(looking, timeout=0.1)
            page = await store.read(key_of(), after=0)
            told = [task.done() for task in looking]
            gate.set()
            assert (page.closed, told) == (False, [False, False])
            run = await looking[0]
            assert run is not None
            assert run.is_ended
            assert (await store.read(key_of(), after=0)).closed

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_no_row_says_that_a_log_is_longer_than_its_readers_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        append = between_commit_and_news(tmp_path, lambda store, lease: store.append(lease, tokens(3)))
        async with append as (store, gate):
            looking = spawn(store.get_run(key_of()))
            await asyncio.wait([looking], timeout=0.1)
            page = await store.read(key_of(), after=0)
            is_told = looking.done()
            gate.set()
            assert (len(page.events), is_told) == (1, False)
            run = await looking
            assert run is not None
            assert run.last_seq == 4
            assert len((await store.read(key_of(), after=0)).events) == 4

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_a_reader_that_falls_behind_the_memory_goes_on_from_the_database(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path)
        lease = await started(store)
        pages = tail(store, key_of(), after=0)
        first = await anext(pages)
        for number in range(30):
            await store.append(lease, [token(f"{number}" + "x" * 30_000)])  # 900 KB, the memory keeps 256 KiB
        last = await store.finish(lease, [COMPLETE], SUCCESS)
        events = [*first.events, *[event async for page in pages for event in page.events]]
        assert is_gapless(events)
        assert len(events) == last == 32
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_memory_and_database_hold_the_same_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path)
        lease = await started(store)
        for number in range(20):
            await store.append(lease, tokens(number % 3))
        await store.finish(lease, [COMPLETE], SUCCESS)
        live = await log_of(store, key_of())
        await store.aclose()
        store = await SqliteStore.open(tmp_path)
        assert await log_of(store, key_of()) == live
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_events_that_could_not_be_committed_are_in_no_log_and_wake_nobody(tmp_path: Path) -> None:
    def small(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA max_page_count = 80")
        return connection

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path, connection_factory=small)
        lease = await started(store)
        waiting = spawn(store.wait(key_of(), after=1))
        with pytest.raises(StoreUnavailable):
            await store.append(lease, [token("x" * 400_000)])
        await turns()
        assert not waiting.done()
        assert await store.append(lease, [token("small")]) == 2
        await waiting
        assert is_gapless(await log_of(store, key_of()))
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_all_callers_of_one_commit_are_told_that_it_failed(tmp_path: Path) -> None:
    def small(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA max_page_count = 80")
        return connection

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path, connection_factory=small)
        leases = [await started(store, f"run-{number}", f"thread-{number}") for number in range(3)]
        appends = [store.append(lease, [token("x" * 200_000)]) for lease in leases]
        results = await asyncio.gather(*appends, return_exceptions=True)
        assert any(isinstance(result, StoreUnavailable) for result in results)
        for lease, result in zip(leases, results, strict=True):
            assert len(await log_of(store, lease.run_key)) == (result if isinstance(result, int) else 1)
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


class FailsOnce(sqlite3.Connection):
    """Its next commit fails."""

    fails = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.fails:
            self.fails = False
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


def test_a_run_that_was_rolled_back_does_not_write_into_the_log_of_the_run_that_has_its_number_now(
    tmp_path: Path,
) -> None:
    made: list[FailsOnce] = []

    def failing(path: Path) -> sqlite3.Connection:
        made.append(sqlite3.connect(path, isolation_level=None, factory=FailsOnce))
        return made[-1]

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path, connection_factory=failing)
        made[0].fails = True
        with pytest.raises(StoreUnavailable):
            await started(store, "run-1", "thread-1")
        await started(store, "run-2", "thread-2")
        await store.accept(new_run("run-1"), worker=None, start=None, admission=Admission(max_active=9))
        lease = await store.claim(key_of("run-1"), "w1")
        assert lease is not None
        assert await store.append(lease, [token("mine")]) == 1
        assert [len(await log_of(store, key_of(run_id))) for run_id in ("run-1", "run-2")] == [1, 1]
        run = await store.get_run(key_of("run-2"))
        assert run is not None
        assert run.last_seq == 1
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


# by which the newest schema becomes that of an earlier version: what versions 4, 3 and 2 added
TO_VERSION_3 = "DROP INDEX threads_unused; PRAGMA user_version = 3;"
TO_VERSION_2 = (
    "ALTER TABLE threads DROP COLUMN rest_status; ALTER TABLE runs DROP COLUMN thread_status;"
    "ALTER TABLE requests DROP COLUMN supersedes; PRAGMA user_version = 2;"
)
TO_VERSION_1 = (
    "DROP INDEX runs_ended; DROP INDEX runs_expired; ALTER TABLE runs DROP COLUMN expired; PRAGMA user_version = 1;"
)


SCRIPTS = [TO_VERSION_3, TO_VERSION_3 + TO_VERSION_2, TO_VERSION_3 + TO_VERSION_2 + TO_VERSION_1]


@pytest.mark.parametrize("script", SCRIPTS, ids=["3", "2", "1"])
def test_a_database_of_an_earlier_version_is_taken_over_with_its_runs(script: str, tmp_path: Path) -> None:
    async def fill() -> None:
        store = await SqliteStore.open(tmp_path)
        await store.finish(await started(store), [COMPLETE], SUCCESS)
        await store.aclose()

    async def read() -> None:
        store = await SqliteStore.open(tmp_path)
        assert len(await log_of(store, key_of())) == 2
        assert (await store.expire_runs(0.0)).thread_keys == ["owner/thread-1"]
        await store.aclose()

    asyncio.run(fill())
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.executescript(script)
    connection.close()
    asyncio.run(read())


def test_the_file_shrinks_while_the_store_is_open_and_keeps_what_is_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path)
        kept = await started(store, "kept", "kept")
        for number in range(40):
            lease = await started(store, f"run-{number}", f"thread-{number}")
            await store.append(lease, [token("x" * 250_000)])
            await store.finish(lease, [COMPLETE], SUCCESS)
            await store.append(kept, tokens(2))
        before = sizes()
        while not (await store.expire_runs(0.0)).is_done:
            pass
        while not await store.reclaim():
            await store.append(kept, tokens(1))
        after = sizes()
        assert before["db"] + before["wal"] > 10_000_000
        assert after["db"] < 2_000_000
        assert after["wal"] == 0
        assert is_gapless(await log_of(store, kept.run_key))
        await store.append(kept, tokens(1))
        await store.aclose()

    def sizes() -> dict[str, int]:
        return {
            "db": (tmp_path / FILE_NAME).stat().st_size,
            "wal": (tmp_path / f"{FILE_NAME}-wal").stat().st_size,
        }

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_few_free_pages_are_left_for_what_comes_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path)
        for number in range(10):
            lease = await started(store, f"run-{number}", f"thread-{number}")
            await store.append(lease, [token("x" * 50_000)])
            await store.finish(lease, [COMPLETE], SUCCESS)
        await store.expire_runs(0.0)
        assert await store.reclaim()
        await store.aclose()

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 50
    connection.close()
