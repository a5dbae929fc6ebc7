"""The fence of a thread's checkpoints: whoever writes after a later claim is refused, inside its transaction.

A lease is checked in the store's database, which the checkpoints are not in; the version of the thread that it has is
what the two share (docs/decisions/003-checkpoints.md).
"""

import sqlite3

from app.errors import LeaseLost
from app.runs.model import Lease


def pass_fence(connection: sqlite3.Connection, lease: Lease) -> None:
    """Raise LeaseLost when a later claim of the thread has written; otherwise keep earlier ones out from now on."""
    if move_fence(connection, lease.thread_key, lease.version) and not lease.is_new_thread:
        for table in ("node_events", "undo_places", "undo_writes"):
            stale = (lease.thread_key, lease.run_key)
            connection.execute(f"DELETE FROM {table} WHERE thread_key = ? AND run_key <> ?", stale)


def move_fence(connection: sqlite3.Connection, thread_key: str, version: int) -> bool:
    """Whether this version of the thread is the first one to write as late. Raises LeaseLost when a later one has."""
    row = connection.execute("SELECT version FROM fences WHERE thread_key = ?", (thread_key,)).fetchone()
    if row is not None and row[0] > version:
        raise LeaseLost(f"thread {thread_key}: claim {version} is older than {row[0]}")
    if row is not None and row[0] == version:
        return False
    connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?)", (thread_key, version))
    return True
