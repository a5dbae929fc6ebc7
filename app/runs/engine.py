"""What the core asks of whatever runs graphs. `app.engine` is the one implementation; the core knows none."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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


Flush = Callable[[], Awaitable[None]]


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

    def execution(
        self, run: Run, lease: Lease, put: Callable[[NewEvent], None], past: Past, *, flush: Flush
    ) -> Execution:
        """An attempt that gives its events to `put`.

        When a `flush` returns, those put before it are in the log; the events of nodes, which the engine saves itself,
        may come later.
        """
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
