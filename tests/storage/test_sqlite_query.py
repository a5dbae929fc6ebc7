"""Every statement of the SQLite store finds its rows by an index, and logs are cut into segments of a bounded size."""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.errors import LeaseLost
from app.runs.event import Event
from app.runs.model import Admission, Lease, scoped
from app.runs.store import RunQuery, Store, ThreadQuery
from app.storage.sqlite import FILE_NAME, SqliteStore
from app.storage.sqlite_log import SEGMENT_BYTES, LogTable, Write, segments_of
from app.storage.sqlite_retention import Expiration
from app.storage.sqlite_row import load_sql
from app.storage.sqlite_run import RunTable
from app.storage.sqlite_thread import ThreadTable, add_functions
from app.storage.writer import NotAtOnce
from tests.conformance.harness import (
    COMPLETE,
    LEASE_SECONDS,
    START,
    SUCCESS,
    ManualClock,
    new_run,
    new_thread,
    started,
    token,
    tokens,
)

Query = Callable[[sqlite3.Connection], object]
TABLES = re.compile(r"\bSCAN (runs|threads|segments|requests|other|older)\b")
# what goes through rows on purpose: the few active ones, by an index that holds nobody else
BY_PARTIAL_INDEX = re.compile(r"SCAN (runs|threads) USING (COVERING )?INDEX (runs_active|runs_running|threads_held)")

