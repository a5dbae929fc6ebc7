"""The state of a thread: what it waits for, and its form in LangGraph's own JSON."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import RESUME
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.errors import InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.pregel._algo import prepare_next_tasks
from langgraph.pregel._checkpoint import achannels_from_checkpoint
from langgraph.pregel._task_status import read_task_statuses
from langgraph.types import Interrupt, PregelTask, StateSnapshot, _interrupt_id

from app.engine.exposure import EVERYTHING, Exposure
from app.engine.jsonable import jsonable
from app.engine.translate import FAILED_TASK

Graph = Pregel[Any, Any, Any, Any]

# what reducers, edges and LangGraph itself raise about values that they do not take; the rest is a bug, not a request
REFUSALS: Final = (
    InvalidUpdateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


MAX_ANSWERS: Final = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """An interrupt that waits for an answer; `ns` is the subgraph it is in, () for the graph itself."""

    id: str
    value: Any
    node: str
    ns: tuple[str, ...]
    response_schema: Any
    is_kept: bool = True  # False: its graph has no checkpoints, so it will ask under another id

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "value": jsonable(self.value),
            "node": self.node,
            "ns": list(self.ns),
            "response_schema": jsonable(self.response_schema),
        }


def thread_config(thread_id: str, checkpoint_id: str | None = None, checkpoint_ns: str = "") -> RunnableConfig:
    configurable: dict[str, Any] = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint_id_of(snapshot: StateSnapshot) -> str | None:
    value = snapshot.config.get("configurable", {}).get("checkpoint_id")
    return None if value is None else str(value)


def readable(graph: Graph) -> Graph:
    """The graph for reading states: LangGraph would make the next nodes' input, and validate it, for ever in vain."""
    nodes = {name: node.copy({"mapper": None}) for name, node in graph.nodes.items()}
    copied = copy.copy(graph)
    copied.nodes = nodes
    return copied


