"""An engine at the edge of the core: its executions do what a test tells them to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from app.runs.engine import Cause, Conclusion, Execution, Failed, Finished, Log, Outcome, Past, Stopped
from app.runs.event import NewEvent
from app.runs.model import Ending, Lease, Run, RunError, Thread
from app.runs.request import RunRequest

Work = Callable[[Callable[[NewEvent], None]], Awaitable[None]]


class ScriptedExecution:
    """See `app.runs.engine.Execution`; ends as its cause says."""

    def __init__(self, work: Work, put: Callable[[NewEvent], None]) -> None:
        self._work = work
        self._put = put
        self.causes: list[Cause] = []
        self.conclusion_error: Exception | None = None

    async def work(self) -> None:
        await self._work(self._put)

    async def settle(self, seconds: float) -> bool:
        return True

    async def conclude(self, cause: Cause) -> Conclusion:
        self.causes.append(cause)
        if self.conclusion_error is not None:
            raise self.conclusion_error
        match cause:
            case Finished():
                return Conclusion(
                    events=[NewEvent("complete", b'{"event":"complete"}')],
                    ending=Ending(status="success", thread_status="idle"),
                )
            case Stopped():
                return Conclusion(
                    events=[NewEvent("cancelled", b'{"event":"cancelled"}')],
                    ending=Ending(status="cancelled", thread_status="idle"),
                )
            case _:
                return Conclusion(
                    events=[NewEvent("error", b'{"event":"error"}')],
                    ending=Ending(
                        status="error", thread_status="error", error=RunError(code="graph_error", message="It failed.")
                    ),
                )

    def drain(self) -> None:
        pass


class ScriptedEngine:
    """See `app.runs.engine.Engine`. `work` is what each execution does; `planning` is awaited by each plan."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.executions: list[ScriptedExecution] = []
        self.plans: list[Thread | None] = []
        self.undone: list[list[str]] = []
        self.planning: Callable[[], Awaitable[None]] = no_wait

    def graph_name(self, asked: str | None, thread: Thread | None) -> str:
        return "graph"

    async def plan(
        self, request: RunRequest, *, graph: str, thread_id: str, thread: Thread | None
    ) -> Mapping[str, Any]:
        self.plans.append(thread)
        await self.planning()
        return {"timeout_seconds": request.timeout_seconds}

    async def check_ahead(self, request: RunRequest, *, graph: str) -> Mapping[str, Any]:
        return {}

    async def undo(self, owner: str, thread_id: str, run_ids: Sequence[str], *, version: int) -> None:
        self.undone.append(list(run_ids))

    def execution(self, run: Run, lease: Lease, log: Log, past: Past) -> Execution:
        execution = ScriptedExecution(self._work, log.put)
        self.executions.append(execution)
        return execution

    async def outcome(self, run: Run) -> Outcome:
        return Outcome(output=None, interrupts=[], next=[])


async def no_wait() -> None:
    return None


async def for_ever(put: Callable[[NewEvent], None]) -> None:
    await asyncio.Event().wait()


async def at_once(put: Callable[[NewEvent], None]) -> None:
    put(NewEvent("custom", b'{"event":"custom"}'))


def failed(cause: Cause) -> BaseException:
    assert isinstance(cause, Failed)
    return cause.error
