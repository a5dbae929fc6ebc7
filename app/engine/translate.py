"""What LangGraph tells, as events of the log: one stateful translator an attempt.

It decides once, on the writing side, where a message begins and ends and which node's event may be written, so that
every reader gets the same text. All methods are for the event loop's own thread.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage

from app.engine.exposure import EVERYTHING, Exposure
from app.engine.fit import fitted
from app.engine.jsonable import dumps
from app.engine.message import OpenMessage, give_ids, newest_message
from app.engine.mirror import StateMirror
from app.engine.progress import ProgressMeter
from app.runs.event import EventKind, NewEvent

Namespace = tuple[str, ...]

INTERRUPT: Final = "__interrupt__"
FAILED_TASK: Final = "The task failed."
CANCELLED: Final = (asyncio.CancelledError, concurrent.futures.CancelledError)


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslatorOptions:
    """What a run records, and how. Sizes in bytes."""

    thread_id: str
    modes: Collection[str]
    subgraphs: bool
    gated: bool  # hold a node's event until its writes are durable; durability `exit` has nothing to wait for
    max_frame_bytes: int
    in_state: bool = False  # the mirror of the state also shows what is being said
    exposure: Exposure = EVERYTHING


@dataclass(slots=True)
class _Task:
    """A task of the graph in this attempt, and what it has said."""

    ns: Namespace
    node: str
    starts: int = 0
    has_result: bool = False
    messages: dict[str, OpenMessage] = field(default_factory=dict)  # those of a task that has not ended
    spoken: list[str] = field(default_factory=list)  # the ids of those of one that has
    results: list[str] = field(default_factory=list)  # the ids of results of tools


class Translator:
    """Parts of a LangGraph stream in, events out, in order."""

    def __init__(self, put: Callable[[NewEvent], None], options: TranslatorOptions) -> None:
        self._put = put
        self._options = options
        self._modes = frozenset(options.modes)
        self._tasks: dict[str, _Task] = {}
        self._newest: dict[tuple[Namespace, str], str] = {}  # the task that a node runs as, by its place
        self._updates: dict[Namespace, list[tuple[str, Any]]] = {}
        self._cached: list[tuple[Namespace, str, Any]] = []
        self._held: dict[str, list[NewEvent]] = {}
        self._durable: set[str] = set()
        self._speakers: set[str] = set()  # the tasks that have spoken and ended, and are not saved
        self._meters: dict[str, ProgressMeter] = {}
        self.failed_node: str | None = None
        self._failed_below = False
        self._mirror: StateMirror | None = None
        if "state" in self._modes:
            self._mirror = StateMirror(
                lambda data: self._emit("state", (), {"data": data}), in_state=options.in_state, later=call_later
            )

    @property
    def hears_messages(self) -> bool:
        """Whether models are to stream: for token frames, or for the mirror alone."""
        return "messages" in self._modes or (self._mirror is not None and self._options.in_state)

    # -- what nodes say -----------------------------------------------------------------------------------------

    def node_started(self, ns: Namespace, node: str, task_id: str, step: int | None) -> None:
        """A task begins, or, for the second time in an attempt, its retry policy runs it again."""
        ns = self._placed(ns)
        task = self._task(task_id, ns, node)
        task.starts += 1
        self.failed_node = None  # whatever failed was got over: by a retry, an error handler, or the node round it
        if task.starts > 1:
            self._discard(task_id, task)
        if "tasks" in self._modes and self._shows(ns, node):
            self._emit("node_start", ns, {"node": node, "data": {"id": task_id, "step": step}})

    def _discard(self, task_id: str, task: _Task) -> None:
        """What the try before said is void, and what its subgraphs said too: LangGraph starts those anew."""
        void: list[str] = []
        for other_id, other in self._tasks.items():
            if other_id == task_id or self._is_below(other_id, task_id):
                void += [*other.spoken, *other.messages]
                other.spoken.clear()
                other.messages.clear()
                self._held.pop(other_id, None)
        if void and self._shows(task.ns):
            self._emit("discard", task.ns, {"node": task.node, "discard": void, "reason": "retry"})

    def message(self, ns: Namespace, node: str, task_id: str, message: BaseMessage, tags: Sequence[str] = ()) -> None:
        """A piece of a message, or a whole one, as the model speaks or a node returns it."""
        ns = self._placed(ns)
        if not self.hears_messages or not self._shows(ns, node, tags):
            return
        if isinstance(message, AIMessage):
            opened = self._open(ns, node, task_id, message.id or "", tags)
            pieces = opened.add(message) if isinstance(message, AIMessageChunk) else opened.whole(message)
            self._say(pieces)
            if self._mirror is not None:
                self._show_text(self._mirror, opened, message)
        elif isinstance(message, ToolMessage):
            data = {
                "id": message.tool_call_id,
                "name": message.name,
                "content": message.content,
                "status": message.status,
            }
            self._task(task_id, ns, node).results.append(message.id or "")
            self._say([self._event("tool_result", ns, {"node": node, "data": data})])

    def _say(self, events: Iterable[NewEvent]) -> None:
        for event in events:
            if "messages" in self._modes:
                self._put(self._fitted(event))

    def _show_text(self, mirror: StateMirror, opened: OpenMessage, message: AIMessage) -> None:
        if text := str(message.text):
            mirror.token(opened.node, opened.id, lambda: opened.text, text)
        if opened.is_closed:
            mirror.spoken(opened.id, opened.text)

    def custom(self, ns: Namespace, node: str, data: Any) -> None:
        """Whatever a node gave to its stream writer, or dispatched as a custom event."""
        ns = self._placed(ns)
        if "custom" in self._modes and self._shows(ns, node):
            self._emit("custom", ns, {"node": node, "data": data})

    def meter(self, task_id: str) -> ProgressMeter:
        """The meter of a task's progress. May be asked for in any thread."""
        return self._meters.setdefault(task_id, ProgressMeter())

    def progress(self, ns: Namespace, node: str, data: Mapping[str, Any]) -> None:
        """A progress that is worth showing."""
        ns = self._placed(ns)
        if "custom" in self._modes and self._shows(ns, node):
            self._emit("progress", ns, {"node": node, "data": data})
        if self._mirror is not None and self._shows(ns, node):
            self._mirror.progress(node, data)

    # -- what the graph says ------------------------------------------------------------------------------------

    def part(self, ns: Namespace, mode: str, data: Any) -> None:
        """A part of one of LangGraph's stream modes, as its loop emits it."""
        ns = self._placed(ns)
        match mode:
            case "updates":
                self._update(ns, data)
            case "tasks" if "result" in data:
                self._task_ended(ns, data)
            case "tasks":
                self._task(data["id"], ns, data["name"])
            case "values":
                self._values(ns, without_interrupts(data))
            case "checkpoints" if self._shows(ns):
                self._emit("checkpoint", ns, {"data": self._checkpoint(ns, data)})
            case "debug" if self._shows(ns):
                self._debug(ns, data)

    def _checkpoint(self, ns: Namespace, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        exposure, safe = self._options.exposure, safe_checkpoint(payload)
        return {**safe, "values": exposure.state(safe.get("values")), "tasks": exposure.tasks(safe["tasks"], ns)}

    def _debug(self, ns: Namespace, data: Mapping[str, Any]) -> None:
        payload = data["payload"]
        if data["type"] == "checkpoint":
            self._emit("debug", ns, {"data": {**data, "payload": self._checkpoint(ns, payload)}})
        elif self._shows(ns, payload["name"]):
            shown = self._options.exposure.task(safe_task(payload), ns)
            self._emit("debug", ns, {"data": {**data, "payload": shown}})

    def _values(self, ns: Namespace, values: Any) -> None:
        values = self._options.exposure.state(values)
        if "values" in self._modes and self._shows(ns):
            self._emit("values", ns, {"data": values})
        if self._mirror is not None and not ns:
            self._mirror.values(values)

    def _update(self, ns: Namespace, data: Mapping[str, Any]) -> None:
        cached = bool((data.get("__metadata__") or {}).get("cached"))
        for node, update in data.items():
            if node in ("__metadata__", INTERRUPT):
                continue
            give_ids(update)
            if cached:
                # a result from before, or from a cache: only a save in this attempt tells which (fact 5)
                self._cached.append((ns, node, update))
            else:
                self._updates.setdefault(ns, []).append((node, update))

    def _task_ended(self, ns: Namespace, data: Mapping[str, Any]) -> None:
        task_id, node = data["id"], data["name"]
        task = self._task(task_id, ns, node)
        task.has_result = True
        meter = self._meters.pop(task_id, None)
        if meter is not None and (rest := meter.rest()) is not None:
            self.progress(ns, node, rest)
        if data["error"] is not None:
            self._task_failed(ns, node, data["error"])
            return
        for opened in task.messages.values():
            self._say(opened.close())
            if self._mirror is not None:
                self._mirror.spoken(opened.id, opened.text)
        updates = self._updates.pop(ns, [])
        mine = [update for name, update in updates if name == node]
        if len(mine) < len(updates):
            self._updates[ns] = [(name, update) for name, update in updates if name != node]
        for update in mine:
            self._node_ended(task_id, ns, node, update)

    def _task_failed(self, ns: Namespace, node: str, error: BaseException) -> None:
        if isinstance(error, CANCELLED):
            return  # it was stopped because another one failed
        if self.failed_node is None or (self._failed_below and not ns):
            self.failed_node, self._failed_below = node, bool(ns)

    def _node_ended(self, task_id: str, ns: Namespace, node: str, update: Any) -> None:
        task = self._task(task_id, ns, node)
        task.spoken += task.messages
        task.messages.clear()
        if task.spoken or task.results:
            self._speakers.add(task_id)
        if "updates" not in self._modes or not self._shows(ns, node):
            return
        data = node_data(self._options.exposure.state(update))
        event = self._event("node", ns, {"node": node, "task_id": task_id, "data": data})
        if self._options.gated and task_id not in self._durable:
            self._held.setdefault(task_id, []).append(event)
        else:
            self._put(event)

    # -- what the saver says ------------------------------------------------------------------------------------

    def saving(self, task_id: str) -> Sequence[bytes]:
        """The texts of the events that are true once the writes of a task are saved: those held for it.

        So are those of a subgraph that it ran without checkpoints of its own: that one lasts as long as its parent.
        """
        task = self._tasks.get(task_id)
        if task is not None and not task.has_result:
            # it is saved and did not run: its update came from a cache
            places = (n for n, (ns, node, _) in enumerate(self._cached) if (ns, node) == (task.ns, task.node))
            if (place := next(places, None)) is not None:
                self._node_ended(task_id, *self._cached.pop(place))
        return [event.text for held_id in self._held_by(task_id) for event in self._held[held_id]]

    def is_told(self, task_id: str) -> bool:
        """Whether the stream has said how a task ended; so it is of a task that the stream says nothing of."""
        task = self._tasks.get(task_id)
        if task is None or task.has_result:
            return True
        return any((ns, node) == (task.ns, task.node) for ns, node, _ in self._cached)

    def told_in(self, ns: Namespace) -> Collection[str]:
        """The tasks of a graph of which the stream has said how they ended."""
        ns = self._placed(ns)
        return [task_id for task_id, task in self._tasks.items() if task.has_result and task.ns == ns]

    def spoken_by(self, task_id: str) -> Sequence[str]:
        """The ids of the messages that are whole once the writes of a task are saved."""
        speakers = [self._tasks[speaker_id] for speaker_id in self._among(self._speakers, task_id)]
        return [message_id for task in speakers for message_id in (*task.spoken, *task.results)]

    def saved(self, task_id: str) -> None:
        """The writes of a task are saved, so the task never runs again: its event may be written (fact 21)."""
        self._durable.add(task_id)
        self._speakers.difference_update(self._among(self._speakers, task_id))
        for held_id in self._held_by(task_id):
            for event in self._held.pop(held_id):
                self._put(event)

    def _held_by(self, task_id: str) -> Sequence[str]:
        return self._among(self._held, task_id)

    def _among(self, task_ids: Collection[str], task_id: str) -> Sequence[str]:
        """The task, and those of the subgraphs that it runs."""
        return [other_id for other_id in task_ids if other_id == task_id or self._is_below(other_id, task_id)]

    def _is_below(self, held_id: str, task_id: str) -> bool:
        return any(segment.endswith(f":{task_id}") for segment in self._tasks[held_id].ns)

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The graph has come to its end, so no task runs again whatever the saver said."""
        for events in self._held.values():
            for event in events:
                self._put(event)
        self._held.clear()

    def open_mirror(self, values: Any) -> None:
        """The run begins with these values of the state; its input is not among them yet."""
        if self._mirror is not None:
            self._mirror.values(self._options.exposure.state(values))

    def close_mirror(self, values: Any) -> None:
        """The run ends, in whatever way, with these values of the state."""
        if self._mirror is not None:
            self._mirror.close(self._options.exposure.state(values))

    def partial(self) -> Mapping[str, str]:
        """The text so far of each message whose node has not ended, by message id."""
        opened = [m for task in self._tasks.values() for m in task.messages.values()]
        return {m.id: m.text for m in opened if m.text}

    # -- below --------------------------------------------------------------------------------------------------

    def hides(self, tags: Collection[str]) -> bool:
        """Whether no client may see what a model with these tags says."""
        return not self._options.exposure.hidden_tags.isdisjoint(tags)

    def shows_key(self, key: str) -> bool:
        keys = self._options.exposure.keys
        return keys is None or key in keys

    def _shows(self, ns: Namespace, node: str | None = None, tags: Sequence[str] = ()) -> bool:
        if ns and not self._options.subgraphs:
            return False
        if node is None and not ns:
            return True
        return self._options.exposure.shows(node or "", ns, tags)

    def _task(self, task_id: str, ns: Namespace, node: str) -> _Task:
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = _Task(ns=ns, node=node)
            self._newest[ns, node] = task_id
        return task

    def _placed(self, ns: Namespace) -> Namespace:
        """A namespace of `node:task_id`s. A subgraph that keeps its state from run to run has no task id in its own."""
        if not ns or all(":" in place for place in ns):
            return ns
        placed: Namespace = ()
        for place in ns:
            task_id = self._newest.get((placed, place))
            placed = (*placed, place if task_id is None else f"{place}:{task_id}")
        return placed

    def _open(self, ns: Namespace, node: str, task_id: str, message_id: str, tags: Sequence[str]) -> OpenMessage:
        messages = self._task(task_id, ns, node).messages
        opened = messages.get(message_id)
        if opened is None:
            opened = messages[message_id] = OpenMessage(id=message_id, node=node, ns=ns, tags=tags)
        return opened

    def _emit(self, kind: EventKind, ns: Namespace, fields: Mapping[str, Any]) -> None:
        self._put(self._event(kind, ns, fields))

    def _event(self, kind: EventKind, ns: Namespace, fields: Mapping[str, Any]) -> NewEvent:
        place = {"ns": ns} if ns else {}
        return self._fitted(NewEvent(kind, dumps({"event": kind, **place, **fields})))

    def _fitted(self, event: NewEvent) -> NewEvent:
        return fitted(event, max_bytes=self._options.max_frame_bytes, thread_id=self._options.thread_id)


def call_later(seconds: float, action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, action)


def node_data(update: Any) -> Any:
    """A node's update as the `data` of its event, with the newest message under `message`."""
    if update is None:
        return {}
    if not isinstance(update, Mapping):
        return update
    newest = newest_message(update)
    return update if newest is None or "message" in update else {**update, "message": newest}


def without_interrupts(values: Any) -> Any:
    if isinstance(values, Mapping) and INTERRUPT in values:
        return {k: v for k, v in values.items() if k != INTERRUPT}
    return values


def safe_checkpoint(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A checkpoint's payload without the text of exceptions, which may hold anything."""
    return {**payload, "tasks": safe_tasks(payload.get("tasks", ()))}


def safe_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [safe_task(task) for task in tasks]


def safe_task(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task without the text of its exception, and without what this server keeps in its metadata."""
    shown = {**task, "error": FAILED_TASK} if task.get("error") else dict(task)
    if "metadata" in shown:
        shown["metadata"] = {k: v for k, v in shown["metadata"].items() if not k.startswith("runstream_")}
    return shown
