"""What the core and the engine tell whoever traces: a run, and the tasks of its nodes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from app.runs.model import Ending, Run


class NodeTrace(Protocol):
    """A task of a node."""

    def done(self, error: BaseException | None) -> None:
        """It has ended, with this error if with any."""
        ...


TraceNode = Callable[[str, str, NodeTrace | None], NodeTrace]


class Tracing(Protocol):
    """Spans, whatever they are. `app.tracing` has the one of OpenTelemetry."""

    def carrier(self) -> Mapping[str, str]:
        """Where the request at work stands in its trace, as text that is stored with its run; empty when nowhere."""
        ...

    def run(self, run: Run, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """An attempt at a run, below the request that started it; what begins inside is below the attempt."""
        ...

    def ended(self, ending: Ending) -> None:
        """How the attempt at work ended its run."""
        ...

    def nodes(self, run: Run) -> TraceNode:
        """To be asked for inside an attempt: a function that is told that a task of a node begins, where it does.

        Its arguments are the node's name, the task's id, and the task round it where it is in a subgraph.
        """
        ...


class Untraced:
    """Tracing that does nothing."""

    def carrier(self) -> Mapping[str, str]:
        return {}

    @contextlib.contextmanager
    def run(self, run: Run, carrier: Mapping[str, str]) -> Iterator[None]:
        yield

    def ended(self, ending: Ending) -> None: ...

    def nodes(self, run: Run) -> TraceNode:
        return lambda name, task_id, above: UntracedNode()


class UntracedNode:
    def done(self, error: BaseException | None) -> None: ...
