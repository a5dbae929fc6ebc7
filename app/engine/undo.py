"""Taking runs out of a thread's checkpoints, for `multitask_strategy: rollback`.

The checkpoints that a run made carry its id. What it wrote to a checkpoint that was there before (answers, the results
of tasks that waited there) replaces other writes, so those are put aside before the first one.
"""

import sqlite3
from collections.abc import Sequence

import orjson

from app.engine.inputs import RUN_ID_KEY

SCHEMA = """
CREATE TABLE IF NOT EXISTS undo_places (
    thread_key TEXT NOT NULL, run_key TEXT NOT NULL, checkpoint_ns TEXT NOT NULL, checkpoint_id TEXT NOT NULL,
    PRIMARY KEY (thread_key, run_key, checkpoint_ns, checkpoint_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undo_writes (
    thread_key TEXT NOT NULL, run_key TEXT NOT NULL, checkpoint_ns TEXT NOT NULL, checkpoint_id TEXT NOT NULL,
    task_id TEXT NOT NULL, idx INTEGER NOT NULL, channel TEXT NOT NULL, type TEXT, value BLOB
);
CREATE INDEX IF NOT EXISTS undo_writes_of_thread ON undo_writes (thread_key);
"""

COLUMNS = "checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value"


def keep_writes(
    connection: sqlite3.Connection, thread_key: str, run_key: str, checkpoint_ns: str, checkpoint_id: str
) -> None:
    """Put aside what is written at a checkpoint, once, before a run writes there."""
    place = (thread_key, run_key, checkpoint_ns, checkpoint_id)
    if connection.execute("INSERT OR IGNORE INTO undo_places VALUES (?, ?, ?, ?)", place).rowcount != 1:
        return
    connection.execute(
        f"INSERT INTO undo_writes SELECT thread_id, ?, {COLUMNS} FROM writes"
        " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
        (run_key, thread_key, checkpoint_ns, checkpoint_id),
    )


def undo_checkpoints(connection: sqlite3.Connection, thread_key: str, run_keys: Sequence[str]) -> None:
    """Delete the checkpoints of runs, and give those before them the writes back that they had."""
    run_ids = orjson.dumps([key.rpartition("/")[2] for key in run_keys]).decode()
    made = connection.execute(
        "SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ?"
        f" AND json_extract(CAST(metadata AS TEXT), '$.{RUN_ID_KEY}') IN (SELECT value FROM json_each(?))",
        (thread_key, run_ids),
    ).fetchall()
    for table in ("writes", "checkpoints"):
        where = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        connection.executemany(f"DELETE FROM {table} WHERE {where}", [(thread_key, *place) for place in made])
    for run_key in reversed(run_keys):
        restore(connection, thread_key, run_key)


def restore(connection: sqlite3.Connection, thread_key: str, run_key: str) -> None:
    run = (thread_key, run_key)
    places = connection.execute(
        "SELECT checkpoint_ns, checkpoint_id FROM undo_places JOIN checkpoints USING (checkpoint_ns, checkpoint_id)"
        " WHERE thread_id = thread_key AND thread_key = ? AND run_key = ?",
        run,
    ).fetchall()
    for place in places:
        where = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        connection.execute(f"DELETE FROM writes WHERE {where}", (thread_key, *place))
        connection.execute(
            f"INSERT INTO writes (thread_id, {COLUMNS}) SELECT thread_key, {COLUMNS} FROM undo_writes"
            " WHERE thread_key = ? AND run_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            (*run, *place),
        )
    for table in ("undo_places", "undo_writes"):
        connection.execute(f"DELETE FROM {table} WHERE thread_key = ? AND run_key = ?", run)
