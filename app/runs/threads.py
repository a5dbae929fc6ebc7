"""What the API calls about threads: rows, states, history, edits and copies. Knows no HTTP and no graph.

Whatever changes a thread's state holds the thread, so that no run works on it meanwhile, and goes on to its end when
its caller is cancelled: a client that leaves ends up with all of the change or none, and never with a held thread.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from app.errors import GraphNotFound, RunstreamError, ThreadBusy, ThreadExists, ThreadNotFound
from app.runs.model import Thread, ThreadStatus, scoped
from app.runs.store import Store, ThreadQuery

# where LangGraph's clients say which graph a thread is meant for
GRAPH_KEY: Final = "graph_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A checkpoint of a thread: without an id the newest one."""

    id: str | None = None
    ns: str = ""  # the subgraph's namespace; "" is the graph itself
    map: Mapping[str, str] | None = None  # LangGraph's checkpoint_map: the enclosing graphs' checkpoints, by namespace


NEWEST: Final = Place()


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryQuery:
    """Which checkpoints to list, newest first; `metadata` must be in a checkpoint's own, key by key."""

    limit: int = 10
    before: str | None = None  # only those older than this checkpoint
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ns: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Values as if `as_node` had returned them; None leaves the node to be inferred. A command goes before values."""

    values: Any = None
    as_node: str | None = None
    command: Mapping[str, Any] | None = None  # LangGraph's: update, goto


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """Updates to apply to a state, each superstep to what the one before it made."""

    supersteps: Sequence[Sequence[Update]]
    at: Place = NEWEST
    graph: str | None = None  # for a thread that has none yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """What an edit made: its checkpoint, and what the thread waits for afterwards."""

    checkpoint: Mapping[str, Any]
    is_open: bool  # nodes wait to run
    is_asked: bool  # they are at a question for a human


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The newest state of a thread, in short; interrupts by task id."""

    values: Any
    interrupts: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewThread:
    """A thread as a client asks for it."""

    owner: str
    thread_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    graph: str | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    supersteps: Sequence[Sequence[Update]] = ()


class ThreadStates(Protocol):
    """What knows the graphs of threads, and their checkpoints. States are plain JSON, as LangGraph's API gives them."""

    def graph_name(self, asked: str | None, thread: Thread | None) -> str:
        """The registered name that a request means. Raises GraphNotFound, GraphMismatch."""
        ...

    async def heads(self, threads: Sequence[Thread]) -> Mapping[str, Head]:
        """The newest states by thread id; without those that never ran, or whose graph can't be served."""
        ...

    async def state(self, thread: Thread, at: Place, *, subgraphs: bool) -> Mapping[str, Any]:
        """Raises CheckpointNotFound for an id that the thread does not have."""
        ...

    async def history(self, thread: Thread, query: HistoryQuery) -> Sequence[Mapping[str, Any]]: ...

    async def edit(self, thread: Thread, graph: str, edit: Edit) -> Edited:
        """Apply all updates or none. Raises CheckpointNotFound, and Invalid for what the graph does not take."""
        ...

    async def delete(self, thread_key: str) -> None: ...

    async def has_surplus(self, thread: Thread, newest: int, in_use: Collection[str]) -> bool:
        """Whether `prune` would delete anything, and may: without its graph nobody knows what a thread needs."""
        ...

    async def prune(self, thread_key: str, newest: int, in_use: Collection[str]) -> None:
        """Delete the checkpoints that neither the newest so many nor those with these ids need."""
        ...

    async def reclaim(self) -> bool:
        """Give back some of the room that deletions have left. A small step: True when no more is worth the work."""
        ...

    async def copy(self, source_key: str, target_key: str) -> None: ...


class Hold:
    """A thread kept free of runs; what is set here is written with the release."""

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.status: ThreadStatus | None = None
        self.graph: str | None = None


