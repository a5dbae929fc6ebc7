"""Runs that wait for their turn on a thread, and what happens when it comes (wire contract, `multitask_strategy`).

A waiting run is a row and nothing else: what it begins with is planned when its turn comes, from the state that the
runs before it have left, in one transaction with its claim. So a crash, a cancel or an edit meanwhile loses nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from app.errors import LeaseLost, RunstreamError, StaleThread, StoreUnavailable
from app.runs.engine import Engine
from app.runs.event import NewEvent
from app.runs.executor import RunExecutor
from app.runs.failure import error_event
from app.runs.model import CancelReason, Ending, NewRun, Run, RunError, Thread, ThreadStatus, Turn
from app.runs.request import RunRequest
from app.runs.store import Store

logger = logging.getLogger(__name__)

MAX_CHECKS: Final = 5
ASKED: Final = "asked"
SHUTDOWN: Final = "server_shutdown"


def waiting(request: RunRequest, ahead: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is stored of a run until its turn comes; its readers find what they need in it, see `Engine.check_ahead`."""
    return {**ahead, ASKED: request.to_json()}


def start_event(run: NewRun | Run, *, attempt: int) -> NewEvent:
    body = {
        "event": "start",
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "graph": run.graph,
        "attempt": attempt,
    }
    return NewEvent("start", orjson.dumps(body))


class Turns:
    """Begins pending runs, oldest first, or ends them when they can't begin."""

    def __init__(self, store: Store, engine: Engine, executor: RunExecutor, *, worker: str) -> None:
        self._store = store
        self._engine = engine
        self._executor = executor
        self._worker = worker
        self._is_closed = False

    def close(self) -> None:
        """No run begins from now on."""
        self._is_closed = True

    def wait(self, run: Run) -> None:
        """Watch over a run until its turn comes: nobody may be there any more who wants it."""
        self._executor.wait_turn(run, self.dismiss)

    async def take(self, thread_key: str) -> None:
        """Begin the oldest pending run of a thread, if it is its turn; those that can't begin end here."""
        while not self._is_closed:
            run = await self._store.active_run(thread_key)
            if run is None or run.status != "pending":
                return
            if run.cancel_reason is not None:
                await self.dismiss(run, run.cancel_reason)
            elif await self._begin(run):
                return

    async def dismiss(self, run: Run, reason: CancelReason) -> None:
        """End a run that waits; nothing happens to one that has begun."""
        if reason == "shutdown":
            message = "The server stopped, and what it held in memory is gone."
            await self._refuse(run, SHUTDOWN, message)
            return
        body: Mapping[str, Any] = {"event": "cancelled", "reason": reason, "partial": {}, "usage": None}
        await self._end(
            run, NewEvent("cancelled", orjson.dumps(body)), Ending(status="cancelled", thread_status="idle")
        )

    async def _begin(self, run: Run) -> bool:
        """False: it has ended instead, and the next one may have its turn."""
        found: ThreadStatus | None = None
        try:
            for _ in range(MAX_CHECKS):
                thread = await self._store.get_thread(run.thread_key)
                if thread is None:
                    return True
                found = await self._undo(run, thread)
                try:
                    await self._claim(run, thread, found or thread.rest_status)
                except StaleThread:
                    continue
                return True
        except LeaseLost:  # two ends at once look for the next turn, and the other one has taken it
            logger.info("run %s: has begun already", run.run_id)
            return True
        except StoreUnavailable:
            logger.warning("run %s: can't begin now", run.run_id, exc_info=True)
            return True
        except RunstreamError as error:
            await self._refuse(run, error.code, error.detail, found)
            return False
        except Exception:
            logger.exception("run %s: can't be planned", run.run_id)
            await self._refuse(run, "graph_error", "The graph failed.", found)
            return False
        return True

    async def _undo(self, run: Run, thread: Thread) -> ThreadStatus | None:
        """Undo what the run supersedes, and give what the thread's status was before; None: nothing is to undo."""
        others = [other for key in run.supersedes if (other := await self._store.get_run(key)) is not None]
        if not others:
            return None
        run_ids = [other.run_id for other in others]
        await self._engine.undo(run.owner, run.thread_id, run_ids, version=thread.version)
        return others[0].thread_status

    async def _claim(self, run: Run, thread: Thread, status: ThreadStatus) -> None:
        request = run.request
        if ASKED in request:
            asked = RunRequest.from_json(request[ASKED])
            rested = replace(thread, status=status)
            plan = await self._engine.plan(asked, graph=run.graph, thread_id=run.thread_id, thread=rested)
            request = {**plan, "trace": request.get("trace")}
        turn = Turn(request=request, thread_version=thread.version, thread_status=status)
        start = start_event(run, attempt=run.attempt + 1)
        lease = await self._store.claim(run.key, self._worker, start=start, turn=turn)
        claimed = await self._store.get_run(run.key)
        if lease is not None and claimed is not None:
            self._executor.start(claimed, lease)

    async def _refuse(self, run: Run, code: str, message: str, status: ThreadStatus | None = None) -> None:
        error = RunError(code=code, message=message)
        event = error_event(error, run_id=run.run_id, retryable=code == SHUTDOWN)
        ending = Ending(status="error", thread_status=status or "idle", error=error)
        await self._end(run, event, ending, keeps_status=status is None)

    async def _end(self, run: Run, event: NewEvent, ending: Ending, *, keeps_status: bool = True) -> None:
        events: Sequence[NewEvent] = [start_event(run, attempt=run.attempt + 1), event]
        if await self._store.dismiss(run.key, events, ending, keeps_status=keeps_status):
            self._executor.forget(run.key)
