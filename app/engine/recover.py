"""What another attempt at a run starts from, after a crash or a deploy (docs/architecture.md, recovery).

The log says which nodes have ended and which messages were begun; the checkpoints say where the graph is. Neither the
input nor an answer may be given twice, and no answer to another question than the one it was meant for (facts 17, 19).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import _interrupt_id

from app.engine.inputs import RUN_ID_KEY
from app.engine.state import Graph, Pending, read_pending, thread_config
from app.runs.event import Event
from app.runs.model import Run
from app.runs.store import Page

NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
RESUME = "__resume__"


class History:
    """What the log of a run tells about its nodes and messages."""

    def __init__(self) -> None:
        self.task_ids: set[str] = set()
        self._open: dict[str, tuple[Any, str]] = {}  # message id: the node that speaks it

    def read(self, event: Event) -> None:
        if event.kind in ("token", "tool_call_delta", "node", "discard", "restart"):
            self.add(event.text)

    def add(self, text: bytes) -> None:
        frame = orjson.loads(text)
        match frame["event"]:
            case "token":
                self._open[frame["data"]["id"]] = self._node(frame)
            case "tool_call_delta":
                self._open[frame["data"]["message_id"]] = self._node(frame)
            case "node":
                self.task_ids.add(frame["task_id"])
                self._close(frame)
            case "discard" | "restart":
                for message_id in frame["discard"]:
                    self._open.pop(message_id, None)

    def void(self) -> Sequence[str]:
        """The messages whose node has not ended: what was streamed of them does not count."""
        return list(self._open)

    def _close(self, frame: Mapping[str, Any]) -> None:
        """A node ended, so its messages are whole: the ones it returned, or all of them where it returned none."""
        mine = [message_id for message_id, node in self._open.items() if node == self._node(frame)]
        data = frame["data"]
        messages = data.get("messages") if isinstance(data, dict) else None
        returned = {m.get("id") for m in messages if isinstance(m, dict)} if isinstance(messages, list) else set()
        for message_id in [i for i in mine if i in returned] or mine:
            del self._open[message_id]

    @staticmethod
    def _node(frame: Mapping[str, Any]) -> tuple[Any, str]:
        return tuple(frame.get("ns") or ()), frame["node"]


async def read_history(pages: AsyncIterator[Page]) -> History:
    history = History()
    async for page in pages:
        for event in page.events:
            history.read(event)
    return history


async def plan_again(graph: Graph, run: Run) -> Mapping[str, Any]:
    """The plan of another attempt: what of the run's own is not done yet; an empty one goes on from the state."""
    config = thread_config(run.thread_id)
    newest = await graph.checkpointer.aget_tuple(config)  # type: ignore[union-attr]
    if newest is not None and newest.metadata.get(RUN_ID_KEY) == run.run_id:
        return {}
    plan = dict(run.request)
    command = plan.get("command")
    if command is None or newest is None:
        return plan
    plan["command"] = await remaining(graph, run, command, newest) or None
    return plan


async def remaining(graph: Graph, run: Run, command: Mapping[str, Any], newest: CheckpointTuple) -> dict[str, Any]:
    """Of a command that began on another run's checkpoint, what that checkpoint has not taken yet."""
    rest = dict(command)
    taken = [channel for task_id, channel, _ in newest.pending_writes or () if task_id == NULL_TASK_ID]
    if any(channel != RESUME for channel in taken):
        rest.pop("update", None)
        rest.pop("goto", None)
    if rest.get("resume"):
        config = thread_config(run.thread_id)
        pending = await read_pending(graph, await graph.aget_state(config), config)
        asked = {p.id for p in pending if not await is_answered(graph, run, p)}
        rest["resume"] = {key: value for key, value in rest["resume"].items() if key in asked}
        if not rest["resume"]:
            del rest["resume"]
    return rest


async def is_answered(graph: Graph, run: Run, pending: Pending) -> bool:
    """Whether the task has its answer already, although its question still stands in the checkpoint."""
    config = thread_config(run.thread_id, checkpoint_ns="|".join(pending.ns))
    found = await graph.checkpointer.aget_tuple(config)  # type: ignore[union-attr]
    for task_id, channel, value in (found.pending_writes or ()) if found else ():
        ns = "|".join((*pending.ns, f"{pending.node}:{task_id}"))
        answers = value if channel == RESUME and isinstance(value, list) else ()
        if any(_interrupt_id(ns, number) == pending.id for number in range(len(answers))):
            return True
    return False
