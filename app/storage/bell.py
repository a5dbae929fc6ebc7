"""How readers of a log are told to look again."""

import asyncio
from types import TracebackType
from typing import Self


class Bell:
    """Rings once. A future for each who waits, and a timer: half of what an Event and a timeout cost.

    A context: whoever leaves it does not listen any more.
    """

    __slots__ = ("_bells", "_listeners", "_run_key", "_waiting", "has_rung")

    def __init__(self, bells: "dict[str, Bell]", run_key: str) -> None:
        self._bells = bells
        self._run_key = run_key
        self._listeners = 0
        self.has_rung = False
        self._waiting: set[asyncio.Future[bool]] = set()

    def __enter__(self) -> Self:
        self._listeners += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listeners -= 1
        if not self._listeners and self._bells.get(self._run_key) is self:
            del self._bells[self._run_key]

    async def wait(self, seconds: float | None = None) -> bool:
        """Whether it has rung, within so many seconds. Safe to cancel."""
        if self.has_rung:
            return True
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bool] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _settle, heard, False)
        self._waiting.add(heard)
        try:
            return await heard
        finally:
            self._waiting.discard(heard)
            if timer is not None:
                timer.cancel()

    def ring(self) -> None:
        self.has_rung = True
        for heard in self._waiting:
            _settle(heard, True)


def _settle(heard: asyncio.Future[bool], has_rung: bool) -> None:
    if not heard.done():
        heard.set_result(has_rung)


class Bells:
    """A bell a log, there only while somebody listens. A ring swaps the bell: whoever listens later hears the next.

    One shared `asyncio.Condition` would not do: a waiter cancelled by a timeout can break its lock for the others.
    Used in one event loop only.
    """

    def __init__(self) -> None:
        self._bells: dict[str, Bell] = {}

    def __len__(self) -> int:
        return len(self._bells)

    def listen(self, run_key: str) -> Bell:
        """Hear every ring, from its `with` on. To miss nothing, look at the log after this, not before."""
        bell = self._bells.get(run_key)
        if bell is None:
            bell = self._bells[run_key] = Bell(self._bells, run_key)
        return bell

    def ring(self, run_key: str) -> None:
        bell = self._bells.pop(run_key, None)
        if bell is not None:
            bell.ring()

    def ring_all(self) -> None:
        for run_key in tuple(self._bells):
            self.ring(run_key)


def runs_of(thread_key: str) -> str:
    """The bell that rings when a thread accepts a run; a run's own is named by its key, which has no space."""
    return f"runs of {thread_key}"
