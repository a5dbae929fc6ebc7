"""The states of threads, read and edited through their graphs."""

import logging
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.sqlite.utils import load_pending_writes, pending_writes_sql
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, Send, StateSnapshot, StateUpdate

from app.engine.checkpoints import Checkpoints, MemoryBackend, RunSaver, with_checkpoints
from app.engine.engine import GraphEngine
from app.engine.exposure import Exposure
from app.engine.fence import pass_fence
from app.engine.inputs import check_nodes, jumps
from app.engine.jsonable import jsonable
from app.engine.prune import Keep, has_deltas
from app.engine.state import (
    REFUSALS,
    Graph,
    checkpoint_json,
    edited_questions,
    interrupt_json,
    places_of,
    read_state,
    readable,
    snapshot_json,
    thread_config,
)
from app.errors import CheckpointNotFound, GraphNotFound, GraphUnavailable, Invalid
from app.runs.model import Lease, Thread, scoped
from app.runs.threads import Edit, Edited, Head, HistoryQuery, Place, Update

logger = logging.getLogger(__name__)

# how many checkpoints are read at once: a long history is neither in memory as a whole nor holds the loop up
HISTORY_PAGE: Final = 20

FILTER_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class GraphThreadStates:
    """See `app.runs.threads.ThreadStates`."""

    def __init__(self, engine: GraphEngine, checkpoints: Checkpoints) -> None:
        self._engine = engine
        self._checkpoints = checkpoints

    def graph_name(self, asked: str | None, thread: Thread | None) -> str:
        return self._engine.graph_name(asked, thread)

    async def heads(self, threads: Sequence[Thread]) -> Mapping[str, Head]:
        found: dict[str, Head] = {}
        ran = sorted((thread for thread in threads if thread.graph), key=graph_of)
        for name, group in groupby(ran, key=graph_of):
            try:
                async with self._engine.graph_of(ran[0].owner, name) as graph:
                    for thread in group:
                        found.update(await read_head(graph, thread, self._engine.exposure(name)))
            except (GraphNotFound, GraphUnavailable):
                continue  # a thread outlives its graph, and its row is still to be seen
        return found

    async def state(self, thread: Thread, at: Place, *, subgraphs: bool) -> Mapping[str, Any]:
        config = config_at(thread, at)
        if thread.graph is None:
            return snapshot_json(existing(nothing(config), at))
        if not shows_place(self._engine.exposure(thread.graph), at.ns):
            raise CheckpointNotFound(at.id or at.ns)
        async with self._engine.graph_of(thread.owner, thread.graph) as graph:
            snapshot = existing(await read_state(graph, config, subgraphs=subgraphs), at)
            return snapshot_json(snapshot, self._engine.exposure(thread.graph))

    async def history(self, thread: Thread, query: HistoryQuery) -> Sequence[Mapping[str, Any]]:
        check_filter(query.metadata)
        if thread.graph is None or not shows_place(self._engine.exposure(thread.graph), query.ns):
            return []
        config = thread_config(thread.thread_id, checkpoint_ns=query.ns)
        before = None if query.before is None else thread_config(thread.thread_id, query.before)
        found: list[Mapping[str, Any]] = []
        async with self._engine.graph_of(thread.owner, thread.graph) as graph:
            while len(found) < query.limit:
                size = min(HISTORY_PAGE, query.limit - len(found))
                states = readable(graph).aget_state_history(
                    config, filter=dict(query.metadata), before=before, limit=size
                )
                page = [snapshot async for snapshot in states]
                found.extend(snapshot_json(snapshot, self._engine.exposure(thread.graph)) for snapshot in page)
                if len(page) < size:
                    break
                before = page[-1].config
        return found

    async def edit(self, thread: Thread, graph: str, edit: Edit) -> Edited:
        config = config_at(thread, edit.at)
        async with self._engine.graph_of(thread.owner, graph) as compiled:
            if edit.at != Place():
                existing(await read_state(compiled, config), edit.at, is_required=True)
            check_jumps(compiled, edit)
            async with aclosing(Draft(compiled.checkpointer, thread)) as draft:
                made = await apply_updates(with_checkpoints(readable(compiled), draft), config, edit.supersteps)
                await draft.commit()
            snapshot = await read_state(compiled, thread_config(thread.thread_id))
            return Edited(
                checkpoint=checkpoint_json(made["configurable"]),
                is_open=bool(snapshot.next),
                is_asked=bool(await edited_questions(compiled, snapshot)),
            )

    async def delete(self, thread_key: str) -> None:
        await self._checkpoints.delete_thread(thread_key)

    async def has_surplus(self, thread: Thread, newest: int, in_use: Collection[str]) -> bool:
        if thread.graph is None:
            return False
        try:
            async with self._engine.graph_of(thread.owner, thread.graph) as graph:
                if has_deltas(graph):
                    return False
        except (GraphNotFound, GraphUnavailable):
            return False  # it can't be asked what it needs
        return await self._checkpoints.has_surplus(thread.key, Keep(newest=newest, in_use=in_use))

    async def prune(self, thread_key: str, newest: int, in_use: Collection[str]) -> None:
        await self._checkpoints.prune(thread_key, Keep(newest=newest, in_use=in_use))

    async def reclaim(self) -> bool:
        return await self._checkpoints.reclaim()

    async def copy(self, source_key: str, target_key: str) -> None:
        await self._checkpoints.copy_thread(source_key, target_key)


