"""One attempt at one run: the graph, its events, and how it ended."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, assert_never

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.errors import GraphDrained, GraphRecursionError, InvalidUpdateError
from langgraph.runtime import RunControl
from langgraph.types import StateSnapshot

from app.engine.checkpoints import Checkpoints, RunSaver, with_checkpoints
from app.engine.exposure import Exposure
from app.engine.fit import fitted
from app.engine.inputs import graph_config, graph_input
from app.engine.journal import Notes, RunJournal, read_notes, total
from app.engine.jsonable import dumps
from app.engine.node_threads import note_calls, returned
from app.engine.partial import keep_partial
from app.engine.recover import History, plan_again, read_history
from app.engine.registry import Registry
from app.engine.state import Graph, asks, checkpoint_id_of, has_next, output_of, read_pending, read_state, thread_config
from app.engine.tap import Tap
from app.engine.translate import Translator, TranslatorOptions
from app.errors import LimitExceeded, RunstreamError
from app.runs.engine import Cause, Conclusion, Drained, Failed, Finished, Log, Lost, Past, RestartReason, Stopped
from app.runs.event import EventKind, NewEvent
from app.runs.failure import error_fields
from app.runs.model import CancelReason, Ending, EndStatus, Lease, Run, RunError, ThreadStatus
from app.runs.trace import Tracing

logger = logging.getLogger(__name__)

SENTENCES: Final[Mapping[str, str]] = {
    "graph_error": "The graph failed.",
    "model_error": "A model call failed.",
    "timeout": "The run took too long.",
    "idle_timeout": "The run was silent for too long.",
    "recursion_limit": "The graph took more steps than it may.",
    "limit_exceeded": "The run was larger than it may be.",
    "invalid_update": "The graph wrote what its state does not take.",
    "lost": "The run was lost: its process ended three times.",
    "server_shutdown": "The server stopped, and what it held in memory is gone.",
    "graph_unavailable": "The graph can't be served.",
}

# going on with the thread may succeed without any change to it
RETRYABLE: Final = frozenset({"model_error", "timeout", "idle_timeout", "lost", "server_shutdown", "graph_unavailable"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionLimits:
    max_recursion_limit: int
    max_frame_bytes: int
    expose_errors: bool


class GraphExecution:
    """See `app.runs.engine.Execution`."""

    def __init__(
        self,
        run: Run,
        lease: Lease,
        log: Log,
        past: Past,
        *,
        registry: Registry,
        checkpoints: Checkpoints,
        limits: ExecutionLimits,
        tracing: Tracing,
    ) -> None:
        self._run = run
        self._lease = lease
        self._put = log.put
        self._past = past
        self._registry = registry
        self._checkpoints = checkpoints
        self._limits = limits
        self._exposure = Exposure.of(registry.registration(run.graph))
        plan = run.request
        modes, subgraphs = run.stream_modes, bool(plan.get("subgraphs"))
        self._translator = Translator(
            log.put,
            TranslatorOptions(
                thread_id=run.thread_id,
                modes=modes,
                subgraphs=subgraphs,
                gated=plan["durability"] != "exit",
                max_frame_bytes=limits.max_frame_bytes,
                exposure=self._exposure,
                in_state=bool((plan.get("tokens") or {}).get("in_state")),
            ),
        )
        self._tap = Tap(self._translator, log, modes=modes, subgraphs=subgraphs, trace_node=tracing.nodes(run))
        journal = None
        if plan["durability"] != "exit":  # that one saves nothing before the end, so no event waits for it
            journal = RunJournal(self._translator, self._tap.watch, attempt=lease.attempt)
        # who is shown the input's checkpoint may ask for it at once
        defers_input = {"checkpoints", "debug"}.isdisjoint(modes)
        self._saver = checkpoints.saver(run.owner, lease=lease, journal=journal, log=log, defers_input=defers_input)
        self._control = RunControl()
        self._calls: set[Future[Any]] = set()
        self._graph: Graph | None = None
        self._history: History | None = None  # of the attempts before, once it is known
        self._notes: Notes | None = None

    async def work(self) -> None:
        """Run the graph to its end or a pause. Raises what it raised; `Drained` when `drain` stopped it."""
        self._calls = note_calls()
        plan = self._run.request
        config = graph_config(self._run, recursion_limit=self._limits.max_recursion_limit)
        async with self._registry.open(self._run.graph, config) as compiled:
            graph = self._graph = with_checkpoints(compiled, self._saver)
            action: Mapping[str, Any] | None = plan
            if self._past.restart is not None:
                notes = await self._catch_up(self._past.restart)
                action = await plan_again(graph, self._run, has_ended_tasks=bool(notes.events))
            if action is None:
                return
            if checkpoint_id := action.get("checkpoint_id"):
                config["configurable"]["checkpoint_id"] = checkpoint_id
            if "state" in self._run.stream_modes:
                begun = await read_state(graph, thread_config(self._run.thread_id, checkpoint_id))
                self._translator.open_mirror(begun.values)
            parts = graph.astream(
                graph_input(action, self._run.run_id),
                merge_configs(config, self._tap.config(compiled.store)),
                context=plan.get("context"),
                stream_mode=[],
                interrupt_before=plan["interrupt_before"] or None,
                interrupt_after=plan["interrupt_after"] or None,
                durability=plan["durability"],
                control=self._control,
            )
            try:
                # it yields nothing in these modes, so there is no point at which it could be left open
                async for _ in parts:
                    pass
            except GraphDrained as error:
                raise Drained from error

    async def _catch_up(self, goes_on: RestartReason | None) -> Notes:
        """Write what a crash kept from the log and, when the run goes on, what is void."""
        await self._checkpoints.take_over(self._lease)
        history = await read_history(self._past.pages())
        notes = read_notes(await self._checkpoints.node_events(self._run.key, self._run.thread_key))
        # from here on all at once: a cancelled attempt is caught up or not
        self._history, self._notes = history, notes
        for task_id, text in notes.events:
            if task_id not in history.task_ids:
                self._put(NewEvent("node", text))
        history.end(notes.messages)
        self._tap.know(notes.messages)
        if goes_on is not None:
            restart = {"attempt": self._lease.attempt, "discard": history.void(), "reason": goes_on}
            self._put(NewEvent("restart", dumps({"event": "restart", **restart})))
            history.end(history.void())
        return notes

    def drain(self) -> None:
        self._control.request_drain()

    async def settle(self, seconds: float) -> bool:
        return await returned(self._calls, seconds)

    async def conclude(self, cause: Cause) -> Conclusion:
        await self._saver.close()
        if self._past.restart is not None and self._history is None:
            await self._catch_up(None)  # it was not begun again
        match cause:
            case Finished():
                return await self._finished()
            case Failed(error=error):
                return await self._failed(error)
            case Stopped(reason=reason):
                if cause.keep_partial and self._graph is not None:
                    await self._keep_partial(self._graph)
                return await self._stopped(reason)
            case Lost():
                return await self._error("lost", "error")
            case never:
                assert_never(never)

    async def _keep_partial(self, graph: Graph) -> None:
        assert isinstance(graph.checkpointer, RunSaver)
        self._graph = with_checkpoints(graph, graph.checkpointer.successor())  # what is read of the end is read there
        await keep_partial(self._graph, self._run.thread_id, self._partial())

    def _partial(self) -> Mapping[str, str]:
        return {**(self._history.partial() if self._history else {}), **self._translator.partial()}

    async def _stopped(self, reason: CancelReason) -> Conclusion:
        match reason:
            case "user" | "disconnect" | "superseded":
                fields = {"reason": reason, "partial": self._partial()}
                return await self._ended("cancelled", "cancelled", fields)
            case "timeout" | "idle_timeout":
                return await self._error(reason, "timeout")
            case "limit_exceeded":
                return await self._error(reason, "error")
            case "shutdown":
                return await self._error("server_shutdown", "error")
            case never:
                assert_never(never)

    async def _finished(self) -> Conclusion:
        self._translator.finish()
        if (checkpoint_id := await self._completed_at()) is not None:
            return self._conclusion("complete", "success", "idle", {"status": "success"}, checkpoint_id=checkpoint_id)
        graph, snapshot = await self._state()
        checkpoint_id = checkpoint_id_of(snapshot)
        if not snapshot.next:
            fields: dict[str, Any] = {"status": "success"}
            if self._run.request.get("include_output"):
                fields["output"] = self._exposure.state(output_of(graph, snapshot.values))
            return self._conclusion("complete", "success", "idle", fields, checkpoint_id=checkpoint_id)
        pending = await read_pending(graph, snapshot, thread_config(self._run.thread_id))
        fields = {"next": list(snapshot.next), "interrupts": [p.as_json() for p in pending]}
        return self._conclusion("interrupt", "interrupted", "interrupted", fields, checkpoint_id=checkpoint_id)

    async def _completed_at(self) -> str | None:
        """The checkpoint at which the graph has come to its end, where that is known without reading the state.

        What clients are shown of the values is read all the same: they are as they were saved.
        """
        newest, graph = self._saver.newest, self._graph
        shows_values = self._run.request.get("include_output") or "state" in self._run.stream_modes
        if newest is None or graph is None or shows_values or await has_next(graph, newest):
            return None
        return str(newest.checkpoint["id"])

    async def _failed(self, error: BaseException) -> Conclusion:
        logger.error("run %s: failed in node %s", self._run.run_id, self._translator.failed_node, exc_info=error)
        node = self._translator.failed_node
        is_shown = self._limits.expose_errors and (node is None or self._exposure.shows(node))
        exposed = f"{type(error).__name__}: {error}" if is_shown else None
        return await self._error(self._code(error), "error", exposed)

    def _code(self, error: BaseException) -> str:
        if isinstance(error, GraphRecursionError):
            return "recursion_limit"
        if isinstance(error, InvalidUpdateError):
            return "invalid_update"
        if isinstance(error, LimitExceeded):
            return "limit_exceeded"
        if isinstance(error, RunstreamError):
            return error.code
        return "model_error" if self._tap.watch.is_model_error(error) else "graph_error"

    async def _error(self, code: str, status: EndStatus, exposed: str | None = None) -> Conclusion:
        error, node = RunError(code=code, message=exposed or SENTENCES[code]), self._translator.failed_node
        shown = node if node is not None and self._exposure.shows(node) else None
        fields = error_fields(error, run_id=self._run.run_id, retryable=code in RETRYABLE, node=shown)
        return await self._ended("error", status, fields, error)

    async def _ended(
        self, kind: EventKind, status: EndStatus, fields: Mapping[str, Any], error: RunError | None = None
    ) -> Conclusion:
        """An end that is no success: the thread keeps its finished steps, and can be continued."""
        checkpoint_id: str | None = None
        thread_status: ThreadStatus = "error" if error else "idle"
        if self._graph is not None:
            graph, snapshot = await self._state()
            checkpoint_id = checkpoint_id_of(snapshot)
            is_asked = bool(await read_pending(graph, snapshot, thread_config(self._run.thread_id)))
        else:
            newest = await self._saver.aget_tuple(thread_config(self._run.thread_id))
            checkpoint_id = None if newest is None else newest.checkpoint["id"]
            is_asked = newest is not None and asks(newest)
        if is_asked:
            thread_status = "interrupted"
        return self._conclusion(kind, status, thread_status, fields, checkpoint_id=checkpoint_id, error=error)

    async def _state(self) -> tuple[Graph, StateSnapshot]:
        if self._graph is None:
            raise asyncio.InvalidStateError("the graph was never opened")
        config: RunnableConfig = thread_config(self._run.thread_id)
        snapshot = await read_state(self._graph, config)
        self._translator.close_mirror(snapshot.values)
        return self._graph, snapshot

    def _conclusion(
        self,
        kind: EventKind,
        status: EndStatus,
        thread_status: ThreadStatus,
        fields: Mapping[str, Any],
        *,
        checkpoint_id: str | None,
        error: RunError | None = None,
    ) -> Conclusion:
        usage = total([self._notes.usage if self._notes else {}, self._tap.watch.usage_metadata]) or None
        text = dumps({"event": kind, **fields, "usage": usage})
        ending = Ending(
            status=status, thread_status=thread_status, usage=usage, error=error, checkpoint_id=checkpoint_id
        )
        event = fitted(NewEvent(kind, text), max_bytes=self._limits.max_frame_bytes, thread_id=self._run.thread_id)
        return Conclusion(events=[event], ending=ending)
