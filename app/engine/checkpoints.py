"""Checkpoints: LangGraph's own SQLite saver, on a file of its own, fenced and written in batches.

LangGraph's async saver commits once a call and holds one lock across its reads (facts 14, 23). Here its sync saver runs
on the writer thread that the log uses too: what gathers during one commit goes into the next one, a cancelled caller
leaves nothing half done, and the fence is checked inside the transaction (docs/decisions/003-checkpoints.md).
"""

import asyncio
import copy
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import NULL_TASK_ID
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.constants import START
from langgraph.pregel import Pregel

from app.engine.backend import Backend, FileBackend, MemoryBackend, Writer, set_up
from app.engine.fence import move_fence, pass_fence
from app.engine.plain_saver import PlainSaver, PlainSavers, has_ended, put_writes
from app.engine.prune import Keep, SavedAt, delete_places, read_below, read_places, surplus_below
from app.engine.saved import Follower, Save, SavedCheckpoints, Saves
from app.engine.state import thread_config
from app.engine.undo import keep_writes, undo_checkpoints
from app.runs.engine import Log
from app.runs.model import Lease, scoped

__all__ = [
    "Backend",
    "Checkpoints",
    "FileBackend",
    "Journal",
    "MemoryBackend",
    "RunSaver",
    "Writer",
    "set_up",
    "with_checkpoints",
]

T = TypeVar("T")
Operation = Callable[[SqliteSaver], T]
# what a serializer becomes that may also load these types: as many as there are graphs
Serdes = dict[tuple[SerializerProtocol, frozenset[tuple[str, ...]]], SerializerProtocol]


def is_input(checkpoint: Checkpoint, metadata: CheckpointMetadata) -> bool:
    """Whether this is the checkpoint of a graph's input, which no step has taken up yet."""
    return metadata.get("source") == "input" and START in checkpoint["channel_values"]


class Journal(Protocol):
    """Whoever makes the events of nodes; called in the loop's thread."""

    def saving(self, task_id: str) -> Sequence[bytes]:
        """The texts to save with this task's writes: the events that are true then, and notes."""
        ...

    def saved(self, task_id: str) -> None:
        """They are."""
        ...

    async def told(self, task_id: str) -> None:
        """Return when the stream has said what this task wrote."""
        ...

    def told_in(self, checkpoint_ns: str) -> Collection[str]:
        """The tasks of a graph of which the stream has said how they ended."""
        ...


class Checkpoints:
    """All checkpoints of a server. Threads are named by their keys (`scoped(owner, thread_id)`)."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._serdes: Serdes = {}
        self._savers = PlainSavers()

    def saver(
        self,
        owner: str,
        *,
        lease: Lease | None = None,
        journal: Journal | None = None,
        log: Log | None = None,
        defers_input: bool = False,
    ) -> "RunSaver":
        """A saver for the graphs of one owner. With a lease its writes are fenced, inside their transaction.

        `log` is flushed before the writes of a task that ended are saved: what it told before must not be lost when it
        never runs again. With `defers_input` a graph's input is saved with the state that its first node begins from:
        for who has the input elsewhere until then, and closes the saver.
        """
        saver = RunSaver(self._backend, owner, lease, journal, log, self._serdes, self._savers)
        saver.defers_input = defers_input
        return saver

    async def take_over(self, lease: Lease) -> None:
        """Keep earlier claims of the thread out from now on: what is read afterwards stays as it is."""
        await self._backend.write(lambda connection: pass_fence(connection, lease))

    async def node_events(self, run_key: str, thread_key: str) -> Sequence[tuple[str, bytes]]:
        """The task ids and texts that a run's journal gave, in the order in which they became true."""
        query = "SELECT task_id, text FROM node_events WHERE thread_key = ? AND run_key = ? ORDER BY rowid"
        return await self._backend.read(lambda c: c.execute(query, (thread_key, run_key)).fetchall())

    async def undo(self, thread_key: str, run_keys: Sequence[str], *, version: int) -> None:
        """Take the newest runs of a thread out of its checkpoints; see `app.runs.engine.Engine.undo`."""
        await self._backend.write(lambda c: undo_runs(c, thread_key, run_keys, version=version))

    async def delete_thread(self, thread_key: str) -> None:
        """In small steps, the newest state last: half of it is still the thread, with a shorter history."""
        await delete_places(self._backend, thread_key, await self._places(thread_key))
        await self._backend.write(lambda c: delete_rows(c, thread_key))

    async def has_surplus(self, thread_key: str, keep: Keep) -> bool:
        """Whether `prune` would delete anything."""
        return bool(keep.surplus(await self._places(thread_key, "")))

    async def prune(self, thread_key: str, keep: Keep) -> None:
        """Delete the checkpoints of a thread that nobody needs, in small steps, the oldest first."""
        roots = await self._places(thread_key, "")
        surplus = keep.surplus(roots)
        kept = {place.checkpoint_id for place in roots}.difference(place.checkpoint_id for place in surplus)
        below = await self._backend.read(lambda c: read_below(c, thread_key))
        surplus = sorted([*surplus, *surplus_below(below, kept)], key=lambda place: place.checkpoint_id)
        await delete_places(self._backend, thread_key, surplus)

    async def _places(self, thread_key: str, ns: str | None = None) -> Sequence[SavedAt]:
        """Where a thread's checkpoints are, the oldest first; of one namespace, or all."""
        return await self._backend.read(lambda c: read_places(c, thread_key, ns))

    async def copy_thread(self, source_key: str, target_key: str) -> None:
        await self._backend.write(lambda c: copy_rows(c, source_key, target_key))

    async def reclaim(self) -> bool:
        """Give back some of the room that deletions have left. A small step: True when no more is worth the work."""
        return await self._backend.reclaim()

    async def aclose(self) -> None:
        await self._backend.aclose()


