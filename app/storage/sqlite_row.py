"""Rows of the SQLite database, from and to the models, and the statements that are kept in files."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import orjson

from app.runs.model import Run, RunError, Thread

SCHEMA_VERSION: Final = 4

Sql = Mapping[str, str]

# columns whose value is not stored as it is in the model
_DECODE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "request": orjson.loads,
    "metadata": orjson.loads,
    "usage": orjson.loads,
    "stream_modes": lambda text: tuple(orjson.loads(text)),
    "supersedes": lambda text: tuple(orjson.loads(text)),
    "error": lambda text: RunError(**orjson.loads(text)),
    "created_at": datetime.fromisoformat,
    "updated_at": datetime.fromisoformat,
    "started_at": datetime.fromisoformat,
    "finished_at": datetime.fromisoformat,
    "expired": bool,
}
_THREAD_COLUMNS: Final = (
    "owner",
    "thread_id",
    "graph",
    "status",
    "metadata",
    "version",
    "created_at",
    "updated_at",
    "rest_status",
)
# fmt: off
_RUN_COLUMNS: Final = (
    "owner", "run_id", "thread_id", "graph", "status", "request", "fingerprint", "idempotency_key", "stream_modes",
    "metadata", "multitask_strategy", "on_disconnect", "epoch", "attempt", "crashes", "last_seq", "created_at",
    "started_at", "finished_at", "usage", "error", "checkpoint_id", "cancel_reason", "expired", "supersedes",
    "thread_status",
)
# fmt: on


def load_schema() -> str:
    return _read("schema.sql")


def load_sql() -> Sql:
    """The statements of `sql/query.sql` by their names."""
    return _named("query.sql")


def load_migrations(version: int) -> str:
    """The statements that make the newest schema of the one with this version."""
    migrations = _named("migrate.sql")
    return "\n".join(migrations[str(number)] for number in range(version + 1, SCHEMA_VERSION + 1))


def to_run(row: tuple[Any, ...]) -> Run:
    """A run from a row of `select_run`, whose first column is the run's number."""
    return Run(**_decoded(_RUN_COLUMNS, row[1:]))


def to_thread(row: tuple[Any, ...]) -> Thread:
    return Thread(**_decoded(_THREAD_COLUMNS, row))


def run_values(run: Run) -> dict[str, Any]:
    """The values of `insert_run` and `insert_request` that the model holds."""
    return {
        "key": run.key,
        "owner": run.owner,
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "thread_key": run.thread_key,
        "graph": run.graph,
        "status": run.status,
        "request": to_json(run.request),
        "fingerprint": run.fingerprint,
        "idempotency_key": run.idempotency_key,
        "stream_modes": to_json(run.stream_modes),
        "metadata": to_json(run.metadata),
        "multitask_strategy": run.multitask_strategy,
        "on_disconnect": run.on_disconnect,
        "epoch": run.epoch,
        "attempt": run.attempt,
        "last_seq": run.last_seq,
        "created_at": to_text(run.created_at),
        "started_at": None if run.started_at is None else to_text(run.started_at),
        "supersedes": to_json(run.supersedes),
        "thread_status": run.thread_status,
    }


def thread_values(thread: Thread) -> dict[str, Any]:
    return {
        "key": thread.key,
        "owner": thread.owner,
        "thread_id": thread.thread_id,
        "graph": thread.graph,
        "status": thread.status,
        "metadata": to_json(dict(thread.metadata)),
        "version": thread.version,
        "created_at": to_text(thread.created_at),
        "updated_at": to_text(thread.updated_at),
    }


def error_value(error: RunError | None) -> str | None:
    return None if error is None else to_json(asdict(error))


def to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def to_text(moment: datetime) -> str:
    """A time whose text sorts as the time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _decoded(columns: Sequence[str], row: tuple[Any, ...]) -> dict[str, Any]:
    return {
        column: value if value is None or column not in _DECODE else _DECODE[column](value)
        for column, value in zip(columns, row, strict=True)
    }


def _named(file: str) -> Sql:
    named = (part.partition("\n") for part in _read(file).split("-- name: ")[1:])
    return {name.strip(): re.sub(r"\s*--.*", "", text).strip() for name, _, text in named}


def _read(name: str) -> str:
    return (resources.files("app.storage") / "sql" / name).read_text(encoding="utf-8")
