"""Runs that wait, stop each other and undo each other on few threads, while the process is killed again and again."""

import json
import random
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from app.runs.executor import MAX_CRASHES
from tests.faults.nursery import IS_LONG
from tests.server import RunningServer, wait_until

CLIENTS: Final = 4
REQUESTS: Final = 60 if IS_LONG else 8  # of each client
KILLS: Final = 30 if IS_LONG else 4
THREADS: Final = ("t0", "t1", "t2")
STRATEGIES: Final = ("enqueue", "enqueue", "interrupt", "rollback")
ENDS: Final = frozenset({"complete", "cancelled", "error", "interrupt"})
BEGUN: Final = "SELECT supersedes FROM requests JOIN runs ON runs.number = run WHERE started_at IS NOT NULL"


@dataclass
class Scene:
    """A server that is killed whenever enough runs have been accepted since the last time."""

    data_dir: Path
    seed: int
    server: RunningServer | None = None
    accepted: dict[str, str] = field(default_factory=dict)  # threads by the ids of the runs on them
    restarted: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> RunningServer:
        with self.restarted:
            self.server = RunningServer(self.data_dir)
            self.restarted.notify_all()
        return self.server

    def play_client(self, number: int) -> None:
        chance = random.Random(1000 * self.seed + number)
        for _ in range(REQUESTS):
            run_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
            body = {
                "graph": "line",
                "thread_id": chance.choice(THREADS),
                "run_id": run_id,
                "input": {"name": run_id[:8]},
                "multitask_strategy": chance.choice(STRATEGIES),
                "on_disconnect": "continue",
            }
            self._send(body, stays=chance.random() < 0.5)

    def _send(self, body: dict[str, Any], *, stays: bool) -> None:
        """Repeat a request until its run is accepted; some clients stay to the end of the stream, or the process."""
        while True:
            server = self.server
            assert server is not None
            try:
                with server.client() as client, client.stream("POST", "/runs/stream", json=body) as answer:
                    assert answer.status_code == 200, answer.read()
                    self.accepted[body["run_id"]] = body["thread_id"]
                    if stays:
                        answer.read()
                    return
            except httpx.TransportError:
                if body["run_id"] in self.accepted:
                    return
                self._wait_for_another(server)

    def _wait_for_another(self, server: RunningServer) -> None:
        with self.restarted:
            self.restarted.wait_for(lambda: self.server is not server, timeout=60)

    def play_killer(self) -> None:
        for number in range(1, KILLS + 1):
            self._wait_for_runs(number * CLIENTS * REQUESTS // (KILLS + 1))
            assert self.server is not None
            self.server.kill()
            self.start()

    def _wait_for_runs(self, count: int) -> None:
        wait_until(lambda: len(self.accepted) >= count, f"{count} runs", seconds=120)


@contextmanager
def played(data_dir: Path, seed: int) -> Iterator[Scene]:
    scene = Scene(data_dir, seed)
    scene.start()
    try:
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            work = [pool.submit(scene.play_client, number) for number in range(CLIENTS)]
            for future in [pool.submit(scene.play_killer), *work]:
                future.result()
        yield scene
    finally:
        assert scene.server is not None
        scene.server.kill()


def rows_of(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {row["run_id"]: row for row in client.get("/runs", params={"limit": 1000}).json()["runs"]}


def undone(data_dir: Path) -> set[str]:
    """The runs that another one undid as it began."""
    with closing(sqlite3.connect(data_dir / "runstream.db")) as connection:
        keys = [key for (text,) in connection.execute(BEGUN) for key in json.loads(text)]
    return {key.rpartition("/")[2] for key in keys}


def whole(run_id: str) -> list[str]:
    return [f"{run_id[:8]} {did}" for did in ("began", "held", "ended")]


def check_log(events: Sequence[dict[str, Any]]) -> None:
    kinds = [event["event"] for event in events]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert kinds[0] == "start"
    assert [kind in ENDS for kind in kinds] == [False] * (len(kinds) - 1) + [True]
    nodes = Counter(event["node"] for event in events if event["event"] == "node")
    assert set(nodes.values()) <= {1}


def check_state(run_id: str, row: Mapping[str, Any], log: Sequence[str], *, is_undone: bool) -> None:
    """All of a run that came to its end, in one piece; of one that was stopped what it finished; else nothing."""
    mine = [entry for entry in log if entry.startswith(run_id[:8])]
    if is_undone:
        assert mine == []
    elif row["status"] == "success":
        place = log.index(whole(run_id)[0])
        assert mine == list(log[place : place + 3]) == whole(run_id)
    else:
        # the killer asks nobody: on a slow machine it may meet the same run three times
        is_lost = row["attempt"] > MAX_CRASHES and row["error"] is not None and row["error"]["code"] == "lost"
        assert row["status"] == "cancelled" or is_lost, f"{row}"
        assert mine == whole(run_id)[: len(mine)]


@pytest.mark.parametrize("seed", range(5 if IS_LONG else 1))
def test_whatever_is_killed_each_run_has_one_end_and_the_state_holds_what_it_says(seed: int, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with played(data_dir, seed) as scene:
        assert scene.server is not None
        with scene.server.client() as client:
            wait_until(lambda: all(row["finished_at"] for row in rows_of(client).values()), "all have ended", 120)
            rows, gone = rows_of(client), undone(data_dir)
            states = [client.get(f"/threads/{thread_id}/state").json() for thread_id in THREADS]
            logs = {thread: state["values"].get("log", []) for thread, state in zip(THREADS, states, strict=True)}
            assert rows.keys() == scene.accepted.keys()
            for run_id, thread_id in scene.accepted.items():
                check_log(client.get(f"/runs/{run_id}/events", params={"limit": 5000}).json()["events"])
                check_state(run_id, rows[run_id], logs[thread_id], is_undone=run_id in gone)
