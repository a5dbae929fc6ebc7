"""A request as what LangGraph takes: checked against the state of its thread before any node runs.

The plan is plain JSON, is stored with the run, and is all that an attempt starts from, in this process or another.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import NO_WRITES
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, StateSnapshot

from app.engine.describe import has_messages_key, input_shape
from app.engine.state import Graph, Pending, edited_questions, read_pending, read_state, thread_config
from app.errors import (
    AmbiguousResume,
    CheckpointNotFound,
    Invalid,
    NothingToContinue,
    NothingToResume,
    ThreadInterrupted,
    ThreadNotFound,
    UnknownInterrupt,
)
from app.runs.model import Run, Thread
from app.runs.request import Continue, LongForm, Message, NewInput, Resume, RunRequest

INTERRUPT_ID: Final = re.compile(r"[0-9a-f]{32}")

# the key of an answer to whoever asks next
ANYBODY: Final = ""

# what a checkpoint's writes say of the run whose command they hold; LangGraph ignores the channel
TAKEN: Final = NO_WRITES

# the run's id in the metadata of each of its checkpoints, by which a later attempt knows its own (fact 17)
RUN_ID_KEY: Final = "runstream_run_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What a request is checked against."""

    graph: Graph
    thread_id: str
    thread: Thread | None  # None: there is none yet
    checkpoint_id: str | None
    snapshot: StateSnapshot | None  # None: nothing was ever run on it
    pending: Sequence[Pending]

    @property
    def is_open(self) -> bool:
        """Paused, failed or cancelled: there are nodes that wait to run."""
        return self.snapshot is not None and bool(self.snapshot.next)

    @property
    def is_paused(self) -> bool:
        return self.is_open and self.thread is not None and self.thread.status == "interrupted"

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [pending.as_json() for pending in self.pending]


async def read_situation(
    graph: Graph, *, thread_id: str, thread: Thread | None, checkpoint_id: str | None
) -> Situation:
    """Raises CheckpointNotFound for a checkpoint that the thread does not have."""
    snapshot, pending = None, list[Pending]()
    if thread is not None:
        config = thread_config(thread_id, checkpoint_id)
        snapshot = await read_state(graph, config)
        if snapshot.created_at is None:
            snapshot = None
        else:
            pending = await read_pending(graph, snapshot, config)
    if checkpoint_id is not None and snapshot is None:
        raise CheckpointNotFound(checkpoint_id)
    return Situation(
        graph=graph,
        thread_id=thread_id,
        thread=thread,
        checkpoint_id=checkpoint_id,
        snapshot=snapshot,
        pending=pending,
    )


async def plan_action(request: RunRequest, now: Situation) -> dict[str, Any]:
    """The plan's `input` and `command`; both None: go on from the checkpoint."""
    match request.action:
        case NewInput(value=value):
            check_input(value, now.graph)
            refuse_paused(request, now)
            return {"input": value}
        case Continue():
            return plan_continue(now)
        case Message(text=text):
            return await plan_message(text, now)
        case Resume(value=value):
            return {"command": await plan_resume(value, now)}
        case LongForm() as command:
            return {"command": await plan_command(command, now)}
        case never:
            assert_never(never)


def check_input(value: Any, graph: Graph) -> None:
    """Raise Invalid unless the input is an object, where the graph takes nothing else: it would fail as a run."""
    has_keys = isinstance(graph, CompiledStateGraph) and "__root__" not in graph.channels
    if has_keys and not isinstance(value, Mapping):
        raise Invalid("This graph's input is an object.", loc=("body", "input"))
    if isinstance(value, Mapping) and takes_messages(graph) and "messages" in value:
        check_messages(value["messages"])


def takes_messages(graph: Graph) -> bool:
    """Whether the state's `messages` are messages, and not just a key of that name."""
    reducer = getattr(graph.channels.get("messages"), "operator", None)
    return getattr(reducer, "__name__", "") in ("_add_messages", "add_messages")


def check_messages(value: Any) -> None:
    """Raise Invalid for what LangGraph's reducer does not take as a message, or as several."""
    try:
        convert_to_messages(value if isinstance(value, list) else [value])
    except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError) as error:
        raise Invalid("These are no messages.", loc=("body", "input", "messages")) from error


def refuse_paused(request: RunRequest, now: Situation) -> None:
    if now.is_paused and request.on_interrupted == "reject" and now.checkpoint_id is None:
        raise ThreadInterrupted(now.questions)


def plan_continue(now: Situation) -> dict[str, Any]:
    if not now.is_open:
        raise NothingToContinue
    if now.pending and now.checkpoint_id is None:
        raise ThreadInterrupted(now.questions)
    return {}


async def plan_message(text: str, now: Situation) -> dict[str, Any]:
    if not now.is_paused:
        return {"input": chat_input(text, now)}
    answer = await plan_resume(text, now)
    if answer is not None:
        return {"command": answer}
    if text and has_messages_key(now.graph):
        return {"command": {"update": {"messages": [{"role": "user", "content": text}]}}}
    return {}


def chat_input(text: str, now: Situation) -> dict[str, Any]:
    match input_shape(now.graph):
        case "messages":
            return {"messages": [{"role": "user", "content": text}]}
        case None:
            raise Invalid("This graph takes no message: send its input.", loc=("body", "message"))
        case field:
            return {field: text}


