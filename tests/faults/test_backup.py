"""A backup that is made while runs are at work is what a crash at that moment would have left."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.cli import main
from tests.faults.check import Record, check_log, check_nodes, read_runs
from tests.faults.nursery import Nursery, Served
from tests.faults.site import Site, client, start
from tests.server import wait_until

GRAPHS = ("linear", "parallel", "below", "fan", "family", "ask_both", "flaky")
STARTERS = 4
BACKUPS = 5


class Load:
    """Runs that begin one after the other, on new threads, until it is stopped; each thread has two of them."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stopped = threading.Event()
        self.started = 0

    def go_on(self, number: int) -> None:
        turn = 0
        while not self._stopped.is_set():
            graph, thread_id = GRAPHS[turn % len(GRAPHS)], f"t{number}-{turn // len(GRAPHS)}-{turn % len(GRAPHS)}"
            for strategy in ("reject", "enqueue"):
                start(self._served, graph, thread_id=thread_id, multitask_strategy=strategy, on_interrupted="discard")
            self.started += 1
            turn += 1

    @contextmanager
    def going_on(self) -> Iterator[None]:
        with ThreadPoolExecutor(STARTERS) as pool:
            going = [pool.submit(self.go_on, number) for number in range(STARTERS)]
            try:
                yield
            finally:
                self._stopped.set()
        for work in going:
            work.result()


def records(data_dir: Path) -> dict[str, Record]:
    with closing(sqlite3.connect(data_dir / "runstream.db")) as connection:
        threads = [thread_id for (thread_id,) in connection.execute("SELECT thread_id FROM threads")]
    of_threads = [read_runs(data_dir / "runstream.db", thread_id) for thread_id in threads]
    return {run_id: record for found in of_threads for run_id, record in found.items()}


def active(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "runstream.db")) as connection:
        query = "SELECT count(*) FROM runs WHERE status IN ('pending', 'running')"
        return int(connection.execute(query).fetchone()[0])


def finish(served: Served) -> None:
    def is_idle() -> bool:
        with client(served) as http:
            return not any(http.get("/runs", params={"status": s}).json()["runs"] for s in ("pending", "running"))

    wait_until(is_idle, "all runs have ended", 60.0)


def ended_tasks(record: Record) -> set[str]:
    return {frame["task_id"] for frame in record.frames if frame["event"] == "node"}


def ran(trace: Path) -> Mapping[str, set[str]]:
    """The tasks that ran, by their runs."""
    found: dict[str, set[str]] = {}
    for line in map(json.loads, trace.read_text().splitlines() if trace.exists() else ()):
        found.setdefault(line["run_id"], set()).add(line["task_id"])
    return found


def check_restored(backup: Mapping[str, Record], folder: Path, original: Mapping[str, Record]) -> None:
    restored, tasks = records(folder / "data"), ran(folder / "trace")
    assert restored.keys() == backup.keys()
    for run_id, record in restored.items():
        had = backup[run_id].texts
        assert record.texts[: len(had)] == had == original[run_id].texts[: len(had)]
        check_log(record)
        check_nodes(record.frames)
        assert record.frames[-1]["event"] in ("complete", "interrupt")
        again = ended_tasks(backup[run_id]) & tasks.get(run_id, set())
        assert not again, f"ran again although their events were in the backup: {again}"


def test_backups_of_a_working_server_all_go_on_from_where_they_were(children: Nursery, tmp_path: Path) -> None:
    site = Site(children, tmp_path)
    with site.served() as served:
        load = Load(served)
        with load.going_on():
            for number in range(BACKUPS):
                enough = load.started + 2 * STARTERS
                wait_until(lambda enough=enough: load.started >= enough, "runs begin", 60.0)  # type: ignore[misc]
                assert main(["backup", "--data-dir", str(tmp_path / "data"), str(tmp_path / f"backup-{number}")]) == 0
        finish(served)
    original, at_work = records(tmp_path / "data"), 0
    for number in range(BACKUPS):
        kept, folder = tmp_path / f"backup-{number}", tmp_path / f"restored-{number}"
        at_work += active(kept)
        shutil.copytree(kept, folder / "data")
        with Site(children, folder).served() as served:
            finish(served)
        check_restored(records(kept), folder, original)
    assert at_work, "no backup was made while a run was at work"


def test_a_backup_of_a_stopped_server_is_the_same(children: Nursery, tmp_path: Path) -> None:
    site = Site(children, tmp_path)
    with site.served() as served:
        start(served, "linear")
        finish(served)
    assert main(["backup", "--data-dir", str(tmp_path / "data"), str(tmp_path / "deep" / "backup")]) == 0
    assert {path.name for path in (tmp_path / "deep" / "backup").iterdir()} == {"runstream.db", "checkpoints.sqlite"}
    assert records(tmp_path / "deep" / "backup") == records(tmp_path / "data")


@pytest.mark.parametrize("what", ["no data", "a target with files", "a target that is a file", "memory"])
def test_what_can_not_be_copied_is_a_sentence(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, target = tmp_path / "data", tmp_path / "target"
    data.mkdir()
    if what != "no data":
        for name in ("runstream.db", "checkpoints.sqlite"):
            sqlite3.connect(data / name).close()
    match what:
        case "a target with files":
            target.mkdir()
            (target / "precious").touch()
        case "a target that is a file":
            target.write_text("precious")
        case "memory":
            monkeypatch.setenv("RUNSTREAM_DATABASE_URL", "memory:")
    before = sorted(tmp_path.rglob("*"))
    assert main(["backup", "--data-dir", str(data), str(target)]) == 1
    assert capsys.readouterr().err.strip().endswith(".")
    assert sorted(tmp_path.rglob("*")) == before
