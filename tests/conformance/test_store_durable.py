"""What outlives a process: only of stores that keep their data on a disk."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.errors import ConfigInvalid, ThreadBusy
from app.runs.event import Event
from app.runs.model import Admission
from app.runs.store import Store
from app.storage.sqlite import FILE_NAME
from tests.conformance.harness import (
    COMPLETE,
    START,
    SUCCESS,
    SqliteBackend,
    is_gapless,
    key_of,
    log_of,
    new_run,
    opened,
    play,
    started,
    thread_key_of,
    tokens,
)

# a process that appends for ever, and says what was acknowledged
APPENDER = """
import asyncio, sys
from pathlib import Path
from app.storage.sqlite import SqliteStore
from tests.conformance.harness import started, tokens

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    leases = [await started(store, f"run-{n}", f"thread-{n}") for n in range(4)]
    async def append(lease):
        turn = 0
        while True:
            turn += 1
            last = await store.append(lease, tokens(turn % 7 + 1, f"{turn}-"))
            print(lease.run_key, last, flush=True)
    await asyncio.gather(*map(append, leases))

asyncio.run(main())
"""


def test_logs_rows_and_threads_are_the_same_after_a_restart(durable: SqliteBackend) -> None:
    before: dict[str, object] = {}

    async def write(store: Store) -> None:
        lease = await started(store, request={"input": {"text": "é"}}, idempotency_key="k")
        for number in range(10):
            await store.append(lease, tokens(number))
        await store.finish(lease, [COMPLETE], SUCCESS)
        await started(store, "run-2", "thread-2")
        before["first"] = await store.get_run(key_of())
        before["second"] = await store.get_run(key_of("run-2"))
        before["thread"] = await store.get_thread(thread_key_of())
        before["log"] = await log_of(store, key_of())

    async def read(store: Store) -> None:
        assert await log_of(store, key_of()) == before["log"]
        assert await store.get_run(key_of()) == before["first"]
        assert await store.find_run("owner", "k") == before["first"]
        assert await store.get_run(key_of("run-2")) == before["second"]
        assert await store.get_thread(thread_key_of()) == before["thread"]
        assert (await store.read(key_of(), after=0)).closed

    play(durable, write, read)


def test_after_a_restart_runs_are_claimable_at_once_and_their_crashes_are_counted(durable: SqliteBackend) -> None:
    async def write(store: Store) -> None:
        await store.append(await started(store), tokens(3))
        await store.abandon(await started(store, "run-2", "thread-2"))
        await store.accept(new_run("run-3", "thread-3"), worker=None, start=None, admission=Admission(max_active=10))

    async def take_over(store: Store) -> None:
        assert [run.run_id for run in await store.list_claimable(10)] == ["run-1", "run-2", "run-3"]
        crashes = []
        for number in (1, 2, 3):
            lease = await store.claim(key_of(f"run-{number}"), "w2")
            assert lease is not None
            run = await store.get_run(lease.run_key)
            assert run is not None
            crashes.append((run.attempt, run.crashes))
        assert crashes == [(2, 1), (2, 0), (1, 0)]
        assert await store.list_claimable(10) == []

    async def again(store: Store) -> None:
        lease = await store.claim(key_of(), "w3")
        assert lease is not None
        assert await store.append(lease, tokens(1)) == 5
        run = await store.get_run(key_of())
        assert run is not None
        assert (run.attempt, run.crashes, run.epoch) == (3, 2, 3)
        assert is_gapless(await log_of(store, key_of()))

    play(durable, write, take_over, again)


def test_readers_of_a_run_taken_over_get_its_log_across_the_restart(durable: SqliteBackend) -> None:
    async def write(store: Store) -> None:
        await store.append(await started(store), tokens(5))

    async def take_over(store: Store) -> None:
        lease = await store.claim(key_of(), "w2")
        assert lease is not None
        await store.append(lease, tokens(5))
        pages = [await store.read(key_of(), after=after, max_events=3) for after in range(12)]
        for after, page in enumerate(pages):
            assert [event.seq for event in page.events] == list(range(after + 1, min(after + 4, 12)))

    play(durable, write, take_over)


def test_a_hold_ends_with_its_process(durable: SqliteBackend) -> None:
    async def hold(store: Store) -> None:
        await store.finish(await started(store), [COMPLETE], SUCCESS)
        await store.hold(thread_key_of(), "w1")
        with pytest.raises(ThreadBusy):
            await store.hold(thread_key_of(), "w2")

    async def run(store: Store) -> None:
        await store.accept(new_run("run-2"), worker="w2", start=START, admission=Admission(max_active=10))

    play(durable, hold, run)


def test_after_kill_9_everything_acknowledged_is_there_and_the_logs_are_gapless(durable: SqliteBackend) -> None:
    acknowledged: dict[str, int] = {}
    command = [sys.executable, "-c", APPENDER, str(durable.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(400):
            _note(acknowledged, process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:  # what it had said before it died
            _note(acknowledged, line)

    async def read(store: Store) -> None:
        assert len(acknowledged) == 4
        for run_key, last in acknowledged.items():
            events = await log_of(store, run_key)
            run = await store.get_run(run_key)
            assert run is not None
            assert is_gapless(events)
            assert len(events) == run.last_seq >= last
            assert _turns(events) == list(range(1, len(_turns(events)) + 1))
        assert len(await store.list_claimable(10)) == 4

    play(durable, read)


def test_a_second_process_is_told_who_holds_the_directory(durable: SqliteBackend) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from app.storage.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore.open(Path(sys.argv[1])))"
    )

    async def scenario() -> None:
        async with opened(durable):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(durable.data_dir), stderr=asyncio.subprocess.PIPE
            )
            _, errors = await process.communicate()
            assert process.returncode == 1
            last_line = errors.decode().strip().splitlines()[-1]
            assert "The data directory" in last_line
            assert f"is held by process {os.getpid()}:" in last_line

    asyncio.run(scenario())


def test_a_second_store_in_the_same_process_is_refused_and_the_first_goes_on(durable: SqliteBackend) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(ConfigInvalid, match="is held by process"):
            await durable.open()
        await started(store)

    play(durable, scenario)


def test_a_database_of_a_newer_version_is_refused_with_a_sentence_and_left_alone(durable: SqliteBackend) -> None:
    play(durable, started)
    path = durable.data_dir / FILE_NAME
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigInvalid, match="has the schema version 99"):
        asyncio.run(durable.open())
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_with_a_sentence(durable: SqliteBackend) -> None:
    durable.data_dir.mkdir()
    (durable.data_dir / FILE_NAME).write_bytes(b"not a database, for sure" * 100)
    with pytest.raises(ConfigInvalid, match=r"can't be used: file is not a database"):
        asyncio.run(durable.open())


def test_a_data_directory_that_can_not_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigInvalid, match="can't be used: Not a directory"):
        asyncio.run(SqliteBackend(tmp_path / "file" / "data").open())


def _note(acknowledged: dict[str, int], line: str) -> None:
    if not line.endswith("\n"):
        return
    run_key, last = line.split()
    acknowledged[run_key] = int(last)


def _turns(events: Sequence[Event]) -> list[int]:
    """The appends in a log, each one whole: 2 events of the first, 3 of the second, and so on."""
    contents = [json.loads(event.text)["data"]["content"] for event in events[1:]]
    turns = sorted({int(content.split("-")[0]) for content in contents})
    assert contents == [f"{turn}-{number}" for turn in turns for number in range(turn % 7 + 1)]
    return turns