async def read_state(graph: Graph, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
    """The state that a config names.

    LangGraph applies what the nodes of an unfinished step have written. Where that is just what the state does not take
    (the run failed on it) it raises, for ever; the state is then given as it was before that step.
    """
    graph = readable(graph)
    try:
        return await graph.aget_state(config, subgraphs=subgraphs)
    except REFUSALS:
        assert isinstance(graph.checkpointer, BaseCheckpointSaver)
        newest = await graph.checkpointer.aget_tuple(config)
        if newest is None or config["configurable"].get("checkpoint_id"):
            raise
        return await graph.aget_state(newest.config, subgraphs=subgraphs)


async def has_next(graph: Graph, saved: CheckpointTuple) -> bool:
    """Whether a step follows a checkpoint to which nothing has been written: `bool(state.next)`, without the state."""
    assert isinstance(graph.checkpointer, BaseCheckpointSaver)
    channels, managed = await achannels_from_checkpoint(
        graph.channels, saved.checkpoint, saver=graph.checkpointer, config=saved.config
    )
    step = saved.metadata.get("step", -1) + 1
    return bool(
        prepare_next_tasks(
            saved.checkpoint, [], graph.nodes, channels, managed, saved.config, step, step + 2, for_execution=False
        )
    )


async def read_pending(graph: Graph, snapshot: StateSnapshot, config: RunnableConfig) -> list[Pending]:
    """All interrupts of a thread that wait for an answer, in subgraphs too, each once, innermost node first.

    LangGraph goes on listing the one of a node that failed or was stopped after its answer, and runs the node with that
    answer again; it is no question any more.
    """
    if not snapshot.interrupts:
        return []
    if any(task.interrupts and task.state for task in snapshot.tasks):
        snapshot = await read_state(graph, config, subgraphs=True)
    found: dict[str, Pending] = {}
    for pending in walk(snapshot.tasks, ()):
        found.setdefault(pending.id, pending)
    answered = await read_answered(graph, snapshot, ())
    return [pending for pending in found.values() if pending.id not in answered]


def asks(saved: CheckpointTuple) -> bool:
    """Whether a question stands in a checkpoint, as far as can be seen without its graph."""
    statuses = read_task_statuses(saved.pending_writes or ())
    return any(status.pending_interrupts for status in statuses.values())


async def read_answered(graph: Graph, snapshot: StateSnapshot, ns: tuple[str, ...]) -> set[str]:
    """The ids of interrupts that have their answer, stored with the task that is to run again."""
    assert isinstance(graph.checkpointer, BaseCheckpointSaver)
    saved = await graph.checkpointer.aget_tuple(snapshot.config)
    writes = (saved.pending_writes or ()) if saved else ()
    answers = {task_id: value for task_id, channel, value in writes if channel == RESUME and isinstance(value, list)}
    ids: set[str] = set()
    for task in snapshot.tasks:
        place = (*ns, f"{task.name}:{task.id}")
        ids.update(_interrupt_id("|".join(place), number) for number in range(len(answers.get(task.id, ()))))
        if isinstance(task.state, StateSnapshot):
            ids |= await read_answered(graph, task.state, place)
    return ids


def walk(tasks: Sequence[PregelTask], ns: tuple[str, ...]) -> Iterator[Pending]:
    for task in tasks:
        if isinstance(task.state, StateSnapshot):
            yield from walk(task.state.tasks, (*ns, f"{task.name}:{task.id}"))
        for interrupt in task.interrupts:
            yield Pending(
                id=interrupt.id,
                value=interrupt.value,
                node=task.name,
                ns=ns,
                response_schema=interrupt.response_schema,
                is_kept=is_from(interrupt, task, ns),
            )


def is_from(interrupt: Interrupt[Any], task: PregelTask, ns: tuple[str, ...]) -> bool:
    """Whether an interrupt's id is derived from this task, after so many answers, as LangGraph does it."""
    own = f"{task.name}:{task.id}"
    # a subgraph that keeps its state from run to run has no task id in its place
    places = ("|".join((*ns, own)), "|".join((*(place.rpartition(":")[0] for place in ns), own)))
    return any(_interrupt_id(place, count) == interrupt.id for place in places for count in range(MAX_ANSWERS))


async def edited_questions(graph: Graph, snapshot: StateSnapshot) -> list[tuple[Pending, str]]:
    """What a paused thread's tasks asked before an edit of its state, each with the id it will have asked again.

    An edit makes a new checkpoint, in which nothing is pending yet: the nodes ask again when they run (fact 3). The ids
    of the graph's own nodes are known beforehand, since LangGraph derives them from the task; a subgraph's are not.
    Empty when the thread was not at an interrupt.
    """
    before = snapshot
    while (before.metadata or {}).get("source") == "update" and before.parent_config:
        before = await readable(graph).aget_state(before.parent_config)
        if before.interrupts:
            tasks = {task.path: task for task in snapshot.tasks}
            again = [(task, tasks[task.path]) for task in before.tasks if task.path in tasks]
            return [
                (pending, Interrupt.from_ns(None, f"{new.name}:{new.id}").id)
                for old, new in again
                for pending in walk([old], ())
            ]
    return []


def output_of(graph: Graph, values: Any) -> Any:
    """The graph's output, of a state's values."""
    channels = graph.output_channels
    if isinstance(channels, str):
        return values.get(channels) if isinstance(values, Mapping) and channels in values else values
    if isinstance(values, Mapping):
        return {key: values[key] for key in channels if key in values}
    return values


def snapshot_json(snapshot: StateSnapshot, exposure: Exposure = EVERYTHING) -> dict[str, Any]:
    """A state as LangGraph's API gives it; the text of exceptions is left out, since it may hold anything."""
    config = snapshot.config.get("configurable", {})
    ns = places_of(config.get("checkpoint_ns", ""))
    parent = (snapshot.parent_config or {}).get("configurable")
    return {
        "values": jsonable(exposure.state(snapshot.values)) if snapshot.created_at or snapshot.values else {},
        "next": list(snapshot.next),
        "tasks": exposure.tasks([task_json(task, exposure) for task in snapshot.tasks], ns),
        "metadata": public_metadata(snapshot.metadata),
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint_json(config),
        "parent_checkpoint": checkpoint_json(parent) if parent else None,
        "checkpoint_id": config.get("checkpoint_id"),
        "parent_checkpoint_id": parent.get("checkpoint_id") if parent else None,
        "interrupts": [interrupt_json(interrupt) for interrupt in snapshot.interrupts],
    }


def places_of(checkpoint_ns: str) -> tuple[str, ...]:
    """The `node:task_id` of each graph round a subgraph, the outermost first.

    >>> places_of("child:1f|inner:2e")
    ('child:1f', 'inner:2e')
    """
    return tuple(checkpoint_ns.split("|")) if checkpoint_ns else ()


def public_metadata(metadata: Any) -> dict[str, Any]:
    return {k: v for k, v in (jsonable(metadata) or {}).items() if not k.startswith("runstream_")}


def checkpoint_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "thread_id": config.get("thread_id"),
        "checkpoint_ns": config.get("checkpoint_ns", ""),
        "checkpoint_id": config.get("checkpoint_id"),
        "checkpoint_map": jsonable(config.get("checkpoint_map")),
    }


def interrupt_json(interrupt: Interrupt[Any]) -> dict[str, Any]:
    body = {"id": interrupt.id, "value": jsonable(interrupt.value)}
    if interrupt.response_schema is not None:
        body["response_schema"] = jsonable(interrupt.response_schema)
    return body


def task_json(task: PregelTask, exposure: Exposure) -> dict[str, Any]:
    state = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": jsonable(task.path),
        "error": FAILED_TASK if task.error else None,
        "interrupts": [interrupt_json(interrupt) for interrupt in task.interrupts],
        "checkpoint": checkpoint_json(state["configurable"]) if isinstance(state, dict) else None,
        "state": snapshot_json(state, exposure) if isinstance(state, StateSnapshot) else None,
        "result": jsonable(task.result),
    }
