"""`runstream serve --reload`: another server whenever a file of the project changes. For development.

```
this process ──▶ has the socket and everything imported, forks a server for each change, one after the other
             ──▶ forks a watcher once: a line in a pipe for each change
```

The socket stays open, so a client that comes back in between waits instead of being refused. A fork starts in a moment,
where a new interpreter takes seconds to import what a graph needs; the files of the project are imported by each server
itself. When Runstream's own files have changed, this process replaces itself, and keeps the socket.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import watchfiles

LISTENER: Final = "RUNSTREAM_RELOAD_LISTENER"  # the socket's number, for the process that this one replaces itself with
OWN_FILES: Final = Path(__file__).parent.resolve()
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Filter(watchfiles.DefaultFilter):
    """Python files, and those that are named."""

    def __init__(self, files: Sequence[Path], *, without: Path) -> None:
        self._files = {str(path.resolve()) for path in files}
        super().__init__(ignore_paths=[without.resolve()])

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        return path in self._files or (path.endswith(".py") and super().__call__(change, path))


class Reloader:
    """Runs `serve` in a process of its own until told to stop, and anew after each change in the directories."""

    def __init__(
        self,
        serve: Callable[[socket.socket], int],
        listener: socket.socket,
        *,
        directories: Sequence[Path],
        watch_filter: Filter,
        say: Callable[[str], None],
    ) -> None:
        self._serve = serve
        self._listener = listener
        self._directories = sorted({OWN_FILES, *(path.resolve() for path in directories)})
        self._filter = watch_filter
        self._say = say
        self._changes, self._changed = os.pipe()
        self._wakes, self._waking = socket.socketpair()
        self._stopping = False

    def run(self) -> int:
        """Return the exit code when this process was told to stop."""
        self._wakes.setblocking(False)
        self._waking.setblocking(False)
        signal.set_wakeup_fd(self._waking.fileno())
        for number in SIGNALS:
            signal.signal(number, self._stop)
        watcher = self._fork(self._watch)
        os.close(self._changed)
        server = self._fork(self._serve_here)
        while (changed := self._next_change()) is not None:
            self._say(f"Changed: {changed}")
            end(server)
            if Path(changed).is_relative_to(OWN_FILES):
                end(watcher)
                self._replace()
            server = self._fork(self._serve_here)
        end(server)
        end(watcher)
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _next_change(self) -> str | None:
        """A file that has changed, the whole of a burst as one; None when it is time to stop."""
        while not self._stopping:
            ready, _, _ = select.select([self._changes, self._wakes.fileno()], [], [])
            if self._wakes.fileno() in ready:
                self._wakes.recv(64)
            elif not (lines := os.read(self._changes, 65536).decode().splitlines()):
                return None  # nobody watches any more
            else:
                return next((line for line in lines if Path(line).is_relative_to(OWN_FILES)), lines[0])
        return None

    def _watch(self) -> int:
        for changes in watchfiles.watch(*self._directories, watch_filter=self._filter, raise_interrupt=False):
            os.write(self._changed, "".join(f"{path}\n" for _, path in sorted(changes)).encode())
        return 0

    def _serve_here(self) -> int:
        sys.dont_write_bytecode = True  # a file that changes twice in a second would be taken for the one it was
        return self._serve(self._listener)

    def _fork(self, work: Callable[[], int]) -> int:
        """Do the work in another process; its id."""
        # a signal that comes before the child has handlers of its own would be lost in those of the first process
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process = os.fork()
        if process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return process
        code = 1
        try:
            become_child()
            code = work()
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _replace(self) -> NoReturn:
        os.environ[LISTENER] = str(self._listener.fileno())
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)


def become_child() -> None:
    """End by a signal of the first process, or with it, and not by the terminal's, which goes to a whole group."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end(process: int) -> None:
    """Tell a process of ours to end, and wait until it has; it may have done so by itself."""
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)


def inherited() -> socket.socket | None:
    """The socket that the process before this one has left."""
    number = os.environ.pop(LISTENER, None)
    return None if number is None else socket.socket(fileno=int(number))
