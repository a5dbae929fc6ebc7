"""Checkpoints: LangGraph's own SQLite saver, on a file of its own, fenced and written in batches.

LangGraph's async saver commits once a call and holds one lock across its reads (facts 14, 23). Here its sync saver runs
on the writer thread that the log uses too: what gathers during one commit goes into the next one, a cancelled caller
leaves nothing half done, and the fence is checked inside the transaction (docs/decisions/003-checkpoints.md).
"""

import asyncio
import contextlib
import copy
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.pregel import Pregel

from app.engine.saved import SavedCheckpoints
from app.errors import LeaseLost
from app.runs.model import Lease, scoped

T = TypeVar("T")
Operation = Callable[[SqliteSaver], T]

# writes of a task that failed or asks; its answers (`__resume__`) are among the writes of one that asked and then ended
UNFINISHED = frozenset({"__error__", "__error_source_node__", "__interrupt__", "__scheduled__"})
CONTROL = UNFINISHED | {"__resume__"}


class PlainSaver(SqliteSaver):
    """LangGraph's saver, in transactions of ours: it neither commits nor sets the tables up by itself."""

    @contextlib.contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        with contextlib.closing(self.conn.cursor()) as cursor:
            yield cursor


SCHEMA = """
CREATE TABLE IF NOT EXISTS fences (thread_key TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS node_events (
    thread_key TEXT NOT NULL, run_key TEXT NOT NULL, task_id TEXT NOT NULL, text BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS node_events_of_thread ON node_events (thread_key);
"""


def set_up(connection: sqlite3.Connection) -> None:
    """Make the saver's tables and two of ours.

    `fences` has for each thread the version of the claim that may write. `node_events` has the events of the newest
    run's nodes, written in one transaction with the nodes' writes: what a crash kept from the log is found there.
    """
    SqliteSaver(connection).setup()
    connection.executescript(SCHEMA)


def has_ended(writes: Sequence[tuple[str, Any]]) -> bool:
    """Whether these are the writes of a task that came to its end: with an output, and no failure or question."""
    channels = {channel for channel, _ in writes}
    return bool(channels - CONTROL) and not channels & UNFINISHED


def pass_fence(connection: sqlite3.Connection, lease: Lease) -> None:
    """Raise LeaseLost when a later claim of the thread has written; otherwise keep earlier ones out from now on."""
    row = connection.execute("SELECT version FROM fences WHERE thread_key = ?", (lease.thread_key,)).fetchone()
    if row is not None and row[0] > lease.version:
        raise LeaseLost(f"thread {lease.thread_key}: claim {lease.version} is older than {row[0]}")
    if row is None or row[0] < lease.version:
        connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?)", (lease.thread_key, lease.version))
        stale = (lease.thread_key, lease.run_key)
        connection.execute("DELETE FROM node_events WHERE thread_key = ? AND run_key <> ?", stale)


class Backend(Protocol):
    """Where an operation on a saver is carried out."""

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    async def aclose(self) -> None: ...


class Journal(Protocol):
    """Whoever makes the events of nodes; called in the loop's thread."""

    def saving(self, task_id: str) -> Sequence[bytes]:
        """The texts of the events that are true once this task's writes are saved."""
        ...

    def saved(self, task_id: str) -> None:
        """They are."""
        ...


class Writer(Protocol):
    """The thread that owns the connection that writes: an operation is committed when `run` returns."""

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T: ...

    async def aclose(self) -> None: ...


class FileBackend:
    """One writer thread, and two readers beside it."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self._path = path
        self._writer = writer
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="checkpoints-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: operation(self._connect()))

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # closed by another thread than the one that uses it, after all of them have ended
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.run(operation)

    async def aclose(self) -> None:
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        await self._writer.aclose()


class MemoryBackend:
    """The same tables in memory."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        set_up(self._connection)

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return operation(self._connection)

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return operation(self._connection)

    async def aclose(self) -> None:
        self._connection.close()