class Draft(RunSaver):
    """A saver that keeps what an edit writes in memory until `commit` puts all of it into one transaction.

    LangGraph saves the writes of an update before the reducers have taken them, and each of several supersteps by
    itself: refused half way, an edit would leave a state that nobody asked for, in which a node seems to have run.
    """

    def __init__(self, saved: object, thread: Thread) -> None:
        assert isinstance(saved, RunSaver)
        super().__init__(MemoryBackend(), thread.owner, None, None)
        self._saved = saved
        self._thread = thread

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        drafted = await super().aget_tuple(config)
        if drafted is not None:
            return drafted
        found = await self._saved.aget_tuple(config)
        if found is None:
            return None
        writes = await self._writes(found.config["configurable"])
        return found._replace(pending_writes=[*(found.pending_writes or ()), *writes])

    # the quick way of SQLite sees one database only
    aget_delta_channel_history = BaseCheckpointSaver.aget_delta_channel_history

    async def _writes(self, at: Mapping[str, Any]) -> Sequence[Any]:
        place = (scoped(self._owner, at["thread_id"]), at.get("checkpoint_ns", ""), at["checkpoint_id"])
        return await self._read(
            lambda saver: load_pending_writes(saver.conn.execute(pending_writes_sql(True), place), saver.serde)
        )

    async def commit(self) -> None:
        """Save everything, and keep what a stopped run's nodes may still write out of the thread from now on."""
        rows = {table: await self._backend.read(rows_of(table)) for table in ("checkpoints", "writes")}
        fence = Lease(
            run_key="",
            thread_key=self._thread.key,
            worker="",
            epoch=0,
            attempt=0,
            version=self._thread.version + 1,  # what the release of the hold makes it
        )

        def save(connection: sqlite3.Connection) -> None:
            pass_fence(connection, fence)
            for table, (columns, values) in rows.items():
                marks = ", ".join("?" for _ in columns)
                statement = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"
                connection.executemany(statement, values)

        await self._saved._backend.write(save)

    async def aclose(self) -> None:
        await self._backend.aclose()


def rows_of(table: str) -> Any:
    def read(connection: sqlite3.Connection) -> tuple[Sequence[str], Sequence[Any]]:
        cursor = connection.execute(f"SELECT * FROM {table}")
        return [column[0] for column in cursor.description], cursor.fetchall()

    return read


def graph_of(thread: Thread) -> str:
    return thread.graph or ""


