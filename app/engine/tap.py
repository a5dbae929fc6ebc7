"""Where events are taken from a running graph.

LangGraph tells what happens through a stream protocol that a parent graph hands to its child, and through callbacks.
We hand in ours as such a parent would, instead of reading the queue of `astream`: the queue does not say which node
wrote a custom event, has no bound, and costs a third of the throughput (docs/decisions/002-listen-inside-langgraph.md).
Everything arrives in the order in which it happened, and is passed on in the loop's own thread.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeGuard, cast
from uuid import UUID

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langgraph._internal._config import recast_checkpoint_ns
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINT_NS, CONFIG_KEY_RUNTIME, CONFIG_KEY_STREAM
from langgraph.config import get_config
from langgraph.constants import TAG_HIDDEN, TAG_NOSTREAM
from langgraph.pregel._messages import Meta, StreamMessagesHandler, graph_namespace
from langgraph.pregel.protocol import StreamChunk, StreamProtocol
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import StreamMode
from pydantic import BaseModel

from app.engine.jsonable import jsonable
from app.engine.translate import Namespace, Translator
from app.errors import LimitExceeded
from app.runs.engine import Log
from app.runs.trace import NodeTrace, TraceNode
from app.streaming import ProgressUpdate

ALWAYS: tuple[StreamMode, ...] = ("updates", "tasks")
ON_REQUEST: tuple[StreamMode, ...] = ("values", "checkpoints", "debug")

MAX_CROSSING: Final = 16  # what may be on its way from threads of nodes to the loop; each may be a whole frame
MAX_STRANDED: Final = 100_000  # the same, while the loop is blocked
LOOP_SECONDS: Final = 0.1  # a loop that takes longer for a turn is taken for blocked
PAUSE_SECONDS: Final = 0.002


class Tap:
    """Connects one attempt at a run to its translator."""

    def __init__(
        self,
        translator: Translator,
        log: Log,
        *,
        modes: Collection[str],
        subgraphs: bool,
        trace_node: TraceNode,
    ) -> None:
        self._translator = translator
        self._log = log
        self.trace_node = trace_node
        self._crossing: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_loop_blocked = False
        self._modes = modes
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self.watch = RunWatch(self)
        self._listener = MessageListener(self, subgraphs=subgraphs) if translator.hears_messages else None
        # the metadata of the model call that spoke last, and where it is; replaced as one, since nodes have threads
        self._spoke_last: tuple[Any, tuple[Namespace, str, str]] = (None, ((), "", ""))

    def config(self, store: BaseStore | None) -> RunnableConfig:
        """What to merge into the config of `astream`, for a graph that was compiled with this store."""
        modes: set[StreamMode] = {*ALWAYS, *(m for m in ON_REQUEST if m in self._modes)}
        if "state" in self._modes:
            modes.add("values")
        return {
            "configurable": {
                CONFIG_KEY_STREAM: StreamProtocol(self._part, modes),
                CONFIG_KEY_RUNTIME: Runtime(stream_writer=self._write, store=store),
            },
            "callbacks": [self._listener or self.watch],
        }

    def know(self, message_ids: Collection[str]) -> None:
        """These messages were spoken in an attempt before; a node that returns one does not say it again."""
        if self._listener is not None:
            self._listener.seen.update(message_ids)

    def call(self, method: Callable[..., None], *args: Any) -> None:
        """Call a method of the translator in the loop's thread, now or as soon as it gets there, in order.

        A node in a thread of its own is held while what it said before has no room, so a fast one is as fast as the
        disk and costs no memory (docs/decisions/008-limits.md).
        """
        if threading.get_ident() == self._thread_id:
            method(*args)
            return
        while len(self._crossing) >= MAX_CROSSING and self._loop_turns():
            pass
        while self._log.is_behind and self._loop_turns():
            time.sleep(PAUSE_SECONDS)
        self._crossing.append((method, args))
        self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self._is_loop_blocked = False
        method, args = self._crossing.popleft()
        method(*args)

    def _loop_turns(self) -> bool:
        """False when the loop is blocked: by a node that waits for this very thread, maybe, so it must not wait."""
        if not self._is_loop_blocked:
            turned = threading.Event()
            self._loop.call_soon_threadsafe(turned.set)
            self._is_loop_blocked = not turned.wait(LOOP_SECONDS)
        return not self._is_loop_blocked

    def message(self, metadata: dict[str, Any], message: BaseMessage) -> None:
        known, place = self._spoke_last
        if metadata is not known:  # it is one object for all tokens of a call
            place = (namespace_of(metadata), *split_task(metadata["langgraph_checkpoint_ns"]))
            self._spoke_last = (metadata, place)
        self.call(self._translator.message, *place, message, metadata.get("tags") or ())

    def hides(self, tags: Collection[str]) -> bool:
        """Whether no client may see what a model with these tags says."""
        return self._translator.hides(tags)

    def shows_key(self, key: str) -> bool:
        """Whether clients may see this key of the state."""
        return self._translator.shows_key(key)

    def node_started(self, metadata: dict[str, Any]) -> None:
        node, task_id = split_task(metadata["langgraph_checkpoint_ns"])
        step = metadata.get("langgraph_step")
        self.call(self._translator.node_started, namespace_of(metadata), node, task_id, step)

    def custom(self, metadata: Mapping[str, Any], data: Any) -> None:
        node, task_id = split_task(metadata["langgraph_checkpoint_ns"])
        ns = namespace_of(metadata)
        if not isinstance(data, ProgressUpdate):
            # in another thread it is read at once: until the loop gets to it, the node may have changed it
            shown = data if threading.get_ident() == self._thread_id else jsonable(data)
            self.call(self._translator.custom, ns, node, shown)
        elif (shown := self._translator.meter(task_id).update(data)) is not None:
            # most are left out here, in the node's own thread: a tight loop must not fill the event loop
            self.call(self._translator.progress, ns, node, shown)

    def _part(self, chunk: StreamChunk) -> None:
        self.call(self._translator.part, *chunk)

    def _write(self, data: Any) -> None:
        """A node's stream writer. Raises LimitExceeded: a node that never waits is stopped by nothing else."""
        if self._log.is_full or len(self._crossing) >= MAX_STRANDED:
            raise LimitExceeded("the run has said more than it may")
        config = get_config()
        if self.hides(config.get("tags") or ()):
            return
        place = {"langgraph_checkpoint_ns": config["configurable"][CONFIG_KEY_CHECKPOINT_NS]}
        self.custom({**config.get("metadata", {}), **place}, data)


