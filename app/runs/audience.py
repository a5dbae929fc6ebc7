"""Who looks on at runs, and what happens to one that nobody looks on at (wire contract, `on_disconnect`)."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from app.runs.model import Run


class Audience:
    """Who looks on at a run, each as long as a `with` lasts.

    When nobody has for the grace, `left` is called; None: nobody need look on.
    """

    def __init__(self, grace_seconds: float | None, left: Callable[[], None]) -> None:
        self._grace_seconds = grace_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._readers = 0
        self._is_over = False
        self.left = left
        self._watch()

    def __enter__(self) -> None:
        self._readers += 1
        self._watch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers -= 1
        self._watch()

    def close(self) -> None:
        self._is_over = True
        self._watch()

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._readers == 0 and self._grace_seconds is not None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(self._grace_seconds, lambda: self.left())


class Audiences:
    """By run: those of the runs that a process works on, and of those that wait for their turn."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._audiences: dict[str, Audience] = {}

    def __contains__(self, run_key: object) -> bool:
        return run_key in self._audiences

    def watch(self, run: Run, left: Callable[[], None]) -> None:
        """From now on `left` is what is done when nobody looks on; who does already, goes on."""
        known = self._audiences.get(run.key)
        if known is None:
            grace = self._grace_seconds if run.on_disconnect == "cancel" else None
            self._audiences[run.key] = Audience(grace, left)
        else:
            known.left = left

    def attach(self, run_key: str) -> contextlib.AbstractContextManager[object]:
        """Be one of those who look on at a run; nothing happens when it is none of this process."""
        return self._audiences.get(run_key) or contextlib.nullcontext()

    def forget(self, run_key: str) -> None:
        """The run has ended."""
        if audience := self._audiences.pop(run_key, None):
            audience.close()