class ThreadService:
    """One instance an app. Every method raises ThreadNotFound for an unknown thread, and for another owner's."""

    def __init__(self, store: Store, states: ThreadStates, *, worker: str) -> None:
        self._store = store
        self._states = states
        self._worker = worker

    async def create(self, new: NewThread) -> Thread:
        """Raises ThreadExists, GraphNotFound for a graph that is named, and what `update_state` raises."""
        return await asyncio.shield(self._create(new))

    async def get(self, owner: str, thread_id: str) -> Thread:
        thread = await self._store.get_thread(scoped(owner, thread_id))
        if thread is None:
            raise ThreadNotFound(thread_id)
        return thread

    async def update(self, owner: str, thread_id: str, metadata: Mapping[str, Any]) -> Thread:
        """Merge into the metadata, key by key."""
        thread = await self._store.update_thread(scoped(owner, thread_id), metadata=metadata)
        if thread is None:
            raise ThreadNotFound(thread_id)
        return thread

    async def delete(self, owner: str, thread_id: str) -> None:
        """Delete a thread with its state and its runs. Raises ThreadBusy."""
        await asyncio.shield(self._delete(scoped(owner, thread_id)))

    async def delete_unused(self, thread: Thread) -> bool:
        """Delete a thread if it is as it was read; False when it is busy, or was changed or deleted since."""
        return await asyncio.shield(self._delete_unused(thread))

    async def prune(self, thread_key: str, newest: int) -> bool:
        """Delete checkpoints that nobody needs, see `ThreadStates.prune`. False when the thread is busy."""
        return await asyncio.shield(self._prune(thread_key, newest))

    async def reclaim(self) -> bool:
        return await self._states.reclaim()

    async def search(self, query: ThreadQuery) -> Sequence[Thread]:
        return await self._store.search_threads(query)

    async def count(self, query: ThreadQuery) -> int:
        return await self._store.count_threads(query)

    async def heads(self, threads: Sequence[Thread]) -> Mapping[str, Head]:
        """See `ThreadStates.heads`; the threads are of one owner."""
        return await self._states.heads(threads)

    async def copy(self, owner: str, thread_id: str) -> Thread:
        """Another thread with the same metadata and graph, and all checkpoints that are committed now."""
        return await asyncio.shield(self._copy(owner, thread_id))

    async def state(self, owner: str, thread_id: str, at: Place, *, subgraphs: bool = False) -> Mapping[str, Any]:
        return await self._states.state(await self.get(owner, thread_id), at, subgraphs=subgraphs)

    async def history(self, owner: str, thread_id: str, query: HistoryQuery) -> Sequence[Mapping[str, Any]]:
        return await self._states.history(await self.get(owner, thread_id), query)

    async def update_state(self, owner: str, thread_id: str, edit: Edit) -> Mapping[str, Any]:
        """Edit the state, or with a checkpoint's id make a branch from there; gives the new checkpoint.

        Raises ThreadBusy, GraphNotFound, GraphMismatch, CheckpointNotFound, and Invalid: then nothing has changed.
        """
        return await asyncio.shield(self._update_state(scoped(owner, thread_id), edit))

    async def _create(self, new: NewThread) -> Thread:
        thread = self._new_thread(new)
        made = await self._store.create_thread(thread)
        if made is None:
            existing = await self._store.get_thread(thread.key)
            if new.if_exists == "raise" or existing is None:
                raise ThreadExists(thread.thread_id)
            return existing
        if not new.supersteps:
            return made
        await self._fill(made, Edit(supersteps=new.supersteps))
        return await self.get(new.owner, thread.thread_id)

    def _new_thread(self, new: NewThread) -> Thread:
        graph = self._bound_graph(new)
        if graph is None and new.supersteps:
            graph = self._states.graph_name(None, None)
        now = datetime.now(UTC)
        return Thread(
            owner=new.owner,
            thread_id=new.thread_id or str(uuid.uuid4()),
            graph=graph,
            status="idle",
            metadata=new.metadata,
            version=0,
            created_at=now,
            updated_at=now,
        )

    def _bound_graph(self, new: NewThread) -> str | None:
        if new.graph is not None:
            return self._states.graph_name(new.graph, None)
        meant = meant_graph(new.metadata)
        try:
            return None if meant is None else self._states.graph_name(meant, None)
        except GraphNotFound:  # metadata are the client's own: a name from somewhere else binds the thread to nothing
            return None

    async def _fill(self, thread: Thread, edit: Edit) -> None:
        """Give a new thread its first state; one that can't have it is not made."""
        async with self._held(thread.key) as hold:
            try:
                await self._edit(hold, edit)
            except RunstreamError:
                await self._store.delete_thread(thread.key, self._worker)
                raise

    async def _update_state(self, thread_key: str, edit: Edit) -> Mapping[str, Any]:
        async with self._held(thread_key) as hold:
            return await self._edit(hold, edit)

    async def _edit(self, hold: Hold, edit: Edit) -> Mapping[str, Any]:
        thread = hold.thread
        asked = edit.graph or (meant_graph(thread.metadata) if thread.graph is None else None)
        graph = self._states.graph_name(asked, thread)
        edited = await self._states.edit(thread, graph, edit)
        hold.graph = graph
        is_paused = edited.is_open and (thread.status == "interrupted" or edited.is_asked)
        hold.status = "interrupted" if is_paused else "idle"
        return edited.checkpoint

    async def _delete(self, thread_key: str) -> None:
        async with self._held(thread_key):
            await self._delete_held(thread_key)

    async def _delete_held(self, thread_key: str) -> None:
        # first: a thread made again under the same id must not find the state of this one
        await self._states.delete(thread_key)
        await self._store.delete_thread(thread_key, self._worker)

    async def _delete_unused(self, thread: Thread) -> bool:
        try:
            async with self._held(thread.key) as hold:
                is_same = hold.thread == thread
                if is_same:
                    await self._delete_held(thread.key)
                return is_same
        except (ThreadBusy, ThreadNotFound):
            return False

    async def _prune(self, thread_key: str, newest: int) -> bool:
        thread = await self._store.get_thread(thread_key)
        if thread is None:
            return True
        in_use = await self._store.checkpoints_in_use(thread_key)
        if not await self._states.has_surplus(thread, newest, in_use):
            return True  # not held for nothing: who wants to start a run meanwhile would be told that it is busy
        try:
            async with self._held(thread_key):
                await self._states.prune(thread_key, newest, await self._store.checkpoints_in_use(thread_key))
        except ThreadBusy:
            return False
        except ThreadNotFound:
            pass
        return True

    async def _copy(self, owner: str, thread_id: str) -> Thread:
        source = await self.get(owner, thread_id)
        now = datetime.now(UTC)
        copied = replace(source, thread_id=str(uuid.uuid4()), version=0, created_at=now, updated_at=now)
        await self._states.copy(source.key, copied.key)
        made = await self._store.create_thread(replace(copied, status=await self._status_of_copy(copied)))
        if made is None:
            raise ThreadExists(copied.thread_id)
        return made

    async def _status_of_copy(self, copied: Thread) -> ThreadStatus:
        if copied.status != "busy":
            return copied.status
        head = (await self._states.heads([copied])).get(copied.thread_id)
        return "interrupted" if head is not None and head.interrupts else "idle"

    @asynccontextmanager
    async def _held(self, thread_key: str) -> AsyncIterator[Hold]:
        hold = Hold(await self._store.hold(thread_key, self._worker))
        try:
            yield hold
        finally:
            await self._store.release(thread_key, self._worker, status=hold.status, graph=hold.graph)


def meant_graph(metadata: Mapping[str, Any]) -> str | None:
    """The graph that a thread's metadata name, as LangGraph's clients write it there."""
    name = metadata.get(GRAPH_KEY)
    return name if isinstance(name, str) and name else None
