"""The exclusive lock on a data directory: one process a directory, and a sentence for the second one."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from app.errors import ConfigInvalid

LOCK_NAME: Final = "lock"


class DirectoryLock:
    """Held from `take` to `release`, or until the process is gone, however it went: the operating system drops it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, data_dir: Path) -> Self:
        """Make the directory if it is missing, and lock it. Raises ConfigInvalid when that can't be done."""
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigInvalid(f"The data directory {data_dir} can't be used: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigInvalid(
                f"The data directory {data_dir} is held by process {holder}: stop it, or choose another directory."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return cls(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
