"""The newest events of the logs this process writes, so that live readers cost the database nothing."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.runs.event import Event
from app.runs.store import Page
from app.storage.decide import cut, page

RUN_BYTES: Final = 256 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024
ENDED_RUNS: Final = 64


@dataclass(slots=True)
class Window:
    """The end of one log: gapless, up to its newest committed event."""

    last_seq: int = 0
    is_ended: bool = False
    events: list[Event] = field(default_factory=list)
    size_bytes: int = 0

    def has_news(self, *, after: int) -> bool:
        return self.is_ended or self.last_seq > after

    def extend(self, events: Sequence[Event], *, max_bytes: int) -> None:
        if not events:
            return
        self.events.extend(events)
        self.size_bytes += sum([len(event.text) for event in events])
        self.last_seq = events[-1].seq
        self._trim(max_bytes)

    def page(self, *, after: int, max_events: int, max_bytes: int) -> Page | None:
        """What is after `after`, or None when that begins before the window."""
        start = len(self.events) - (self.last_seq - after)
        if start < 0:
            return None
        events = cut(self.events, min(start, len(self.events)), max_events=max_events, max_bytes=max_bytes)
        return page(events, after=after, last_seq=self.last_seq, is_ended=self.is_ended)

    def _trim(self, max_bytes: int) -> None:
        surplus = 0
        while self.size_bytes > max_bytes:
            self.size_bytes -= len(self.events[surplus].text)
            surplus += 1
        del self.events[:surplus]


class Windows:
    """The windows of all logs, bounded: by bytes a run, by bytes in all, and by the number of runs that have ended.

    Used in one event loop only, in the order of the commits.
    """

    def __init__(
        self, *, run_bytes: int = RUN_BYTES, total_bytes: int = TOTAL_BYTES, ended_runs: int = ENDED_RUNS
    ) -> None:
        self._run_bytes = run_bytes
        self._total_bytes = total_bytes
        self._ended_runs = ended_runs
        self._active: OrderedDict[str, Window] = OrderedDict()  # the one written longest ago first
        self._ended: OrderedDict[str, Window] = OrderedDict()  # the one read longest ago first
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._active) + len(self._ended)

    def get(self, run_key: str) -> Window | None:
        window = self._active.get(run_key)
        if window is not None:
            return window
        window = self._ended.get(run_key)
        if window is not None:
            self._ended.move_to_end(run_key)
        return window

    def extend(self, run_key: str, events: Sequence[Event], *, is_ended: bool) -> None:
        """Take in what was committed; a run that is not known yet gets a window that begins with these events."""
        window = self._active.get(run_key)
        if window is None:
            window = self._active[run_key] = Window()
        else:
            self._active.move_to_end(run_key)
        before = window.size_bytes
        window.extend(events, max_bytes=self._run_bytes)
        self.size_bytes += window.size_bytes - before
        if is_ended:
            window.is_ended = True
            self._ended[run_key] = self._active.pop(run_key)
        self._shrink()

    def forget(self, run_key: str) -> None:
        for windows in (self._active, self._ended):
            window = windows.pop(run_key, None)
            if window is not None:
                self.size_bytes -= window.size_bytes

    def _shrink(self) -> None:
        while len(self._ended) > self._ended_runs or (self._ended and self.size_bytes > self._total_bytes):
            self.forget(next(iter(self._ended)))
        if self.size_bytes <= self._total_bytes:
            return
        for window in self._active.values():  # their ends stay known, so that waiting needs no database
            self.size_bytes -= window.size_bytes
            window.events.clear()
            window.size_bytes = 0
            if self.size_bytes <= self._total_bytes:
                return
