"""A copy of a data directory at one moment, while its process works.

The log and the checkpoints are two databases, and a run's place is in both. With a log that is ahead, nodes whose
events are in it would run again; with checkpoints that are a whole run ahead, whoever takes the run up would be fenced
off. So both are pinned while nobody can write to the log, for about a millisecond: what is copied is what a crash at
that moment would have left, and recovery knows how to go on from there.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from app.errors import ConfigInvalid
from app.storage.sqlite import FILE_NAME

CHECKPOINTS_NAME: Final = "checkpoints.sqlite"
BUSY_SECONDS: Final = 30.0  # how long a turn between two commits is waited for


def back_up(data_dir: Path, target: Path) -> None:
    """Make the directory `target`, which must be new or empty, a data directory with all that is in `data_dir` now.

    Needs no lock: the process that holds the directory goes on. The target is there when it is whole and on the disk.
    Raises ConfigInvalid, with a sentence.
    """
    if not (data_dir / FILE_NAME).is_file() or not (data_dir / CHECKPOINTS_NAME).is_file():
        raise ConfigInvalid(f"The data directory {data_dir} holds no data.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigInvalid(f"{target} exists already: choose a directory that is new or empty.")
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with pinned(data_dir) as sources:
            for name, source in sources.items():
                copy(source, unfinished / name)
        sync(unfinished)
        unfinished.replace(target)
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ConfigInvalid(f"The backup {target} can't be made: {error}.") from error


@contextmanager
def pinned(data_dir: Path) -> Iterator[Mapping[str, sqlite3.Connection]]:
    """Connections to both databases, by the names of the files, that see one moment of them until they are closed."""
    log, checkpoints = data_dir / FILE_NAME, data_dir / CHECKPOINTS_NAME
    with closing(connect(log)) as guard, closing(connect(log)) as first, closing(connect(checkpoints)) as second:
        guard.execute("BEGIN IMMEDIATE")  # nobody else appends, claims or ends a run as long as this lasts
        try:
            for connection in (first, second):
                connection.execute("BEGIN")  # the moment is that of the first look
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            guard.execute("ROLLBACK")
        yield {FILE_NAME: first, CHECKPOINTS_NAME: second}


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def copy(source: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target:
        source.backup(target)
    sync(path)


def sync(path: Path) -> None:
    """Return when the file, or the names in the directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
