"""The leases of a process are kept from a thread, and given up when its event loop is stuck."""

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest

from app.runs.lease import LeaseKeeper
from app.runs.model import Lease
from app.runs.watchdog import LoopWatchdog

LEASE = Lease(run_key="o/r", thread_key="o/t", worker="w", epoch=1, attempt=1, version=1)
STUCK_SECONDS = 60.0
GIVEN_UP = "the event loop has been stuck for 60 seconds: its leases are given up"
WAIT_SECONDS = 10.0


class Kept:
    """A keeper of a loop that is stuck for as long as a test says, and what it renewed."""

    def __init__(self) -> None:
        self.stuck_for = 0.0
        self.renewed: list[Sequence[Lease]] = []
        self.leases: list[Lease] = [LEASE]
        self.keeper = LeaseKeeper(
            lambda: self.leases,
            self.renewed.append,
            stuck_for=lambda: self.stuck_for,
            lease_seconds=0.01,
            stuck_seconds=STUCK_SECONDS,
        )


class Watched:
    """A keeper, at work, that asks the watchdog of a real loop; the last renewal is awaited in any thread."""

    def __init__(self, watchdog: LoopWatchdog, *, stuck_seconds: float) -> None:
        self.is_renewed = threading.Event()
        self.keeper = LeaseKeeper(
            lambda: [LEASE],
            lambda leases: self.is_renewed.set(),
            stuck_for=lambda: watchdog.stuck_seconds,
            lease_seconds=0.01,
            stuck_seconds=stuck_seconds,
        )
        self.keeper.start()


def test_leases_are_renewed_though_a_node_blocks_the_loop() -> None:
    async def scenario() -> None:
        async with LoopWatchdog(blocked_seconds=STUCK_SECONDS) as watchdog:
            watched = Watched(watchdog, stuck_seconds=STUCK_SECONDS)
            assert watched.is_renewed.wait(WAIT_SECONDS)  # it blocks the loop, too
            watched.keeper.close()

    asyncio.run(scenario())


def test_leases_are_given_up_while_the_watchdog_finds_the_loop_stuck_and_kept_again_when_it_turns() -> None:
    given_up = threading.Event()

    class GivenUp(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            given_up.set()

    async def scenario() -> None:
        async with LoopWatchdog(blocked_seconds=STUCK_SECONDS) as watchdog:
            watched = Watched(watchdog, stuck_seconds=0.3)
            assert given_up.wait(WAIT_SECONDS)  # the loop is stuck in here
            watched.is_renewed.clear()
            assert await asyncio.to_thread(watched.is_renewed.wait, WAIT_SECONDS)
            watched.keeper.close()

    handler = GivenUp(logging.ERROR)
    logging.getLogger("app.runs.lease").addHandler(handler)
    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger("app.runs.lease").removeHandler(handler)


def test_a_process_whose_loop_is_stuck_gives_its_leases_up_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.keeper.keep()
    kept.stuck_for = STUCK_SECONDS
    with caplog.at_level(logging.ERROR):
        kept.keeper.keep()
        kept.keeper.keep()
    assert kept.renewed == [[LEASE]]
    assert [record.getMessage() for record in caplog.records] == [GIVEN_UP]


def test_a_loop_that_is_stuck_again_is_told_of_again(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    with caplog.at_level(logging.ERROR):
        for stuck_for in (STUCK_SECONDS, 0.0, STUCK_SECONDS):
            kept.stuck_for = stuck_for
            kept.keeper.keep()
    assert kept.renewed == [[LEASE]]
    assert [record.getMessage() for record in caplog.records] == [GIVEN_UP, GIVEN_UP]


def test_nothing_is_asked_of_the_store_when_nothing_runs() -> None:
    kept = Kept()
    kept.leases.clear()
    kept.keeper.keep()
    assert kept.renewed == []


def test_a_renewal_that_fails_is_tried_again() -> None:
    tries: list[Sequence[Lease]] = []
    twice = threading.Event()

    def fail(leases: Sequence[Lease]) -> None:
        tries.append(leases)
        if len(tries) > 1:
            twice.set()
        raise OSError("the disk is away")

    keeper = LeaseKeeper(lambda: [LEASE], fail, stuck_for=lambda: 0.0, lease_seconds=0.01, stuck_seconds=STUCK_SECONDS)
    keeper.start()
    assert twice.wait(WAIT_SECONDS)
    keeper.close()