CLOCK = ManualClock()
LOG = LogTable(load_sql())
RUNS = RunTable(load_sql(), LOG, clock=CLOCK, lease_seconds=LEASE_SECONDS)
THREADS = ThreadTable(load_sql(), clock=CLOCK)
EXPIRATION = Expiration(load_sql(), clock=CLOCK)
RUN, THREAD = scoped("owner", "run-1"), scoped("owner", "thread-1")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The file of a store with a few rows in it, and no statistics: the plans are those of a new installation."""

    async def fill() -> None:
        store: Store = await SqliteStore.open(tmp_path, clock=CLOCK)
        for number in range(20):
            lease = await started(store, f"run-{number}", f"thread-{number}", idempotency_key=f"k{number}")
            await store.append(lease, tokens(3))
            if number % 2 == 0:
                await store.finish(lease, [COMPLETE], SUCCESS)
        await store.aclose()

    asyncio.run(fill())
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    add_functions(connection)
    connection.executescript(load_sql()["set_up_appends"])
    yield connection
    connection.close()


def runs(**filters: object) -> Query:
    return lambda connection: RUNS.list(connection, RunQuery(owner="owner", **filters))  # type: ignore[arg-type]


def threads(**filters: object) -> Query:
    query = ThreadQuery(owner="owner", **filters)  # type: ignore[arg-type]
    return lambda connection: (THREADS.search(connection, query), THREADS.count(connection, query))


def write(connection: sqlite3.Connection) -> object:
    lease, _ = RUNS.claim(connection, RUN, "w2", None, None)
    assert lease is not None
    RUNS.renew(connection, lease)
    outcomes = LOG.write(
        connection,
        [
            Write(lease=lease, events=tokens(3)),
            Write(lease=replace(lease, epoch=77), events=tokens(1)),
            Write(lease=lease, events=[COMPLETE], ending=SUCCESS),
        ],
        "2026-01-01",
    )
    RUNS.abandon(connection, lease)
    return outcomes


def delete(connection: sqlite3.Connection) -> object:
    THREADS.hold(connection, scoped("owner", "thread-2"), "w1")
    return EXPIRATION.delete_thread(connection, scoped("owner", "thread-2"), "w1")


def edit(connection: sqlite3.Connection) -> None:
    key = scoped("owner", "thread-4")
    THREADS.hold(connection, key, "w1")
    THREADS.release(connection, key, "w1", None, None)
    THREADS.hold(connection, key, "w1")
    THREADS.release(connection, key, "w1", "idle", "chat")
    THREADS.update(connection, key, {"a": 1})
    THREADS.create(connection, new_thread("fresh"))


OPERATIONS: dict[str, Query] = {
    "accept": lambda c: RUNS.accept(
        c, new_run("fresh", "fresh", idempotency_key="fresh"), "w1", START, Admission(max_active=100)
    ),
    "accept again": lambda c: RUNS.accept(
        c, new_run("x", idempotency_key="k3"), "w1", START, Admission(max_active=100)
    ),
    "write": write,
    "delete": delete,
    "edit": edit,
    "unused threads": lambda c: EXPIRATION.unused_threads(c, "idle", 0, 10),
    "ended threads": lambda c: EXPIRATION.ended_threads(c, CLOCK.now(), 10),
    "checkpoints in use": lambda c: EXPIRATION.checkpoints_in_use(c, THREAD),
    "expire": lambda c: EXPIRATION.expire(c, 0),
    "delete expired": lambda c: (EXPIRATION.expire(c, 0), EXPIRATION.delete(c, 0)),
    "cancel": lambda c: RUNS.request_cancel(c, RUN, "user"),
    "page": lambda c: LOG.page(c, RUN, after=1, max_events=10, max_bytes=1_000),
    "has news": lambda c: LOG.has_news(c, RUN, after=1),
    "get run": lambda c: RUNS.get(c, RUN),
    "find run": lambda c: RUNS.find(c, "owner", "k1"),
    "active run": lambda c: RUNS.active(c, THREAD),
    "next run": lambda c: RUNS.next(c, THREAD, RUN),
    "list runs": runs(cursor="7"),
    "list runs of a thread": runs(thread_id="thread-1"),
    "list runs with a status": runs(status="running"),
    "list claimable": lambda c: RUNS.list_claimable(c, 10),
    "get thread": lambda c: THREADS.get(c, THREAD),
    "threads": threads(),
    "threads by update": threads(sort_by="updated_at"),
    "threads by metadata": threads(metadata={"a": 1}, status="idle"),
    "threads by id": threads(ids=["thread-1"]),
    "void leases": lambda c: c.execute(load_sql()["void_leases"]),
    "void holds": lambda c: c.execute(load_sql()["void_holds"]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_statement_goes_through_a_whole_table(connection: sqlite3.Connection, name: str) -> None:
    statements: list[str] = []
    CLOCK.advance(LEASE_SECONDS)
    connection.set_trace_callback(statements.append)
    connection.execute("BEGIN")
    OPERATIONS[name](connection)
    connection.set_trace_callback(None)
    explained = 0
    for statement in statements:
        if statement == "BEGIN" or statement.startswith("--"):  # SQLite's own, of a json_each
            continue
        explained += 1
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
        scans = [step for step in plan if TABLES.search(step) and not BY_PARTIAL_INDEX.search(step)]
        assert not scans, f"{statement}\n{plan}"
    assert explained


@pytest.mark.parametrize(
    "name", ["next run", "list runs", "list runs of a thread", "list runs with a status", "threads"]
)
def test_lists_come_from_an_index_in_their_order(connection: sqlite3.Connection, name: str) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    OPERATIONS[name](connection)
    connection.set_trace_callback(None)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()]
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("name", ["accept", "edit", "active run", "list claimable"])
def test_active_runs_are_not_looked_for_among_all_runs(connection: sqlite3.Connection, name: str) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    OPERATIONS[name](connection)
    connection.set_trace_callback(None)
    (statement,) = {text for text in statements if text.startswith("SELECT") and "'pending'" in text}
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
    assert any("runs_active" in step for step in plan)
    assert not any("runs_thread" in step or "runs_owner" in step for step in plan), plan


def leases(connection: sqlite3.Connection) -> list[Lease]:
    """Of the ten runs that have not ended, claimed anew."""
    CLOCK.advance(LEASE_SECONDS)
    keys = [scoped("owner", f"run-{number}") for number in range(1, 20, 2)]
    return [lease for key in keys if (lease := RUNS.claim(connection, key, "w2", None, None)[0]) is not None]


def traced(connection: sqlite3.Connection, work: Callable[[], object]) -> list[str]:
    """The statements that were executed, each once: SQLite shows one again for each statement of its trigger."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    work()
    connection.set_trace_callback(None)
    return [statement for statement in dict.fromkeys(statements) if not statement.startswith("--")]


def test_an_append_of_many_runs_is_three_statements_and_one_when_their_logs_are_known(
    connection: sqlite3.Connection,
) -> None:
    log = LogTable(load_sql())
    writes = [Write(lease=lease, events=tokens(2)) for lease in leases(connection)]
    assert len(writes) == 10
    assert len(traced(connection, lambda: log.write(connection, writes, "2026-01-01"))) == 3
    assert len(traced(connection, lambda: log.write(connection, writes, "2026-01-01"))) == 1
    assert log_length(connection, RUN) == 1 + 3 + 2 + 2


def log_length(connection: sqlite3.Connection, run_key: str) -> int:
    """How many events a log has, all of them in their order."""
    events = LOG.page(connection, run_key, after=0, max_events=1_000, max_bytes=1_000_000).events
    assert [orjson.loads(event.text)["seq"] for event in events] == list(range(1, len(events) + 1))
    return len(events)


