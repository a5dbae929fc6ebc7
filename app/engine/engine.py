"""The engine as the core sees it: graphs by name, plans, executions and outcomes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from langgraph.pregel.main import _coerce_context
from pydantic import ValidationError

from app.engine.checkpoints import Checkpoints, with_checkpoints
from app.engine.describe import describe
from app.engine.execution import ExecutionLimits, GraphExecution
from app.engine.exposure import Exposure
from app.engine.inputs import check_input, check_nodes, plan_action, read_situation
from app.engine.jsonable import jsonable
from app.engine.node_tokens import node_tokens
from app.engine.registry import Registry
from app.engine.state import Graph, output_of, read_pending, read_state, thread_config
from app.engine.unsaved import mend_loops
from app.errors import GraphMismatch, GraphNotFound, Invalid
from app.runs.engine import Execution, Log, Outcome, Past
from app.runs.model import Lease, Run, Thread, scoped
from app.runs.request import NewInput, NodeNames, RunRequest
from app.runs.trace import Tracing, Untraced


class GraphEngine:
    """See `app.runs.engine.Engine`."""

    def __init__(
        self, registry: Registry, checkpoints: Checkpoints, limits: ExecutionLimits, tracing: Tracing | None = None
    ) -> None:
        mend_loops()
        self._registry = registry
        self._checkpoints = checkpoints
        self._limits = limits
        self._tracing = tracing or Untraced()
        self._problems: Mapping[str, str] = registry.problems

    def graph_name(self, asked: str | None, thread: Thread | None) -> str:
        bound = None if thread is None else thread.graph
        name = asked or bound or self._registry.default
        if name is None:
            raise GraphNotFound("", self._registry.names)
        self._registry.registration(name)
        if thread is not None and bound is not None and name != bound:
            raise GraphMismatch(thread.thread_id, bound)
        return name

    @asynccontextmanager
    async def graph_of(self, owner: str, name: str) -> AsyncIterator[Graph]:
        """A graph with its checkpoints, to read and edit states with. Raises GraphNotFound, GraphUnavailable."""
        async with self._registry.open(name) as compiled:
            yield with_checkpoints(compiled, self._checkpoints.saver(owner))

    async def plan(
        self, request: RunRequest, *, graph: str, thread_id: str, thread: Thread | None
    ) -> Mapping[str, Any]:
        async with self._registry.open(graph) as compiled:
            if thread is not None:  # a new one has nothing saved
                compiled = with_checkpoints(compiled, self._checkpoints.saver(request.owner))
            now = await read_situation(
                compiled, thread_id=thread_id, thread=thread, checkpoint_id=request.checkpoint_id
            )
            action = await plan_action(request, now)
            before, after = self._pauses(request, graph, compiled)
            check_context(compiled, request.context)
            shown = view(request, compiled)
        return {
            **action,
            **shown,
            "checkpoint_id": request.checkpoint_id,
            "interrupt_before": before,
            "interrupt_after": after,
            "config": request.config,
            "context": request.context,
            "durability": request.durability,
            "timeout_seconds": request.timeout_seconds,
            "include_output": request.include_output,
        }

    async def check_ahead(self, request: RunRequest, *, graph: str) -> Mapping[str, Any]:
        async with self._registry.open(graph) as compiled:
            if isinstance(request.action, NewInput):
                check_input(request.action.value, compiled)
            self._pauses(request, graph, compiled)
            check_context(compiled, request.context)
            return view(request, compiled)

    async def undo(self, owner: str, thread_id: str, run_ids: Sequence[str], *, version: int) -> None:
        run_keys = [scoped(owner, run_id) for run_id in run_ids]
        await self._checkpoints.undo(scoped(owner, thread_id), run_keys, version=version)

    def _pauses(
        self, request: RunRequest, name: str, graph: Graph
    ) -> tuple[Sequence[str] | Literal["*"], Sequence[str] | Literal["*"]]:
        """Where to pause: what the request names, and with `use_hitl` what the registration does, else everywhere."""
        before, after = request.interrupt_before, request.interrupt_after
        for names, field in ((before, "interrupt_before"), (after, "interrupt_after")):
            if names != "*":
                check_nodes(graph, list(names), ("body", field))
        if not request.use_hitl:
            return joined(before), joined(after)
        registration = self._registry.registration(name)
        if not registration.has_hitl:
            return joined(before), "*"
        return joined(before, registration.interrupt_before), joined(after, registration.interrupt_after)

    def exposure(self, name: str) -> Exposure:
        return Exposure.of(self._registry.registration(name))

    @property
    def names(self) -> Sequence[str]:
        return self._registry.names

    @property
    def problems(self) -> Mapping[str, str]:
        return self._problems

    async def check(self) -> None:
        """Open each graph once, so that `problems` names the factories that make none, too."""
        self._problems = await self._registry.check()

    async def describe(self, name: str) -> Mapping[str, Any]:
        async with self._registry.open(name) as compiled:
            return describe(compiled, self._registry.registration(name))

    def execution(self, run: Run, lease: Lease, log: Log, past: Past) -> Execution:
        return GraphExecution(
            run,
            lease,
            log,
            past,
            registry=self._registry,
            checkpoints=self._checkpoints,
            limits=self._limits,
            tracing=self._tracing,
        )

    async def outcome(self, run: Run) -> Outcome:
        if run.checkpoint_id is None:
            return Outcome(output=None, interrupts=[], next=[])
        async with self.graph_of(run.owner, run.graph) as graph:
            config = thread_config(run.thread_id, run.checkpoint_id)
            snapshot = await read_state(graph, config)
            pending = await read_pending(graph, snapshot, config)
            return Outcome(
                output=jsonable(self.exposure(run.graph).state(output_of(graph, snapshot.values))),
                interrupts=[p.as_json() for p in pending],
                next=list(snapshot.next),
            )


def view(request: RunRequest, graph: Graph) -> Mapping[str, Any]:
    """What decides on what a run's readers are shown, unless they ask for something else."""
    return {
        "subgraphs": request.subgraphs,
        "tokens": request.tokens,
        "node_tokens": node_tokens(graph, subgraphs=request.subgraphs),
    }


def joined(*names: NodeNames) -> Sequence[str] | Literal["*"]:
    if any(part == "*" for part in names):
        return "*"
    return sorted({name for part in names for name in part})


def check_context(graph: Graph, context: Mapping[str, Any] | None) -> None:
    """Raise Invalid for a context that the graph's schema does not take."""
    try:
        _coerce_context(graph.context_schema, context)
    except (TypeError, ValidationError, ValueError) as error:
        raise Invalid("The graph's context schema does not take this context.", loc=("body", "context")) from error
