"""Many runs in a row, and readers that are stuck: memory, files, threads and tasks stay flat.

RUNSTREAM_LONG_TESTS=1 makes it ten thousand runs and 200 readers.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.limits.conftest import CONFIG, resident_bytes
from tests.raw_client import RawExchange
from tests.server import RunningServer, running, wait_until

IS_LONG = bool(os.environ.get("RUNSTREAM_LONG_TESTS"))
RUNS = 10_000 if IS_LONG else 300
STUCK = 200 if IS_LONG else 40
CLIENTS = 4
NODE_THREADS = 4
GROWTH_BYTES = 48 * 1024 * 1024  # the windows of 64 ended runs are 16 MiB; SQLite and the allocator keep some, too


@dataclass(frozen=True)
class Weight:
    """What a process holds."""

    objects: int
    spared: int  # objects that no collection looks at
    tasks: int
    threads: int
    files: int
    resident: int


def weigh(server: RunningServer, client: httpx.Client) -> Weight:
    """After all that ended has gone: streams and runs are closed a moment after their last byte."""
    wait_until(lambda: is_at_rest(client), "nothing is at work and nobody reads")
    answer = client.post("/runs/invoke", json={"graph": "weighs", "input": {}})
    counted = answer.json()["output"]
    folder = Path(f"/proc/{server.process_id}")
    return Weight(
        objects=counted["objects"],
        spared=counted["spared"],
        tasks=counted["tasks"],
        threads=len(list((folder / "task").iterdir())),
        files=len(list((folder / "fd").iterdir())),
        resident=resident_bytes(server.process_id),
    )


def is_at_rest(client: httpx.Client) -> bool:
    lines = client.get("/metrics").text.splitlines()
    return "runstream_active_runs 0.0" in lines and "runstream_open_streams 0.0" in lines


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {"RUNSTREAM_MAX_NODE_THREADS": str(NODE_THREADS)}
    with running(tmp_path_factory.mktemp("soak") / "data", config=CONFIG, env=env) as server:
        yield server


def do_runs(server: RunningServer, count: int) -> int:
    """Runs of all sorts, by a few clients side by side, a part of them on threads that are there already."""

    def some(number: int) -> int:
        done = 0
        with server.client(timeout=120.0) as client:
            for index in range(count // CLIENTS):
                body = {"graph": "quiet", "input": {}, "thread_id": f"{number}-{index % 50}"}
                if index % 10 == 3:
                    body = {"graph": "breaks", "input": {"count": 1}}
                if index % 10 == 7:
                    body = {"graph": "sync_flood", "input": {"count": 5}}
                done += client.post("/runs/stream", json=body).status_code == 200
        return done

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(some, range(CLIENTS)))


def check_flat(before: Weight, after: Weight, *, things: int) -> None:
    """No object, task, thread or file for each run or reader: a tenth of one would be a leak."""
    assert after.tasks <= before.tasks + 2
    assert after.threads <= before.threads + NODE_THREADS + 2  # pools grow when there is work at once
    assert after.files <= before.files + 6  # kept connections, and a reader of SQLite more
    assert after.objects - before.objects < max(things * 5, 3000)
    assert after.resident - before.resident < GROWTH_BYTES


def test_no_collection_looks_at_what_the_start_has_made(server: RunningServer) -> None:
    with server.client() as client:
        weight = weigh(server, client)
    assert weight.spared > weight.objects


def test_many_runs_in_a_row_leave_nothing_behind(server: RunningServer) -> None:
    with server.client() as client:
        do_runs(server, 100)  # what is made once: pools, caches, statements
        weigh(server, client)
        before = weigh(server, client)
        assert do_runs(server, RUNS) == RUNS
        after = weigh(server, client)
    check_flat(before, after, things=RUNS // 10)


def test_readers_that_are_stuck_leave_nothing_behind_and_hold_nobody_up(server: RunningServer) -> None:
    with server.client() as client:
        weigh(server, client)
        before = weigh(server, client)
        with contextlib.ExitStack() as stack:
            for _ in range(STUCK):
                body = {"graph": "sync_flood", "input": {"count": 20, "size": 20_000}, "on_disconnect": "continue"}
                exchange = RawExchange(server.port, "POST", "/runs/stream", json_body=body, receive_buffer_bytes=4096)
                stack.enter_context(exchange).read_head()
            assert client.post("/runs/invoke", json={"graph": "quiet", "input": {}}).status_code == 200
            held = resident_bytes(server.process_id) - before.resident
        after = weigh(server, client)
    assert held < GROWTH_BYTES + STUCK * 1024 * 1024
    check_flat(before, after, things=STUCK)
