"""Watches the event loop from a thread of its own: a node that blocks it keeps everybody waiting, unseen."""

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Self

from app.runs.label import RunLabel

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.25
MAX_FRAMES: Final = 12

Culprit = tuple[RunLabel, str | None]
WhoRuns = Callable[[FrameType], Culprit | None]


class LoopWatchdog:
    """A timer in the loop that beats, and a thread that looks at when it last did.

    Open it in the loop that it is to watch (`async with`). `stuck_seconds` may be asked in any thread: whoever renews
    leases beside the loop gives them up when it has grown too large.
    """

    def __init__(
        self,
        *,
        blocked_seconds: float,
        who_runs: WhoRuns = lambda frame: None,
        on_lag: Callable[[float], None] = lambda seconds: None,
        on_blocked: Callable[[str], None] = lambda graph: None,
    ) -> None:
        """`who_runs` gets the innermost frame of the loop's thread and says which run and node it belongs to.

        `on_lag` is called in the loop, with how late a beat was; `on_blocked` in the thread, once each time that the
        loop has not beaten for `blocked_seconds`, with the graph's name or an empty one.
        """
        self._blocked_seconds = blocked_seconds
        self._who_runs = who_runs
        self._on_lag = on_lag
        self._on_blocked = on_blocked
        self._beat_at = 0.0
        self._reported_at = -1.0  # the beat after which the loop stood still
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)

    @property
    def stuck_seconds(self) -> float:
        """How late the next beat is."""
        return max(time.monotonic() - self._beat_at - BEAT_SECONDS, 0.0)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
        self._thread.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _beat(self) -> None:
        lag = self.stuck_seconds
        if self._reported_at == self._beat_at:
            logger.warning("the event loop goes on, after %.1f seconds", lag)
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
        self._on_lag(lag)

    def _watch(self) -> None:
        seen = 0.0
        while not self._stop.wait(BEAT_SECONDS):
            # only what was late the last time, too: a process that was asleep wakes up with an old beat
            is_still = self._beat_at == seen
            seen = self._beat_at
            if is_still and seen != self._reported_at and self.stuck_seconds >= self._blocked_seconds:
                self._reported_at = seen
                self._report()

    def _report(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return
        culprit = self._who_runs(frame)
        self._on_blocked("" if culprit is None else culprit[0].graph)
        logger.error("the event loop is blocked by %s: %s", named(culprit), stack_of(frame))


def named(culprit: Culprit | None) -> str:
    if culprit is None:
        return "something that is no node"
    label, node = culprit
    whose = f"node {node} of graph {label.graph}" if node else f"graph {label.graph}"
    return f"{whose} (run {label.run_id}, thread {label.thread_id}, owner {label.owner!r})"


def stack_of(frame: FrameType) -> str:
    """The places of the user's own code, and the innermost of all; no values."""
    places = [frame] if is_library(frame) else []
    outer: FrameType | None = frame
    while outer is not None and len(places) < MAX_FRAMES:
        if not is_library(outer):
            places.append(outer)
        outer = outer.f_back
    return " < ".join(f"{f.f_code.co_filename}:{f.f_lineno} in {f.f_code.co_name}" for f in places)


def is_library(frame: FrameType) -> bool:
    """Whether a frame's code is Python's, an installed package's, or the server's own."""
    path = frame.f_code.co_filename
    paths = sysconfig.get_paths()
    own = str(Path(__file__).parent.parent)
    return path.startswith((paths["stdlib"], paths["purelib"], paths["platlib"], own, "<frozen"))
