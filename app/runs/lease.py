"""Keeps the leases of a process alive, from a thread: a node that blocks the event loop loses none at once.

When the loop has been stuck for so long that its process may be taken for dead, the leases are left to run out: another
process may go on with the runs then, and whatever this one still writes for them is refused (fact 39).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from app.runs.model import Lease

logger = logging.getLogger(__name__)

RENEWALS: Final = 3  # in the time that a lease lasts, so that one may fail


class LeaseKeeper:
    """`leases` gives the leases to keep; `renew` keeps them, and blocks; `stuck_for` says how long the loop is stuck.

    All three are called in the keeper's thread, between `start` and the end of `close`; `stuck_for` gives seconds.
    """

    def __init__(
        self,
        leases: Callable[[], Sequence[Lease]],
        renew: Callable[[Sequence[Lease]], None],
        *,
        stuck_for: Callable[[], float],
        lease_seconds: float,
        stuck_seconds: float,
    ) -> None:
        self._leases = leases
        self._renew = renew
        self._stuck_for = stuck_for
        self._every_seconds = lease_seconds / RENEWALS
        self._stuck_seconds = stuck_seconds
        self._is_given_up = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; a renewal under way is waited for."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def keep(self) -> None:
        """One round: renew, unless the loop is stuck."""
        stuck_for = self._stuck_for()
        if stuck_for < self._stuck_seconds:
            self._is_given_up = False
            if leases := self._leases():
                self._renew(leases)
        elif not self._is_given_up:
            self._is_given_up = True
            logger.error("the event loop has been stuck for %.0f seconds: its leases are given up", stuck_for)

    def _work(self) -> None:
        while not self._closing.wait(self._every_seconds):
            try:
                self.keep()
            except Exception:
                logger.exception("leases could not be renewed; it is tried again")
