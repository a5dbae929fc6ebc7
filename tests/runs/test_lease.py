"""The leases of a process are kept from a thread, and given up when its event loop is stuck."""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence

import pytest

from app.runs.lease import LeaseKeeper
from app.runs.model import Lease
from tests.conformance.harness import ManualClock

LEASE = Lease(run_key="o/r", thread_key="o/t", worker="w", epoch=1, attempt=1, version=1)
STUCK_SECONDS = 60.0


class Kept:
    """A keeper on a clock that a test moves, and what it renewed."""

    def __init__(self, *, lease_seconds: float = 0.01) -> None:
        self.clock = ManualClock()
        self.renewed: list[Sequence[Lease]] = []
        self.is_renewed = threading.Event()
        self.leases: list[Lease] = [LEASE]
        self.keeper = LeaseKeeper(
            lambda: self.leases,
            self._renew,
            lease_seconds=lease_seconds,
            stuck_seconds=STUCK_SECONDS,
            monotonic=self.clock.monotonic,
        )

    def _renew(self, leases: Sequence[Lease]) -> None:
        self.renewed.append(list(leases))
        self.is_renewed.set()


def test_leases_are_renewed_though_a_node_blocks_the_loop() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.keeper.start()
        assert kept.is_renewed.wait(10)  # it blocks the loop, too
        kept.keeper.close()
        assert kept.renewed[0] == [LEASE]

    asyncio.run(scenario())


def test_a_process_whose_loop_is_stuck_gives_its_leases_up_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.keeper.keep()
        kept.clock.advance(STUCK_SECONDS)
        with caplog.at_level(logging.ERROR):
            kept.keeper.keep()
            kept.keeper.keep()
        assert len(kept.renewed) == 1
        assert [record.getMessage() for record in caplog.records] == [
            "the event loop has been stuck for 60 seconds: its leases are given up"
        ]
        await asyncio.sleep(0)  # the loop turns again
        kept.keeper.keep()
        assert len(kept.renewed) == 2

    asyncio.run(scenario())


def test_nothing_is_asked_of_the_store_when_nothing_runs() -> None:
    async def scenario() -> None:
        kept = Kept()
        kept.leases.clear()
        kept.keeper.keep()
        assert kept.renewed == []

    asyncio.run(scenario())


def test_a_renewal_that_fails_is_tried_again() -> None:
    async def scenario() -> None:
        tries: list[float] = []
        twice = threading.Event()

        def fail(leases: Sequence[Lease]) -> None:
            tries.append(time.monotonic())
            if len(tries) > 1:
                twice.set()
            raise OSError("the disk is away")

        keeper = LeaseKeeper(lambda: [LEASE], fail, lease_seconds=0.01, stuck_seconds=STUCK_SECONDS)
        keeper.start()
        assert twice.wait(10)
        keeper.close()

    asyncio.run(scenario())
