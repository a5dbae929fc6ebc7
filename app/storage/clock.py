"""The two times a store needs: one to show, one to measure leases with."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """`now` is aware and in UTC, for what people read; `monotonic` counts seconds and no clock change moves it."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # stands still while the machine sleeps, so a laptop that wakes finds its leases as they were
        return time.monotonic()
