"""Whether a run that was cut off had already come to a breakpoint.

LangGraph takes any call without new input as the human's word to go on, also the one that only takes up what a crash
interrupted. So what it would have decided in the attempt before is decided again here, from what is saved.
"""

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.pregel._algo import should_interrupt
from langgraph.types import All, StateSnapshot

from app.engine.inputs import RUN_ID_KEY
from app.engine.state import Graph, read_state, thread_config
from app.runs.model import Run

Names = Sequence[str] | Literal["*"]


async def is_at_breakpoint(graph: Graph, run: Run, *, before: Names, after: Names) -> bool:
    """Whether a human has yet to let the run go on, in the graph itself (by these names) or in a subgraph."""
    snapshot = await read_state(graph, thread_config(run.thread_id), subgraphs=True)
    if snapshot.created_at is None:
        return False
    assert isinstance(graph.checkpointer, BaseCheckpointSaver)
    return await Search(graph.checkpointer, run).find(
        graph, snapshot, before or graph.interrupt_before_nodes, after or graph.interrupt_after_nodes
    )


class Search:
    """Only a run's own checkpoints count: where another run has paused, this one was told to go on."""

    def __init__(self, saver: BaseCheckpointSaver[Any], run: Run) -> None:
        self._saver = saver
        self._run = run

    async def find(self, graph: Graph, snapshot: StateSnapshot, before: Names, after: Names) -> bool:
        if await self._is_here(graph, snapshot, before, after):
            return True
        below = [task for task in snapshot.tasks if isinstance(task.state, StateSnapshot)]
        children = {name: child async for name, child in graph.aget_subgraphs()} if below else {}
        for task in below:
            child = children.get(task.name)
            if not isinstance(child, Pregel) or not isinstance(task.state, StateSnapshot):
                continue
            if await self.find(child, task.state, child.interrupt_before_nodes, child.interrupt_after_nodes):
                return True
        return False

    async def _is_here(self, graph: Graph, snapshot: StateSnapshot, before: Names, after: Names) -> bool:
        if not (before or after) or not snapshot.next:
            return False
        saved = await self._saver.aget_tuple(snapshot.config)
        if saved is None or saved.metadata.get(RUN_ID_KEY) != self._run.run_id:
            return False
        if stops(graph, saved, before, snapshot.next):
            return True
        return bool(after) and stops(graph, saved, after, await self._ended(graph, saved))

    async def _ended(self, graph: Graph, saved: CheckpointTuple) -> Collection[str]:
        """The nodes of the step that a checkpoint was saved after."""
        parent = None
        if saved.metadata.get("source") == "loop" and saved.parent_config is not None:
            parent = await self._saver.aget_tuple(saved.parent_config)
        if parent is None:
            return ()
        planned = (await read_state(graph, parent.config)).next
        # a command may have sent the step elsewhere than was planned
        seen, seen_before = saved.checkpoint["versions_seen"], parent.checkpoint["versions_seen"]
        return {*planned, *(name for name in graph.nodes if seen.get(name) != seen_before.get(name))}


def stops(graph: Graph, saved: CheckpointTuple, names: Names, nodes: Collection[str]) -> bool:
    """Whether LangGraph stops at a checkpoint, before or after a step of these nodes."""
    tasks: list[Any] = [
        SimpleNamespace(name=name, config={"tags": graph.nodes[name].tags or ()})
        for name in nodes
        if name in graph.nodes
    ]
    wanted: All | Sequence[str] = "*" if names == "*" else list(names)
    return bool(should_interrupt(saved.checkpoint, wanted, tasks))