def shows_place(exposure: Exposure, checkpoint_ns: str) -> bool:
    """Whether the state of the graph itself, or of a subgraph, may be seen."""
    return not checkpoint_ns or exposure.shows("", places_of(checkpoint_ns))


def config_at(thread: Thread, at: Place) -> RunnableConfig:
    config = thread_config(thread.thread_id, at.id, at.ns)
    if at.map:
        config["configurable"]["checkpoint_map"] = dict(at.map)
    return config


def nothing(config: RunnableConfig) -> StateSnapshot:
    """The state of a thread that never ran, as LangGraph gives it."""
    return StateSnapshot(
        values={}, next=(), config=config, metadata=None, created_at=None, parent_config=None, tasks=(), interrupts=()
    )


def existing(snapshot: StateSnapshot, at: Place, *, is_required: bool = False) -> StateSnapshot:
    """Raise CheckpointNotFound where LangGraph gives an empty state for a checkpoint that is not there."""
    if snapshot.created_at is None and (at.id is not None or is_required):
        raise CheckpointNotFound(at.id or at.ns)
    return snapshot


async def read_head(graph: Graph, thread: Thread, exposure: Exposure) -> dict[str, Head]:
    snapshot = await read_state(graph, thread_config(thread.thread_id))
    if snapshot.created_at is None:
        return {}
    asked = {task.id: [interrupt_json(i) for i in task.interrupts] for task in snapshot.tasks if task.interrupts}
    return {thread.thread_id: Head(values=jsonable(exposure.state(snapshot.values)), interrupts=asked)}


def check_filter(metadata: Mapping[str, Any]) -> None:
    """Raise Invalid for what the checkpoints' database can't look for."""
    for key, value in metadata.items():
        if not FILTER_KEY.fullmatch(key):
            raise Invalid("Here a key has letters, digits, _ and - only.", loc=("body", "metadata", key))
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Invalid("The number is too large.", loc=("body", "metadata", key))


async def apply_updates(graph: Graph, config: RunnableConfig, supersteps: Sequence[Sequence[Update]]) -> RunnableConfig:
    """The config of the checkpoint that was made. Raises Invalid for what the graph does not take."""
    try:
        return await graph.abulk_update_state(config, [[state_update(u) for u in step] for step in supersteps])
    except REFUSALS as error:
        logger.info("An edit of a state was refused", exc_info=error)
        raise refusal(error, supersteps) from error


def state_update(update: Update) -> StateUpdate:
    if update.command is None:
        return StateUpdate(update.values, update.as_node)
    goto = [node if arg is None else Send(node, arg) for node, arg in goto_of(update)]
    command: Any = Command(update=update.command.get("update"), goto=goto)
    return StateUpdate(command, update.as_node)


def goto_of(update: Update) -> Sequence[tuple[str, Any]]:
    return jumps((update.command or {}).get("goto") or [])


def check_jumps(graph: Graph, edit: Edit) -> None:
    """Raise Invalid for a jump to a node that is not there: LangGraph would find out when the thread runs again."""
    if not edit.at.ns:
        names = [node for step in edit.supersteps for update in step for node, _ in goto_of(update)]
        check_nodes(graph, names, ("body", "command", "goto"))


def refusal(error: Exception, supersteps: Sequence[Sequence[Update]]) -> Invalid:
    """A sentence of ours: what was raised may hold anything that is in the state."""
    names = {update.as_node for step in supersteps for update in step}
    text = str(error)
    if isinstance(error, InvalidUpdateError):
        if text.startswith(("Ambiguous update", "as_node is required")):
            return Invalid("Say which node the update is from, with as_node.", loc=("body", "as_node"))
        for name in names:
            if text in (f"Node {name} does not exist", f"Node {name} has no writers"):
                return Invalid(f"An update can't be from a node {name!r}.", loc=("body", "as_node"))
    return Invalid("The graph's state does not take this update.", loc=("body", "values"))