def undo_runs(connection: sqlite3.Connection, thread_key: str, run_keys: Sequence[str], *, version: int) -> None:
    move_fence(connection, thread_key, version)
    undo_checkpoints(connection, thread_key, run_keys)


def delete_rows(connection: sqlite3.Connection, thread_key: str) -> None:
    for table in ("fences", "node_events", "undo_places", "undo_writes"):
        connection.execute(f"DELETE FROM {table} WHERE thread_key = ?", (thread_key,))
    PlainSaver(connection).delete_thread(thread_key)


def copy_rows(connection: sqlite3.Connection, source_key: str, target_key: str) -> None:
    for table in ("checkpoints", "writes"):
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        rest = ", ".join(name for name in names if name != "thread_id")
        connection.execute(
            f"INSERT INTO {table} (thread_id, {rest}) SELECT ?, {rest} FROM {table} WHERE thread_id = ?",
            (target_key, source_key),
        )


class RunSaver(BaseCheckpointSaver[str]):
    """What a graph gets as its checkpointer.

    A graph knows its thread by the client's id; the tables know it by owner and id. Sync methods are for graphs that
    a sync node invokes in a thread of its own.
    """

    def __init__(
        self,
        backend: Backend,
        owner: str,
        lease: Lease | None,
        journal: Journal | None,
        log: Log | None = None,
        serdes: Serdes | None = None,
        savers: PlainSavers | None = None,
    ) -> None:
        super().__init__()
        self._serdes: Serdes = {} if serdes is None else serdes
        self._savers = savers or PlainSavers()
        self._backend = backend
        self._owner = owner
        self._lease = lease
        self._journal = journal
        self._log = log
        self.defers_input = False
        self._pinned_id: str | None = None
        self._kept = SavedCheckpoints()
        self._own: set[str] = set()  # the checkpoints that this attempt has saved
        self._saves = Saves(backend, lease)
        self.begins_apart = False  # its graph's first step is LangGraph's own, and takes up the input
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()

    def successor(self) -> "RunSaver":
        """For what is saved when this one is closed: no node's, so without the journal, and found where this one reads.

        The log takes nothing more before its end, so no save may wait for it.
        """
        saver = RunSaver(self._backend, self._owner, self._lease, None, serdes=self._serdes, savers=self._savers)
        saver._pinned_id, saver._own = self._pinned_id, self._own
        return saver

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """LangGraph asks for this at every use of a graph, and for the same types each time."""
        asked = (self.serde, frozenset(extra_allowlist))
        serde = self._serdes.get(asked)
        if serde is None:
            serde = self._serdes[asked] = super().with_allowlist(extra_allowlist).serde
        if serde is self.serde:
            return self
        saver = copy.copy(self)
        saver.serde = serde
        return saver

    # -- reading ------------------------------------------------------------------------------------------------

    def pin(self, checkpoint_id: str) -> None:
        """Take this checkpoint of the graph for its newest one, until another is saved."""
        self._pinned_id = checkpoint_id

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if not self._own and self._is_on_new_thread(config):
            return None  # nobody has saved anything on it
        place = config.get("configurable", {})
        if self._pinned_id and not place.get("checkpoint_ns") and not place.get("checkpoint_id"):
            config = {**config, "configurable": {**place, "checkpoint_id": self._pinned_id}}
        found = await self._read(lambda saver: saver.get_tuple(self._inner(config)))
        return None if found is None else self._read_tuple(found)

    def _is_on_new_thread(self, config: RunnableConfig) -> bool:
        lease = self._lease
        if lease is None or not lease.is_new_thread:
            return False
        return bool(self._inner(config)["configurable"]["thread_id"] == lease.thread_key)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        inner = None if config is None else self._inner(config)
        found = await self._read(lambda saver: list(saver.list(inner, filter=filter, before=before, limit=limit)))
        for item in found:
            yield self._read_tuple(item)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        inner = self._inner(config)
        return await self._read(lambda saver: saver.get_delta_channel_history(config=inner, channels=channels))

    # -- writing ------------------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        inner, place = self._inner(config), config["configurable"]

        def save(saver: SqliteSaver) -> RunnableConfig:
            return saver.put(inner, checkpoint, metadata, new_versions)

        follower = Follower(self._bound(save))
        with self._kept.putting():
            with self._kept.following(config, follower):
                await self._kept.wait_for_writes(config)
            if follower.begun is not None:
                await self._saves.finished(follower.begun)
            elif self._defers(place) and is_input(checkpoint, metadata):
                self._saves.defer(follower.save, checkpoint["id"])
            else:
                await self._saves.run(follower.save)
        put = thread_config(place["thread_id"], checkpoint["id"], place.get("checkpoint_ns", ""))
        if not place.get("checkpoint_ns"):
            self._pinned_id = None
            self._kept.newest = CheckpointTuple(put, checkpoint, metadata)
        self._kept.add(put)
        self._own.add(checkpoint["id"])
        return put

    def _defers(self, place: Mapping[str, Any]) -> bool:
        return self.defers_input and self.begins_apart and not place.get("checkpoint_ns")

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        inner, lease, journal = self._inner(config), self._lease, self._journal
        self._kept.write_to(config)
        if task_id == NULL_TASK_ID:
            # a command's own writes; on a new thread the checkpoint that they name is never saved
            self._kept.add(config)
        if task_id == NULL_TASK_ID or lease is None or journal is None or not has_ended(writes):
            await self._write(lambda saver: self._put_writes(saver, inner, writes, task_id, task_path))
            return
        mark = 0 if self._log is None else self._log.mark  # those behind it must not wait for what is said meanwhile
        with self._kept.writing(config):
            async with self._kept.order(config):
                await self._kept.wait(inner)
                if self._log is not None:
                    await self._log.flush(mark)
                await asyncio.sleep(0)  # where a checkpoint follows, LangGraph begins to save it in the same turn
                rows = [(lease.thread_key, lease.run_key, task_id, text) for text in journal.saving(task_id)]
                save = self._ended(inner, writes, task_id, task_path, rows)
                begun = self._begin(config, save, may_wait=not rows)
        if begun is not None:
            await self._saves.finished(begun)
        journal.saved(task_id)

    def _ended(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
        rows: Sequence[tuple[str, str, str, bytes]],
    ) -> Save:
        """The save of what a task wrote that has come to its end, with rows of the journal."""

        def save(saver: SqliteSaver) -> None:
            self._put_writes(saver, config, writes, task_id, task_path)
            if rows:
                saver.conn.executemany("INSERT INTO node_events VALUES (?, ?, ?, ?)", rows)

        return self._bound(save)

    def _begin(self, config: RunnableConfig, save: Save, *, may_wait: bool) -> asyncio.Future[None] | None:
        """Hand the writes of a task over, with the checkpoint that waits for them alone. None: they are deferred."""
        checkpoint_id = config["configurable"]["checkpoint_id"]
        if may_wait and self._saves.defers(checkpoint_id):
            self._saves.defer(save, checkpoint_id)
            return None
        follower = self._kept.follower(config)
        if follower is None:
            return self._saves.begin(save)
        follower.begun = self._saves.begin(save, follower.save)
        return follower.begun

    def _put_writes(
        self,
        saver: SqliteSaver,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        lease, place = self._lease, config["configurable"]
        if lease is not None and place["checkpoint_id"] not in self._own:
            keep_writes(saver.conn, lease.thread_key, lease.run_key, place["checkpoint_ns"], place["checkpoint_id"])
        put_writes(saver, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._write(lambda saver: saver.delete_thread(scoped(self._owner, thread_id)))

    # -- for graphs in other threads ----------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return cast("CheckpointTuple | None", self._from_thread(self.aget_tuple(config)))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        async def collect() -> Sequence[CheckpointTuple]:
            return [item async for item in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._from_thread(collect())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return cast(RunnableConfig, self._from_thread(self._put_in_order(config, checkpoint, metadata, new_versions)))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._from_thread(self._put_writes_in_order(config, writes, task_id, task_path))

    # LangGraph's sync loop tells what a task wrote, saves it, and saves the checkpoint that has taken it up, each in a
    # thread of its own and in any order: a crash in between would lose the event of a node that never runs again

    async def _put_in_order(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if self._journal is not None:
            told = self._journal.told_in(config["configurable"].get("checkpoint_ns", ""))
            with self._kept.putting():
                await self._kept.wait_for_tasks(told, config)
        return await self.aput(config, checkpoint, metadata, new_versions)

    async def _put_writes_in_order(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        with self._kept.saving(task_id, config):
            if self._journal is not None and has_ended(writes):
                await self._journal.told(task_id)
            await self.aput_writes(config, writes, task_id, task_path)

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        return self._from_thread(self.aget_delta_channel_history(config=config, channels=channels))

    def get_next_version(self, current: str | None, channel: None) -> str:
        return SqliteSaver.get_next_version(cast(SqliteSaver, self), current, channel)

    def _from_thread(self, coroutine: Any) -> Any:
        if threading.get_ident() == self._thread_id:
            coroutine.close()
            # it would wait for itself, and the whole server with it
            raise asyncio.InvalidStateError("A graph was called with a sync method in an async node: use `ainvoke`.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # -- below --------------------------------------------------------------------------------------------------

    async def _read(self, operation: Operation[T]) -> T:
        if self._saves.has_deferred:
            await self._saves.run()
        return await self._backend.read(self._bound(operation))

    async def _write(self, operation: Operation[Any]) -> None:
        await self._saves.run(self._bound(operation))

    def _bound(self, operation: Operation[T]) -> Callable[[sqlite3.Connection], T]:
        return lambda connection: operation(self._savers.on(connection, self.serde))

    @property
    def newest(self) -> CheckpointTuple | None:
        """The graph's own newest checkpoint, where this attempt has saved it and nothing was written to it since."""
        return self._kept.newest

    async def close(self) -> None:
        """Return when all that was begun is saved or has failed; what comes later is refused, with LeaseLost."""
        await self._saves.close()

    def _inner(self, config: RunnableConfig) -> RunnableConfig:
        configurable = config.get("configurable", {})
        key = scoped(self._owner, configurable.get("thread_id", ""))
        return {**config, "configurable": {**configurable, "thread_id": key}}

    def _outer(self, config: RunnableConfig) -> RunnableConfig:
        configurable = config["configurable"]
        thread_id = configurable["thread_id"].rpartition("/")[2]
        return {**config, "configurable": {**configurable, "thread_id": thread_id}}

    def _read_tuple(self, found: CheckpointTuple) -> CheckpointTuple:
        self._kept.add(found.config)
        parent = found.parent_config
        return found._replace(
            config=self._outer(found.config), parent_config=None if parent is None else self._outer(parent)
        )


def with_checkpoints(graph: Pregel[Any, Any, Any, Any], saver: RunSaver) -> Pregel[Any, Any, Any, Any]:
    """Another graph that saves with `saver`; the one given is not changed.

    A plain copy, since `Pregel.copy` makes the graph anew, which takes a run's time, and forgets which types the state
    is made of (fact 25).
    """
    types = graph._serde_allowlist
    saver.begins_apart = START in graph.nodes
    attached = copy.copy(graph)
    attached.checkpointer = saver.with_allowlist(types) if types else saver
    return attached