async def plan_resume(value: Any, now: Situation) -> dict[str, Any] | None:
    """The answers by the ids that are pending now, since LangGraph loses or misplaces any other form (facts 4, 19)."""
    if now.thread is None:
        raise ThreadNotFound(now.thread_id)
    if not now.is_open or now.snapshot is None:
        raise NothingToResume
    if now.pending:
        return {"resume": answers(value, now)}
    asked = await edited_questions(now.graph, now.snapshot)
    if asked:
        return {"resume": answers_after_edit(value, asked)}
    if is_map(value):
        raise UnknownInterrupt(sorted(value), [])
    return None


def answers_after_edit(value: Any, asked: Sequence[tuple[Pending, str]]) -> dict[str, Any]:
    """Answers to questions that will be asked again, given by the ids they had: clients know no others."""
    questions = [pending.as_json() for pending, _ in asked]
    new_ids = {pending.id: new_id for pending, new_id in asked}
    if not is_map(value):
        if len(asked) > 1:
            raise AmbiguousResume(questions)
        value = {asked[0][0].id: value}
    unknown = sorted(value.keys() - new_ids)
    if unknown:
        raise UnknownInterrupt(unknown, questions)
    answered = {new_ids[old_id]: answer for old_id, answer in value.items()}
    if len(asked) == 1 and (answer := next(iter(answered.values()))) not in (None, {}):
        # a subgraph's question has another id than its node; LangGraph's own bare form finds it, with these exceptions
        return {ANYBODY: answer}
    return answered


def answers(value: Any, now: Situation) -> dict[str, Any]:
    if is_map(value):
        known = {pending.id for pending in now.pending}
        unknown = sorted(value.keys() - known)
        if unknown:
            raise UnknownInterrupt(unknown, now.questions)
        return dict(value)
    if len(now.pending) > 1:
        raise AmbiguousResume(now.questions)
    asked = now.pending[0]
    if not asked.is_kept and value not in (None, {}):
        # the subgraph that asks has no checkpoints: it asks under another id each time it runs
        return {ANYBODY: value}
    return {asked.id: value}


def is_map(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(INTERRUPT_ID.fullmatch(key) for key in value)


async def plan_command(command: LongForm, now: Situation) -> dict[str, Any] | None:
    plan: dict[str, Any] = {}
    if command.has_resume:
        plan.update(await plan_resume(command.resume, now) or {})
    elif now.pending and now.checkpoint_id is None and command.goto is None:
        raise ThreadInterrupted(now.questions)
    if command.update is not None:
        plan["update"] = command.update
    if command.goto is not None:
        plan["goto"] = command.goto
        check_nodes(now.graph, [node for node, _ in jumps(command.goto)], ("body", "command", "goto"))
    return plan or None


def jumps(goto: Any) -> list[tuple[str, Any]]:
    """The nodes of a `goto`: names, or `{node, input}` as LangGraph's SDKs write a Send."""
    entries = goto if isinstance(goto, list) else [goto]
    found: list[tuple[str, Any]] = []
    for entry in entries:
        if isinstance(entry, str):
            found.append((entry, None))
        elif isinstance(entry, Mapping) and isinstance(entry.get("node"), str):
            found.append((entry["node"], entry.get("input", entry.get("arg"))))
        else:
            raise Invalid("A goto is a node's name, {node, input}, or a list of them.", loc=("body", "command", "goto"))
    return found


def check_nodes(graph: Graph, names: Sequence[str], loc: Sequence[str]) -> None:
    known = [name for name in graph.nodes if name != "__start__"]
    unknown = [name for name in names if name not in known and name != "__end__"]
    if unknown:
        raise Invalid(f"No node is named {unknown[0]!r}; there are: {', '.join(known)}.", loc=loc)


def graph_input(plan: Mapping[str, Any], run_id: str) -> Any:
    """What `astream` takes, of a plan."""
    command = plan.get("command")
    if command is None:
        return plan.get("input")
    goto = [node if arg is None else Send(node, arg) for node, arg in jumps(command.get("goto", []))]
    resume = command.get("resume")
    if resume and ANYBODY in resume:
        resume = resume[ANYBODY]
    # saved in one with what it stands beside: by it a later attempt knows that it need not be given again. Besides,
    # LangGraph looks at answers by id only where something is pending; after an edit of the state this is
    update = [*Command(update=command.get("update"))._update_as_tuples(), (TAKEN, run_id)]
    return Command(resume=resume, update=update, goto=goto)


def graph_config(run: Run, *, recursion_limit: int) -> RunnableConfig:
    """The RunnableConfig of a run: the client's, and what this server knows."""
    plan = run.request
    asked = plan["config"]
    config: RunnableConfig = {
        "tags": list(asked.get("tags", ())),
        "metadata": {**asked.get("metadata", {}), RUN_ID_KEY: run.run_id},
        "recursion_limit": min(asked.get("recursion_limit") or recursion_limit, recursion_limit),
        "configurable": {**asked.get("configurable", {}), "thread_id": run.thread_id},
    }
    return config