def test_a_lease_that_is_lost_is_seen_though_the_log_is_known_and_the_others_are_written(
    connection: sqlite3.Connection,
) -> None:
    log = LogTable(load_sql())
    before = leases(connection)
    log.write(connection, [Write(lease=lease, events=tokens(1)) for lease in before], "2026-01-01")
    CLOCK.advance(LEASE_SECONDS)
    assert RUNS.claim(connection, RUN, "w3", None, None)[0] is not None

    outcomes = log.write(connection, [Write(lease=lease, events=tokens(1)) for lease in before], "2026-01-01")

    assert [lease.run_key for lease, out in zip(before, outcomes, strict=True) if isinstance(out, LeaseLost)] == [RUN]
    assert log_length(connection, RUN) == 1 + 3 + 1
    assert log_length(connection, before[1].run_key) == 1 + 3 + 2


def test_a_log_that_is_longer_or_shorter_than_it_was_known_to_be_goes_on_without_a_gap(
    connection: sqlite3.Connection,
) -> None:
    log, other = LogTable(load_sql()), LogTable(load_sql())
    one = [Write(lease=leases(connection)[0], events=tokens(1))]
    log.write(connection, one, "2026-01-01")
    other.write(connection, one, "2026-01-01")
    log.write(connection, one, "2026-01-01")
    assert log_length(connection, RUN) == 1 + 3 + 3
    connection.execute("BEGIN")
    log.write(connection, one, "2026-01-01")
    connection.execute("ROLLBACK")
    log.write(connection, one, "2026-01-01")
    assert log_length(connection, RUN) == 1 + 3 + 4


def test_at_once_is_refused_with_nothing_written_where_it_takes_more_than_one_statement(
    connection: sqlite3.Connection,
) -> None:
    log = LogTable(load_sql())
    lease, other = leases(connection)[:2]
    writes = {
        "a log that is not known": [Write(lease=other, events=tokens(1))],
        "an end": [Write(lease=lease, events=[COMPLETE], ending=SUCCESS)],
        "no event, so that nothing would look at the lease": [Write(lease=lease, events=[])],
        "twice the same log": [Write(lease=lease, events=tokens(1))] * 2,
        "another's lease": [Write(lease=replace(lease, epoch=77), events=tokens(1))],
    }
    log.write(connection, [Write(lease=lease, events=tokens(1))], "2026-01-01")
    for what, refused in writes.items():
        with pytest.raises(NotAtOnce):
            log.write_at_once(connection, refused)
        assert log_length(connection, RUN) == 1 + 3 + 1, what


def test_two_running_runs_of_one_thread_are_refused_by_the_database_itself(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE runs SET thread_key = 'owner/thread-1', status = 'running'")


def test_segments_hold_the_events_in_order_within_their_size() -> None:
    sizes = [100, SEGMENT_BYTES + 1, 200, SEGMENT_BYTES // 2, SEGMENT_BYTES // 2, 1, SEGMENT_BYTES]
    events = [Event(seq, b"x" * size) for seq, size in enumerate(sizes, 41)]
    segments = list(segments_of(events))
    assert [text for _, _, body in segments for text in body.split(b"\n")] == [event.text for event in events]
    assert [first for first, _, _ in segments] == [41, *(last + 1 for _, last, _ in segments[:-1])]
    assert segments[-1][1] == 47
    for first, last, body in segments:
        assert len(body) <= SEGMENT_BYTES or first == last


def test_no_events_are_no_segment() -> None:
    assert list(segments_of([])) == []


def test_a_page_of_many_small_segments_comes_from_the_database_as_it_was_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path)
        lease = await started(store)
        for number in range(50):
            await store.append(lease, [token(f"{number} é")])
        await store.aclose()

    asyncio.run(scenario())
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    for after, max_events, max_bytes in ((0, 1_000, 10**6), (7, 5, 10**6), (7, 1_000, 200), (50, 9, 9), (51, 9, 9)):
        page = LOG.page(connection, RUN, after=after, max_events=max_events, max_bytes=max_bytes)
        assert [event.seq for event in page.events] == list(range(after + 1, after + 1 + len(page.events)))
        assert all(f'"{event.seq - 2} é"'.encode() in event.text for event in page.events if event.seq > 1)
        assert len(page.events) == min(max_events, 51 - after) or max_bytes < 10**6
    connection.close()
