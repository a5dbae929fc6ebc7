"""Threads in SQLite: operations on a connection, each inside a transaction of the caller."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from app.errors import ThreadNotFound
from app.runs.model import Thread, ThreadStatus
from app.runs.store import ThreadQuery
from app.storage import decide
from app.storage.clock import Clock
from app.storage.sqlite_row import Sql, thread_values, to_json, to_text, to_thread


class ThreadTable:
    """Threads, and the holds on them."""

    def __init__(self, sql: Sql, *, clock: Clock) -> None:
        self._sql = sql
        self._clock = clock

    def create(self, connection: sqlite3.Connection, thread: Thread) -> Thread | None:
        values = thread_values(thread)
        if connection.execute(self._sql["insert_thread"], values).rowcount != 1:
            return None
        return self.get(connection, thread.key)

    def get(self, connection: sqlite3.Connection, thread_key: str) -> Thread | None:
        row = connection.execute(f"{self._sql['select_thread']} WHERE key = ?", (thread_key,)).fetchone()
        return None if row is None else to_thread(row)

    def update(self, connection: sqlite3.Connection, thread_key: str, metadata: Mapping[str, Any]) -> Thread | None:
        thread = self.get(connection, thread_key)
        if thread is None:
            return None
        merged = to_json({**thread.metadata, **metadata})
        values = {"thread_key": thread_key, "metadata": merged, "now": self._now()}
        connection.execute(self._sql["update_thread"], values)
        return self.get(connection, thread_key)

    def hold(self, connection: sqlite3.Connection, thread_key: str, worker: str) -> Thread:
        thread_id = decide.thread_id_of(thread_key)
        row = connection.execute(self._sql["occupation"], {"thread_key": thread_key}).fetchone()
        thread = self.get(connection, thread_key)
        if row is None or thread is None:
            raise ThreadNotFound(thread_id)
        held_by, active_run_id = row
        decide.require_free(thread_id, held=held_by is not None, active_run_id=active_run_id)
        connection.execute(self._sql["hold"], {"thread_key": thread_key, "worker": worker})
        return thread

    def release(
        self,
        connection: sqlite3.Connection,
        thread_key: str,
        worker: str,
        status: ThreadStatus | None,
        graph: str | None,
    ) -> None:
        name = "release_unchanged" if status is None else "release_changed"
        values = {"thread_key": thread_key, "worker": worker, "status": status, "graph": graph, "now": self._now()}
        connection.execute(self._sql[name], values)

    def search(self, connection: sqlite3.Connection, query: ThreadQuery) -> Sequence[Thread]:
        where, values = _filter(query)
        way = "DESC" if query.descending else "ASC"
        order = f"ORDER BY {decide.sort_field(query)} {way}, number {way} LIMIT :limit OFFSET :offset"
        rows = connection.execute(f"{self._sql['select_thread']} {where} {order}", values).fetchall()
        return [to_thread(row) for row in rows]

    def count(self, connection: sqlite3.Connection, query: ThreadQuery) -> int:
        where, values = _filter(query)
        (number,) = connection.execute(f"{self._sql['count_threads']} {where}", values).fetchone()
        return int(number)

    def _now(self) -> str:
        return to_text(self._clock.now())


def add_functions(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL function that `search` and `count` filter metadata with."""
    connection.create_function("contains", 2, _contains, deterministic=True)


def _contains(metadata: str, wanted: str) -> bool:
    return decide.contains(orjson.loads(metadata), orjson.loads(wanted))


def _filter(query: ThreadQuery) -> tuple[str, dict[str, Any]]:
    conditions = ["owner = :owner"]
    values: dict[str, Any] = {"owner": query.owner, "limit": query.limit, "offset": query.offset}
    if query.ids is not None:
        # the unary plus keeps the owner's index out of it: the few keys lead straight to their rows
        conditions = ["+owner = :owner", "key IN (SELECT :owner || '/' || value FROM json_each(:ids))"]
        values["ids"] = to_json(list(query.ids))
    if query.status is not None:
        conditions.append("status = :status")
        values["status"] = query.status
    if query.metadata:
        conditions.append("contains(metadata, :metadata)")
        values["metadata"] = to_json(dict(query.metadata))
    return f"WHERE {' AND '.join(conditions)}", values
