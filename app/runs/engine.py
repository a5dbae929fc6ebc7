"""What the core asks of whatever runs graphs. `app.engine` is the one implementation; the core knows none."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.runs.event import NewEvent
from app.runs.model import CancelReason, Ending, Lease, Run, Thread
from app.runs.request import RunRequest
from app.runs.store import Page


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The graph came to its end, or paused: its state says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The graph, or something round it, raised."""

    error: BaseException


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """Somebody, or a clock, stopped it; `keep_partial`: what was said so far is to stay in the thread."""

    reason: CancelReason
    keep_partial: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Its process ended too often; it is not begun again."""


Cause = Finished | Failed | Stopped | Lost


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """The last events of a run, the terminal one last, and what its row will say."""

    events: Sequence[NewEvent]
    ending: Ending


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run left behind, as an invoke answers it."""

    output: Any
    interrupts: Sequence[Mapping[str, Any]]
    next: Sequence[str]


RestartReason = Literal["crash", "deploy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What went before an attempt: why it is not the first one, and what the log has."""

    restart: RestartReason | None  # None: the first attempt
    pages: Callable[[], AsyncIterator[Page]]


class Execution(Protocol):
    """One attempt at one run."""

    async def work(self) -> None:
        """Run the graph, putting events as they come. Returns at the end or a pause; raises what the graph raised."""
        ...

    async def settle(self, seconds: float) -> bool:
        """After a cancelled `work`: wait, at most so long, for threads of nodes that still run. False if one does."""
        ...

    async def conclude(self, cause: Cause) -> Conclusion:
        """Read how it ended. Called once, after `work`."""
        ...

    def drain(self) -> None:
        """Ask the graph to stop after its current step; `work` then raises `Drained`."""
        ...


class Log(Protocol):
    """Where an attempt puts its events; `app.runs.log.LogWriter` is the one implementation."""

    def put(self, event: NewEvent) -> None:
        """Take an event, in the loop's own thread. A log that is full drops what is only a preview."""
        ...

    @property
    def mark(self) -> int:
        """The place of what was put until now, for `flush`."""
        ...

    async def flush(self, mark: int) -> None:
        """Return when what was put until then is in the log; the events of nodes, saved elsewhere, may come later."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the disk that who can be held should be. May be asked in any thread."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the run has said more than it may, and is being stopped. May be asked in any thread."""
        ...


class Drained(Exception):
    """The graph stopped at a step's edge because `drain` asked it to."""


class Engine(Protocol):
    """Everything that knows graphs."""

    def graph_name(self, asked: str | None, thread: Thread | None) -> str:
        """The registered name that a request means. Raises GraphNotFound, GraphMismatch."""
        ...

    async def plan(
        self, request: RunRequest, *, graph: str, thread_id: str, thread: Thread | None
    ) -> Mapping[str, Any]:
        """Check a request against the graph and the thread's state, and give all that an attempt needs, as plain JSON.

        `thread` is None for a new one. Runs no node. Raises the conflicts and `Invalid`s of the contract's section 1.
        """
        ...

    async def check_ahead(self, request: RunRequest, *, graph: str) -> Mapping[str, Any]:
        """What a plan says whatever the thread's state is by the time of its turn, for readers that come before it.

        Raises what `plan` would raise then.
        """
        ...

    async def undo(self, owner: str, thread_id: str, run_ids: Sequence[str], *, version: int) -> None:
        """Take the steps of ended runs, the newest of their thread, out of its state, as if they had never been.

        Doing so again changes nothing. `version` is the thread's now; raises LeaseLost when a later claim has written.
        """
        ...

    def execution(self, run: Run, lease: Lease, log: Log, past: Past) -> Execution:
        """An attempt that gives its events to `log`."""
        ...

    async def outcome(self, run: Run) -> Outcome:
        """What an ended run left behind, read from its checkpoint."""
        ...


class GraphCatalog(Protocol):
    """The registered graphs, to be looked at."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def problems(self) -> Mapping[str, str]:
        """Why a graph can't be served, by name."""
        ...

    async def check(self) -> None:
        """Find out what `problems` says, once, when the server starts."""
        ...

    async def describe(self, name: str) -> Mapping[str, Any]:
        """Schemas, nodes, edges and a drawing, as plain JSON. Raises GraphNotFound, GraphUnavailable."""
        ...
