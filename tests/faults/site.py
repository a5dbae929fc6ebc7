"""A data directory, and the servers that come and go on it."""

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.faults.nursery import Nursery, Served
from tests.faults.serve import PROJECT, Serving
from tests.server import Frame, frames_of, wait_until

ENV = {"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "0.3", "RUNSTREAM_STOP_SECONDS": "0.5"}


class Site:
    """Graphs of it that hold do so until `open_gate`."""

    def __init__(self, children: Nursery, folder: Path) -> None:
        self._children = children
        self._folder = folder
        self._processes = 0

    @contextmanager
    def served(self, env: Mapping[str, str] = ENV, *, config: Path = PROJECT, waits: bool = True) -> Iterator[Served]:
        self._processes += 1
        how = Serving(
            data_dir=self._folder / "data",
            trace=self._folder / "trace",
            output=self._folder / f"output-{self._processes}",
            process=self._processes,
            config=config,
            env={**ENV, **env},
        )
        with self._children.serving(how, waits=waits) as served:
            yield served

    def open_gate(self) -> None:
        (self._folder / "trace.gate").touch()

    def close_gate(self) -> None:
        (self._folder / "trace.gate").unlink()

    def trace(self) -> list[str]:
        path = self._folder / "trace"
        lines = path.read_text().splitlines() if path.exists() else []
        return [f"{line['node']} {line['what']}" for line in map(json.loads, lines)]

    def wait_for(self, line: str, count: int = 1) -> None:
        wait_until(lambda: self.trace().count(line) >= count, f"{count} times {line!r}")

    def ask_database(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._folder / "data" / "runstream.db")) as connection:
            return connection.execute(query, values).fetchall()

    def run_row(self, run_id: str) -> tuple[str, int, int]:
        """Its status, attempt and crashes."""
        ((status, attempt, crashes),) = self.ask_database(
            "SELECT status, attempt, crashes FROM runs WHERE run_id = ?", run_id
        )
        return status, attempt, crashes

    def thread_status(self, thread_id: str = "t") -> str:
        ((status,),) = self.ask_database("SELECT status FROM threads WHERE thread_id = ?", thread_id)
        return str(status)


def client(served: Served) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=30.0)


def start(served: Served, graph: str, **body: Any) -> str:
    """Start a run on which nobody looks on, and give its id."""
    run_id = str(uuid.uuid4())
    if not body.keys() & {"input", "resume", "command", "message"}:
        body["input"] = {"log": ["in"]}
    fields = {"graph": graph, "thread_id": "t", "run_id": run_id, "on_disconnect": "continue", **body}
    with client(served) as http, http.stream("POST", "/runs/stream", json=fields) as answer:
        assert answer.status_code == 200, answer.read()
        next(answer.iter_bytes())
    return run_id


def read(served: Served, run_id: str) -> list[Frame]:
    """All frames of a run, to its end."""
    with client(served) as http:
        answer = http.get(f"/runs/{run_id}/stream")
    assert answer.status_code == 200, answer.text
    return frames_of(answer.text)
