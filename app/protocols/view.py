"""What one reader sees of a log: a filter, since all readers read the same events."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import ModeNotRecorded
from app.runs.event import MODES, Event


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """`modes` None: everything that the run recorded. Starts, restarts, discards and ends are always shown."""

    modes: frozenset[str] | None = None
    subgraphs: bool = True

    def select(self, events: Sequence[Event]) -> Sequence[Event]:
        if self.modes is None and self.subgraphs:
            return events
        return [event for event in events if self._shows(event)]

    def _shows(self, event: Event) -> bool:
        if self.modes is not None:
            mode = MODES.get(event.kind)
            if mode is not None and mode not in self.modes:
                return False
        return self.subgraphs or not event.is_nested


def view_of(recorded: Sequence[str], *, modes: Sequence[str] | None, subgraphs: bool | None) -> View:
    """The view a reader asks for; what it leaves out is as the run was started. Raises ModeNotRecorded."""
    if modes is not None:
        missing = [mode for mode in modes if mode not in recorded]
        if missing:
            raise ModeNotRecorded(missing, recorded)
    return View(modes=None if modes is None else frozenset(modes), subgraphs=True if subgraphs is None else subgraphs)
