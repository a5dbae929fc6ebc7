"""What another attempt at a run starts from, after a crash or a deploy (docs/architecture.md, recovery).

The log says which nodes have ended and which messages were begun; the checkpoints say where the graph is. Neither the
input nor an answer may be given twice, no answer to another question than the one it was meant for (facts 17, 19), and
no breakpoint may be passed that nobody has released.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final

import orjson
from langgraph._internal._constants import NULL_TASK_ID
from langgraph.checkpoint.base import CheckpointTuple

from app.engine.breakpoints import is_at_breakpoint
from app.engine.checkpoints import RunSaver
from app.engine.inputs import ANYBODY, RUN_ID_KEY, TAKEN
from app.engine.state import Graph, read_pending, read_state, thread_config
from app.runs.event import Event
from app.runs.model import Run
from app.runs.store import Page

KINDS: Final = frozenset({"token", "tool_call", "tool_call_delta", "node", "discard", "restart"})


class History:
    """What the log of a run tells about its nodes and messages."""

    def __init__(self) -> None:
        self.task_ids: set[str] = set()
        self._texts: dict[str, list[str]] = {}  # of the messages that were begun and are not known to be whole or void

    def read(self, event: Event) -> None:
        if event.kind in KINDS:
            self.add(event.text)

    def add(self, text: bytes) -> None:
        frame = orjson.loads(text)
        match frame["event"]:
            case "token":
                self._texts.setdefault(frame["data"]["id"], []).append(frame["data"].get("content", ""))
            case "tool_call" | "tool_call_delta":
                self._texts.setdefault(frame["data"]["message_id"], [])
            case "node":
                self.task_ids.add(frame["task_id"])
            case "discard" | "restart":
                self.end(frame["discard"])

    def end(self, message_ids: Collection[str]) -> None:
        """These messages are whole, or void."""
        for message_id in message_ids:
            self._texts.pop(message_id, None)

    def void(self) -> Sequence[str]:
        """The messages whose node has not ended: what was streamed of them does not count."""
        return list(self._texts)

    def partial(self) -> Mapping[str, str]:
        """Their texts so far."""
        return {message_id: "".join(texts) for message_id, texts in self._texts.items() if any(texts)}


async def read_history(pages: AsyncIterator[Page]) -> History:
    history = History()
    async for page in pages:
        for event in page.events:
            history.read(event)
    return history


async def plan_again(graph: Graph, run: Run, *, has_ended_tasks: bool) -> Mapping[str, Any] | None:
    """The plan of another attempt: what of the run's own is not done yet; an empty one goes on from the state.

    None: the graph had come to a breakpoint, and waits there. `has_ended_tasks`: earlier attempts have finished some.
    """
    saver, plan = graph.checkpointer, run.request
    assert isinstance(saver, RunSaver)
    if await is_at_breakpoint(graph, run, before=plan["interrupt_before"], after=plan["interrupt_after"]):
        return None
    newest = await saver.aget_tuple(thread_config(run.thread_id))
    if newest is None:
        return plan
    if newest.metadata.get(RUN_ID_KEY) == run.run_id:
        return {}
    place = plan.get("checkpoint_id")
    base = newest if place is None else await saver.aget_tuple(thread_config(run.thread_id, place))
    if base is None or plan.get("input") is not None:
        return plan
    command = None if plan.get("command") is None else await remaining(graph, run, plan["command"], base)
    if place is None or not has_ended_tasks:
        return {**plan, "command": command}
    # at a checkpoint that it is told by its id, LangGraph would run those tasks again
    saver.pin(place)
    return {**plan, "command": command, "checkpoint_id": None}


async def remaining(
    graph: Graph, run: Run, command: Mapping[str, Any], base: CheckpointTuple
) -> Mapping[str, Any] | None:
    """Of a command that began at another run's checkpoint, what that checkpoint has not taken yet; None: nothing."""
    rest = dict(command)
    is_taken = (NULL_TASK_ID, TAKEN, run.run_id) in (base.pending_writes or ())
    if is_taken:
        rest.pop("update", None)
        rest.pop("goto", None)
    if "resume" in rest:
        is_given = is_taken and ANYBODY in rest["resume"]
        rest["resume"] = {} if is_given else await unanswered(graph, run, rest["resume"])
        if not rest["resume"] and run.request.get("checkpoint_id") is None:
            # with a checkpoint's id an empty one stays: without it LangGraph would go back in time, and ask again
            del rest["resume"]
    return rest or None


async def unanswered(graph: Graph, run: Run, answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers to questions that still stand there: LangGraph would give an old one to the next question."""
    if ANYBODY in answers:
        return dict(answers)
    config = thread_config(run.thread_id, run.request.get("checkpoint_id"))
    asked = {pending.id for pending in await read_pending(graph, await read_state(graph, config), config)}
    return {key: value for key, value in answers.items() if key in asked}
