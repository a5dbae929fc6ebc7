"""Gives other threads their turn with the interpreter while the event loop never rests."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

CHECK_SECONDS: Final = 0.002
REST_SECONDS: Final = 0.0001


class ThreadTurns:
    """Makes a busy loop rest for a moment now and then, as long as it waits for a thread.

    A loop that always has something to do lets go of the GIL for a few microseconds a turn, to ask for new I/O. A
    thread that waits for the GIL is woken by that, comes too late, and has lost its claim to a forced switch, which
    only a whole switch interval without any release gives (CPython to 3.13 at least). Seconds were measured. A rest
    of a tenth of a millisecond is enough for a thread that wakes up. A loop that rests by itself is not slowed down.
    """

    def __init__(self, *, rest: Callable[[float], None] = time.sleep) -> None:
        self._rest_for = rest
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The loop waits for one more piece of work in a thread."""
        self._waiting += 1
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_SECONDS, self._rest)

    def end(self) -> None:
        self._waiting -= 1
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        self._rest_for(REST_SECONDS)
        self._timer = self._loop.call_later(CHECK_SECONDS, self._rest)
