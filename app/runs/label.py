"""Which run a task works for: set where its tasks begin, and so known in all that they start, nodes and logs too."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from app.runs.model import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLabel:
    """What may stand in a log line about a run: names, and nothing that it says."""

    run_id: str
    thread_id: str
    graph: str
    owner: str

    @classmethod
    def of(cls, run: Run) -> "RunLabel":
        return cls(run_id=run.run_id, thread_id=run.thread_id, graph=run.graph, owner=run.owner)


current_run: Final[ContextVar[RunLabel | None]] = ContextVar("current_run", default=None)