class Checkpoints:
    """All checkpoints of a server. Threads are named by their keys (`scoped(owner, thread_id)`)."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def saver(self, owner: str, *, lease: Lease | None = None, journal: Journal | None = None) -> "RunSaver":
        """A saver for the graphs of one owner. With a lease its writes are fenced, inside their transaction."""
        return RunSaver(self._backend, owner, lease, journal)

    async def node_events(self, run_key: str, thread_key: str) -> Sequence[tuple[str, bytes]]:
        """The task ids and texts of a run's node events, in the order in which they became true."""
        query = "SELECT task_id, text FROM node_events WHERE thread_key = ? AND run_key = ? ORDER BY rowid"
        return await self._backend.read(lambda c: c.execute(query, (thread_key, run_key)).fetchall())

    async def delete_thread(self, thread_key: str) -> None:
        await self._backend.write(lambda c: delete_rows(c, thread_key))

    async def copy_thread(self, source_key: str, target_key: str) -> None:
        await self._backend.write(lambda c: copy_rows(c, source_key, target_key))

    async def aclose(self) -> None:
        await self._backend.aclose()


def delete_rows(connection: sqlite3.Connection, thread_key: str) -> None:
    for table in ("fences", "node_events"):
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

    def __init__(self, backend: Backend, owner: str, lease: Lease | None, journal: Journal | None) -> None:
        super().__init__()
        self._backend = backend
        self._owner = owner
        self._lease = lease
        self._journal = journal
        self._kept = SavedCheckpoints()
        self._loop = asyncio.get_running_loop()

    # -- reading ------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self._read(lambda saver: saver.get_tuple(self._inner(config)))
        return None if found is None else self._read_tuple(found)

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
        inner = self._inner(config)
        try:
            put = self._outer(await self._write(lambda saver: saver.put(inner, checkpoint, metadata, new_versions)))
        except BaseException:
            self._kept.break_off()
            raise
        self._kept.add(put)
        return put

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        inner, lease, journal = self._inner(config), self._lease, self._journal
        if lease is None or journal is None or not has_ended(writes):
            await self._write(lambda saver: saver.put_writes(inner, writes, task_id, task_path))
            return
        await self._kept.wait(inner)
        rows = [(lease.thread_key, lease.run_key, task_id, text) for text in journal.saving(task_id)]

        def save(saver: SqliteSaver) -> None:
            saver.put_writes(inner, writes, task_id, task_path)
            if rows:
                saver.conn.executemany("INSERT INTO node_events VALUES (?, ?, ?, ?)", rows)

        await self._write(save)
        journal.saved(task_id)

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
        return cast(RunnableConfig, self._from_thread(self.aput(config, checkpoint, metadata, new_versions)))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._from_thread(self.aput_writes(config, writes, task_id, task_path))

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        return self._from_thread(self.aget_delta_channel_history(config=config, channels=channels))

    def get_next_version(self, current: str | None, channel: None) -> str:
        return SqliteSaver.get_next_version(cast(SqliteSaver, self), current, channel)

    def _from_thread(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # -- below --------------------------------------------------------------------------------------------------

    async def _read(self, operation: Operation[T]) -> T:
        return await self._backend.read(lambda connection: operation(self._on(connection)))

    async def _write(self, operation: Operation[T]) -> T:
        lease = self._lease

        def fenced(connection: sqlite3.Connection) -> T:
            if lease is not None:
                pass_fence(connection, lease)
            return operation(self._on(connection))

        # cancelled between its start and its commit, a save would leave a step without its checkpoint (fact 26)
        return await asyncio.shield(self._backend.write(fenced))

    def _on(self, connection: sqlite3.Connection) -> PlainSaver:
        saver = PlainSaver(connection, serde=self.serde)
        saver.is_setup = True
        return saver

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

    `copy` forgets which types the state is made of (fact 25), so they go to the saver here and are set again.
    """
    types = graph._serde_allowlist
    attached = graph.copy(update={"checkpointer": saver.with_allowlist(types) if types else saver})
    attached._serde_allowlist = copy.copy(types)
    return attached