def split_task(checkpoint_ns: str) -> tuple[str, str]:
    """The node and the task id that a task's namespace ends with.

    >>> split_task("agent:1f|tools:2e")
    ('tools', '2e')
    """
    node, _, task_id = checkpoint_ns.rpartition("|")[2].rpartition(":")
    return node, task_id


def handles_error(metadata: Mapping[str, Any]) -> bool:
    return "node_error_handler" in metadata.get("langgraph_path", ())


def namespace_of(metadata: Mapping[str, Any]) -> Namespace:
    """The namespace of the graph that a task runs in.

    A node's error handler runs in the node's graph, although LangGraph nests its namespace under the node's.
    """
    ns = graph_namespace(metadata)
    return ns[:-1] if handles_error(metadata) else ns


class RunWatch(UsageMetadataCallbackHandler):
    """Hears every model call and task of a run, in subgraphs too: usage, failures, starts, custom events."""

    run_inline = True  # called in order, where it happens, not in another thread

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self._tap = tap
        self._model_errors: list[BaseException] = []
        self._places: dict[UUID, str] = {}  # of what runs now: the namespace of the task it is in
        self._tasks: set[str] = set()
        self._traces: dict[UUID, NodeTrace] = {}  # of the tasks that run now
        self._trace_at: dict[str, NodeTrace] = {}  # the same by their namespaces

    def is_own(self, metadata: Mapping[str, Any]) -> bool:
        """Whether something belongs to the run's graph or a subgraph; not to a graph a node runs on another thread."""
        return metadata.get("langgraph_checkpoint_ns") in self._tasks

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        metadata = kwargs.get("metadata") or {}
        place = self._places[run_id] = metadata.get("langgraph_checkpoint_ns") or ""
        outer = self._places.get(cast(UUID, kwargs.get("parent_run_id")))
        if kwargs.get("name") != metadata.get("langgraph_node") or not self._begins_task(metadata, outer):
            return
        self._tasks.add(place)
        if TAG_HIDDEN not in (kwargs.get("tags") or ()):
            self._trace(run_id, place, outer)
            self._tap.node_started(metadata)

    def _begins_task(self, metadata: Mapping[str, Any], outer: str | None) -> bool:
        """Whether a chain is a task itself, seen from the task round it: others in a task may have its name too."""
        if outer is None or (outer and outer not in self._tasks):
            return False
        above = "|".join(metadata["langgraph_checkpoint_ns"].split("|")[: -2 if handles_error(metadata) else -1])
        # a child that keeps its state from run to run (`checkpointer=True`) has no task ids in its namespace
        return above in (outer, recast_checkpoint_ns(outer)) or bool(outer and above.startswith(f"{outer}|"))

    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **kwargs: Any) -> None:
        self._places[run_id] = (kwargs.get("metadata") or {}).get("langgraph_checkpoint_ns") or ""

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._places.pop(run_id, None)
        self._end_task(run_id, None)

    def _trace(self, run_id: UUID, place: str, outer: str | None) -> None:
        begun = self._tap.trace_node(*split_task(place), self._trace_at.get(outer or ""))
        self._traces[run_id] = self._trace_at[place] = begun

    def _end_task(self, run_id: UUID, error: BaseException | None) -> None:
        if begun := self._traces.pop(run_id, None):
            begun.done(error)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._places.pop(run_id, None)
        self._end_task(run_id, error)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._places.pop(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._places.pop(run_id, None)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._model_errors.append(error)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        metadata = kwargs.get("metadata") or {}
        if self.is_own(metadata) and not self._tap.hides(kwargs.get("tags") or ()):
            self._tap.custom(metadata, {"name": name, "data": data})

    def is_model_error(self, error: BaseException) -> bool:
        """Whether an exception was raised inside a model call, or because of one."""
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            if any(link is known for known in self._model_errors):
                return True
            link = link.__cause__ or link.__context__
        return False


class MessageListener(StreamMessagesHandler):
    """LangGraph's own handler of the `messages` mode; being there makes models stream.

    It passes everything on to the watch, since each handler costs a call for every token. LangChain logs what a
    handler raises; where the watch does, the messages are heard all the same.
    """

    def __init__(self, tap: Tap, *, subgraphs: bool) -> None:
        # one that says subgraphs=False is thrown out at the root, where only astream may attach it
        super().__init__(lambda chunk: None, subgraphs=True)
        self._tap = tap
        self._roots_only = not subgraphs
        self._hidden: set[UUID] = set()  # calls that LangGraph does not stream, and that no client may see

    def _emit(self, meta: Meta, message: BaseMessage, *, dedupe: bool = False) -> None:
        if dedupe and message.id in self.seen:
            return
        if message.id is None:
            super()._emit((meta[0], meta[1]), message)  # it gives the id
        self.seen.add(cast(str, message.id))
        self._tap.message(meta[1], message)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        tags = kwargs.get("tags") or ()
        if TAG_NOSTREAM in tags and self._tap.hides(tags):
            self._hidden.add(run_id)
        if self._hears(metadata):
            super().on_chat_model_start(serialized, messages, run_id=run_id, metadata=metadata, **kwargs)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        try:
            self._tap.watch.on_chain_start(serialized, inputs, run_id=run_id, metadata=metadata, **kwargs)
        finally:
            if self._hears(metadata):
                super().on_chain_start(serialized, inputs, run_id=run_id, metadata=metadata, **kwargs)

    def on_chain_end(self, *outputs: Any, run_id: UUID, **kwargs: Any) -> Any:
        try:
            self._tap.watch.on_chain_end(*outputs, run_id=run_id)
        finally:
            super().on_chain_end(*outputs, run_id=run_id, **kwargs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        try:
            self._tap.watch.on_chain_error(error, run_id=run_id)
        finally:
            super().on_chain_error(error, run_id=run_id, **kwargs)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **kwargs: Any) -> Any:
        self._tap.watch.on_tool_start(serialized, input_str, run_id=run_id, **kwargs)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        self._tap.watch.on_tool_end(output, run_id=run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        self._tap.watch.on_tool_error(error, run_id=run_id)

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        self._tap.watch.on_custom_event(name, data, **kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        if run_id in self._hidden:
            # or what the node returns of it would be taken for a message of the node's own
            said = [choice.message.id for choices in response.generations for choice in choices if has_message(choice)]
            self.seen.update(id for id in said if id)
            self._hidden.discard(run_id)
        super().on_llm_end(response, run_id=run_id, **kwargs)
        self._tap.watch.on_llm_end(response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        super().on_llm_error(error, run_id=run_id, **kwargs)
        self._tap.watch.on_llm_error(error)

    def _hears(self, metadata: Mapping[str, Any] | None) -> bool:
        if metadata is None or not self._tap.watch.is_own(metadata):
            return False
        return not (self._roots_only and namespace_of(metadata))

    def _find_and_emit_messages(self, meta: Meta, response: Any) -> None:
        """Of what a node returns: its chat, and results of tools. Another key's messages are not for show (fact 9)."""
        if isinstance(response, BaseMessage):
            self._emit(meta, response, dedupe=True)
            return
        if not isinstance(response, dict):
            for message in messages_of(response):
                self._emit(meta, message, dedupe=True)
        for key, value in items_of(response):
            if not self._tap.shows_key(key):
                continue
            for message in messages_of(value):
                if key == "messages" or isinstance(message, ToolMessage):
                    self._emit(meta, message, dedupe=True)


def has_message(choice: Any) -> TypeGuard[ChatGeneration]:
    return isinstance(choice, ChatGeneration)


def items_of(update: Any) -> Iterable[tuple[str, Any]]:
    """The keys of an update in one of the forms that a node may return."""
    if isinstance(update, dict):
        return update.items()
    if isinstance(update, BaseModel):
        return [(name, getattr(update, name)) for name in type(update).model_fields]
    if is_dataclass(update) and not isinstance(update, type):
        return [(field.name, getattr(update, field.name)) for field in fields(update)]
    return ()


def messages_of(value: Any) -> Sequence[BaseMessage]:
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [item for item in value if isinstance(item, BaseMessage)]
    return []
