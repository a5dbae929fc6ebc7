"""From what a node says of its progress to the frames that are worth sending (wire contract, section 2, `progress`)."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.streaming import ProgressUpdate

SMOOTHING: Final = 0.3  # of a new rate against the ones before


class ProgressMeter:
    """The progress of one task: percent, rate and time left, and of many updates the few that show something.

    May be fed from any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sent_at: float | None = None
        self._rated: tuple[float, float] | None = None  # when, and the `current` then
        self._rate: float | None = None
        self._reached = -1.0
        self._began: float | None = None  # the first `current`
        self._is_done = False  # the total was reached, and that was shown
        self._held: ProgressUpdate | None = None

    def update(self, update: ProgressUpdate) -> Mapping[str, Any] | None:
        """The data of a frame, or None when it is too early for another one."""
        with self._lock:
            now, policy = self._clock(), update.policy
            percent = percent_of(update)
            self._begin_anew(update["current"])
            passed = [m for m in policy.milestones if percent is not None and self._reached < m <= percent]
            is_last = not self._is_done and update["total"] is not None and update["current"] >= update["total"]
            early = self._sent_at is not None and now - self._sent_at < policy.interval_seconds
            if early and not passed and not is_last:
                self._held = update
                return None
            self._is_done = self._is_done or is_last
            return self._data(update, now, percent, max(passed, default=None))

    def rest(self) -> Mapping[str, Any] | None:
        """The newest update, if it was held back: the node has ended, so none comes after it."""
        with self._lock:
            held = self._held
            return None if held is None else self._data(held, self._clock(), percent_of(held), None)

    def _begin_anew(self, current: float) -> None:
        """Back at its beginning after some of it was done, it is another piece of work, with milestones of its own."""
        if self._began is None or (current <= self._began and self._rated is not None and self._rated[1] > current):
            self._began, self._reached, self._is_done = current, -1.0, False
            self._rated = self._rate = None

    def _data(
        self, update: ProgressUpdate, now: float, percent: float | None, milestone: float | None
    ) -> Mapping[str, Any]:
        self._held, self._sent_at = None, now
        if percent is not None:
            self._reached = max(self._reached, percent)
        current, total = float(update["current"]), update["total"]
        rate = self._measure(now, current)
        left = None if not rate or total is None else max(float(total) - current, 0) / rate
        return {
            "current": update["current"],
            "total": total,
            "percent": None if percent is None else round(percent, 1),
            "rate": None if rate is None else round(rate, 3),
            "eta_seconds": None if left is None else round(left, 1),
            "message": update["message"],
            "milestone": milestone,
        }

    def _measure(self, now: float, current: float) -> float | None:
        """Units a second, smoothed."""
        before, self._rated = self._rated, (now, current)
        if before is not None and now > before[0] and current >= before[1]:
            newest = (current - before[1]) / (now - before[0])
            self._rate = newest if self._rate is None else SMOOTHING * newest + (1 - SMOOTHING) * self._rate
        return self._rate


def percent_of(update: ProgressUpdate) -> float | None:
    current, total, calculator = update["current"], update["total"], update.policy.calculator
    if calculator is not None:
        percent = calculator(current, total)
        return None if percent is None else float(percent)
    return 100 * float(current) / float(total) if total else None
