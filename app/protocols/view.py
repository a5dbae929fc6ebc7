"""What one reader sees of a log: a filter, since all readers read the same events."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.errors import ModeNotRecorded
from app.protocols.tokens import TokenPolicy, TokenView
from app.runs.event import MODES, Event


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """`modes` None: everything that the run recorded. Starts, restarts, discards and ends are always shown."""

    modes: frozenset[str] | None = None
    subgraphs: bool = True
    tokens: TokenPolicy = field(default_factory=TokenPolicy)

    @property
    def recalls(self) -> bool:
        """Whether a reader that begins in the middle needs what is before: see `Reading.recall`."""
        return self.tokens.parses

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


def view_of(
    recorded: Sequence[str],
    *,
    modes: Sequence[str] | None = None,
    subgraphs: bool | None = None,
    tokens: TokenPolicy | None = None,
) -> View:
    """The view a reader asks for; what it leaves out is as the run was started. Raises ModeNotRecorded."""
    if modes is not None:
        missing = [mode for mode in modes if mode not in recorded]
        if missing:
            raise ModeNotRecorded(missing, recorded)
    return View(
        modes=None if modes is None else frozenset(modes),
        subgraphs=True if subgraphs is None else subgraphs,
        tokens=tokens or TokenPolicy(),
    )


class Reading:
    """One reader's view at work on one run, with what its token policy holds back."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._tokens = TokenView(view.tokens)
        self._is_past = False

    def recall(self, events: Sequence[Event]) -> None:
        """Note what the client has already, before anything is selected for it."""
        self._tokens.select(self._view.select(events), now=0.0)
        self._is_past = True

    def select(self, events: Sequence[Event], *, now: float, is_behind: bool) -> Sequence[Event]:
        """What to send of these events, at the monotonic time `now`. Without events: what has waited long enough."""
        if self._is_past:
            self._tokens.flush()
            self._is_past = False
        if events:
            return self._tokens.select(self._view.select(events), now=now, is_behind=is_behind)
        due_at = self._tokens.due_at
        return self._tokens.flush() if due_at is not None and due_at <= now else []

    @property
    def due_at(self) -> float | None:
        """The monotonic time at which something that is held back must go out."""
        return self._tokens.due_at
