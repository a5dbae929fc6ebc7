"""A loop that is blocked is noticed, and who blocks it is named."""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest

from app.runs.watchdog import LoopWatchdog
from tests.raw_client import new_gate
from tests.server import RunningServer, run, running, wait_until

SECONDS = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {"RUNSTREAM_BLOCKED_LOOP_SECONDS": "0.3"}
    with running(tmp_path_factory.mktemp("blocked") / "data", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_the_log_names_the_node_that_blocks_the_loop_and_the_place_in_its_code_and_nothing_it_knows(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = new_gate(server)
    opened = threading.Event()

    def open_when_told() -> None:
        wait_until(lambda: "the event loop is blocked by node block of graph blocks" in server.log, "it is named")
        opened.set()
        server.open_gate(gate, 1)

    waiting = threading.Thread(target=open_when_told)
    waiting.start()
    frames = run(client, graph="blocks", input={"gate": gate}, thread_id="the-thread")
    waiting.join(SECONDS)

    assert opened.is_set()
    (line,) = (line for line in server.log.splitlines() if "is blocked by" in line)
    assert f"run {frames[0]['run_id']}, thread the-thread" in line
    assert "tests/project/graphs.py:" in line
    assert "in block_loop" in line
    assert gate not in line
    wait_until(lambda: "the event loop goes on, after" in server.log, "the end is told, too")
    assert 'runstream_loop_blocked_total{graph="blocks"} 1.0' in client.get("/metrics").text


def test_slow_work_that_lets_others_have_their_turn_is_not_named(client: httpx.Client, server: RunningServer) -> None:
    before = server.log.count("is blocked by")
    run(client, graph="slow_sync", input={"log": []})
    assert server.log.count("is blocked by") == before


def test_how_long_a_loop_has_been_stuck_is_known_in_other_threads_and_a_block_is_told_once() -> None:
    told: list[str] = []
    lags: list[float] = []

    async def scene() -> float:
        beaten = asyncio.Event()

        def beat(lag: float) -> None:
            lags.append(lag)
            beaten.set()

        async with LoopWatchdog(blocked_seconds=0.2, on_blocked=told.append, on_lag=beat) as watchdog:
            stuck: list[float] = []
            enough = threading.Event()

            def look() -> None:
                while watchdog.stuck_seconds < 0.5 or not told:
                    pass
                stuck.append(watchdog.stuck_seconds)
                enough.set()

            thread = threading.Thread(target=look)
            thread.start()
            enough.wait(SECONDS)
            thread.join()
            await beaten.wait()
            return stuck[0]

    assert asyncio.run(scene()) >= 0.5
    assert told == [""]
    assert max(lags) >= 0.5


def test_a_watchdog_leaves_no_thread_behind() -> None:
    async def scene() -> None:
        async with LoopWatchdog(blocked_seconds=1.0):
            assert "loop-watchdog" in {thread.name for thread in threading.enumerate()}

    asyncio.run(scene())
    assert "loop-watchdog" not in {thread.name for thread in threading.enumerate()}
