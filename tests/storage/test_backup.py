"""Both databases of a data directory are seen at one moment, however fast they change."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.storage.backup import CHECKPOINTS_NAME, pinned
from app.storage.sqlite import FILE_NAME

MOMENTS = 15


COUNT = """
import sqlite3, sys
connections = [sqlite3.connect(path, timeout=30.0, isolation_level=None) for path in sys.argv[1:]]
for connection in connections:
    connection.execute("PRAGMA synchronous = OFF")
print("counting", flush=True)
while True:
    for connection in connections:
        connection.execute("UPDATE t SET n = n + 1")
"""


@contextmanager
def counting(data_dir: Path) -> Iterator[None]:
    """One after the other, the log and then the checkpoints come to 1, to 2, to 3, and so on, in another process."""
    paths = [data_dir / name for name in (FILE_NAME, CHECKPOINTS_NAME)]
    for path in paths:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (0)")
    process = subprocess.Popen([sys.executable, "-c", COUNT, *paths], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield
    process.kill()
    process.communicate()


@contextmanager
def crowded() -> Iterator[None]:
    """A thread that never rests makes a gap of some milliseconds between any two statements of another one."""
    stopped = threading.Event()

    def turn() -> None:
        while not stopped.is_set():
            pass

    thread = threading.Thread(target=turn)
    thread.start()
    yield
    stopped.set()
    thread.join()


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with counting(tmp_path), crowded():
        yield tmp_path


def test_what_is_pinned_is_one_moment(data_dir: Path) -> None:
    seen = set[int]()
    while len(seen) < MOMENTS:
        with pinned(data_dir) as sources:
            log, checkpoints = (
                sources[name].execute("SELECT n FROM t").fetchone()[0] for name in (FILE_NAME, CHECKPOINTS_NAME)
            )
            seen.add(log)
            assert log - checkpoints in (0, 1)
            assert sources[FILE_NAME].execute("SELECT n FROM t").fetchone() == (log,)  # and stays so
