"""How readers of a log are told to look again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Bell:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: int = 0


class Bells:
    """A bell a log, there only while somebody listens. A ring swaps the bell: whoever listens later hears the next.

    One shared `asyncio.Condition` would not do: a waiter cancelled by a timeout can break its lock for the others.
    Used in one event loop only.
    """

    def __init__(self) -> None:
        self._bells: dict[str, _Bell] = {}

    def __len__(self) -> int:
        return len(self._bells)

    @contextmanager
    def listen(self, run_key: str) -> Iterator[asyncio.Event]:
        """Hear every ring from here on. To miss nothing, look at the log after this, not before."""
        bell = self._bells.setdefault(run_key, _Bell())
        bell.listeners += 1
        try:
            yield bell.event
        finally:
            bell.listeners -= 1
            if not bell.listeners and self._bells.get(run_key) is bell:
                del self._bells[run_key]

    def ring(self, run_key: str) -> None:
        bell = self._bells.pop(run_key, None)
        if bell is not None:
            bell.event.set()

    def ring_all(self) -> None:
        for run_key in tuple(self._bells):
            self.ring(run_key)


def runs_of(thread_key: str) -> str:
    """The bell that rings when a thread accepts a run; a run's own is named by its key, which has no space."""
    return f"runs of {thread_key}"
