"""The writing end of one run's log."""

import asyncio
from collections.abc import Sequence
from typing import Final

from app.errors import LogClosed
from app.runs.event import NewEvent
from app.runs.model import Lease
from app.runs.store import Store

# saved with what a node wrote, so a crash can't lose it; a wait for it would cost every step a commit
SAVED_ELSEWHERE: Final = frozenset({"node"})


class LogWriter:
    """Takes events without waiting and appends them in order: what gathers during one append goes into the next.

    `put` is for the loop's own thread. `pump` is a task's body; it ends with `drain`, or raises what an append raised.
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._pending: list[NewEvent] = []
        self._wake = asyncio.Event()
        self._draining = False
        self._written = 0
        self._to_flush = 0
        self._moved = asyncio.Event()  # replaced whenever something was written, or never will be
        self._is_over = False
        self._error: Exception = LogClosed("The log takes no more of this attempt.")
        self.count = 0

    def put(self, event: NewEvent) -> None:
        self._pending.append(event)
        self.count += 1
        if event.kind not in SAVED_ELSEWHERE:
            self._to_flush = self.count
        self._wake.set()

    async def flush(self) -> None:
        """Return when what was put until now, and is nowhere else, is in the log.

        Raises what an append raised, or LogClosed.
        """
        count = self._to_flush
        while self._written < count:
            if self._is_over:
                raise self._error
            await self._moved.wait()

    async def pump(self) -> None:
        try:
            while not self._draining:
                await self._wake.wait()
                self._wake.clear()
                if self._pending and not self._draining:
                    await self._append()
        except Exception as error:
            self._error = error
            raise
        finally:
            self._is_over = True
            self._moved.set()

    async def _append(self) -> None:
        batch, self._pending = self._pending, []
        await self._store.append(self._lease, batch)
        self._written += len(batch)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def drain(self) -> None:
        """Let the pump end after the append under way; what is left is for `remainder`."""
        self._draining = True
        self._wake.set()

    def remainder(self) -> Sequence[NewEvent]:
        """What was not appended: it goes into the transaction of the end."""
        rest, self._pending = self._pending, []
        return rest
