"""What the core tells whoever measures it. The composition root gives the one that does; nobody listening is fine."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from app.runs.event import NewEvent
from app.runs.model import CancelReason, Ending, Run


class Observer(Protocol):
    """Called in the event loop's thread, never for each token; seconds are elapsed ones."""

    def run_started(self, graph: str, *, waited_seconds: float) -> None:
        """A run was begun for the first time, so long after it was accepted."""

    def run_ended(self, graph: str, ending: Ending, reason: CancelReason | None) -> None:
        """A run's end is in its log. `reason`: who or what stopped it, if anything."""

    def run_taken_up(self, reason: str) -> None:
        """Another attempt at a run that a `crash` or a `deploy` left; `lost`: there is none any more."""

    def lease_lost(self) -> None:
        """A write was refused, since another process has the run."""

    def limit_hit(self, limit: str) -> None:
        """A run has said more than it may: `run_events`, `run_bytes` or `waiting_bytes`."""

    def appended(self, *, events: int, seconds: float) -> None:
        """So many events of one run went into its log together."""

    def first_token(self, graph: str, seconds: float) -> None:
        """The first token of a run is in its log, so long after the run was accepted."""

    def token_gap(self, graph: str, seconds: float) -> None:
        """Tokens are in a run's log, so long after those before them."""


class Nobody:
    """An observer that looks away."""

    def run_started(self, graph: str, *, waited_seconds: float) -> None: ...

    def run_ended(self, graph: str, ending: Ending, reason: CancelReason | None) -> None: ...

    def run_taken_up(self, reason: str) -> None: ...

    def lease_lost(self) -> None: ...

    def limit_hit(self, limit: str) -> None: ...

    def appended(self, *, events: int, seconds: float) -> None: ...

    def first_token(self, graph: str, seconds: float) -> None: ...

    def token_gap(self, graph: str, seconds: float) -> None: ...


class RunMeter:
    """Measures one attempt at a run by what goes into its log, a batch at a time."""

    def __init__(self, observer: Observer, run: Run) -> None:
        self._observer = observer
        self._run = run
        self._is_first = run.attempt <= 1
        self._token_at: float | None = None

    def appended(self, batch: Sequence[NewEvent], seconds: float) -> None:
        self._observer.appended(events=len(batch), seconds=seconds)
        if "token" in [event.kind for event in batch]:
            now = time.monotonic()
            if self._token_at is not None:
                self._observer.token_gap(self._run.graph, now - self._token_at)
            elif self._is_first:
                self._observer.first_token(self._run.graph, age_seconds(self._run))
            self._token_at = now


def age_seconds(run: Run) -> float:
    """How long ago a run was accepted, as far as the clock was not set back since."""
    return max((datetime.now(UTC) - run.created_at).total_seconds(), 0.0)
