"""LangGraph's own SQLite saver, in transactions of ours."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import NULL_TASK_ID, RESUME
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite import SqliteSaver

# writes of a task that failed or asks; its answers (`__resume__`) are among the writes of one that asked and then ended
UNFINISHED = frozenset({"__error__", "__error_source_node__", "__interrupt__", "__scheduled__"})
CONTROL = UNFINISHED | {"__resume__"}


class PlainSaver(SqliteSaver):
    """LangGraph's saver, in transactions of ours: it neither commits nor sets the tables up by itself."""

    @contextlib.contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        with contextlib.closing(self.conn.cursor()) as cursor:
            yield cursor


def has_ended(writes: Sequence[tuple[str, Any]]) -> bool:
    """Whether these are the writes of a task that came to its end: with an output, and no failure or question."""
    channels = {channel for channel, _ in writes}
    return bool(channels - CONTROL) and not channels & UNFINISHED


def put_writes(
    saver: SqliteSaver, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> None:
    """Save what a task wrote. When it took an answer that was meant for whoever asks next, that one is gone.

    LangGraph would keep it, and give it to the next question too once the checkpoint is read again (fact 19).
    """
    saver.put_writes(config, writes, task_id, task_path)
    if task_id != NULL_TASK_ID and any(channel == RESUME for channel, _ in writes):
        taken = (config["configurable"]["thread_id"], NULL_TASK_ID, RESUME)
        saver.conn.execute("DELETE FROM writes WHERE thread_id = ? AND task_id = ? AND channel = ?", taken)


class PlainSavers:
    """A saver for each connection and serializer, of which there are a few: to make one takes longer than to save."""

    def __init__(self) -> None:
        self._savers: dict[tuple[sqlite3.Connection, SerializerProtocol], PlainSaver] = {}

    def on(self, connection: sqlite3.Connection, serde: SerializerProtocol) -> PlainSaver:
        """For the thread that uses the connection."""
        saver = self._savers.get((connection, serde))
        if saver is None:
            saver = self._savers[connection, serde] = PlainSaver(connection, serde=serde)
            saver.is_setup = True
        return saver
