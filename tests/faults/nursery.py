"""Where children come from: processes that have everything imported and fork for each job."""

import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from tests.faults.check import Outcome
from tests.faults.child import FAILED, Job, answer
from tests.faults.failpoint import Failpoint
from tests.faults.script import Script
from tests.faults.serve import Serving
from tests.forked import forking
from tests.server import wait_until

IS_LONG: Final = os.environ.get("RUNSTREAM_LONG_TESTS") == "1"
MOTHERS: Final = os.cpu_count() or 1 if IS_LONG else 1


class Mother:
    """Answers requests one after the other."""

    def __init__(self) -> None:
        context = forking()
        self._line, asked = context.Pipe()
        self._process = context.Process(target=answer, args=(asked,), daemon=True)
        self._process.start()
        asked.close()

    def ask(self, request: Mapping[str, Any]) -> int:
        self._line.send(request)
        return int(self._line.recv())

    def close(self) -> None:
        self._line.close()
        self._process.join()


class Served:
    """A server's process."""

    def __init__(self, mother: Mother, process_id: int, how: Serving) -> None:
        self._mother = mother
        self._code: int | None = None
        self.process_id = process_id
        self.how = how

    @property
    def output(self) -> str:
        return self.how.output.read_text() if self.how.output.exists() else ""

    @property
    def port(self) -> int:
        """0 until it listens."""
        found = re.search(r"listens on \S+:(\d+)$", self.output, re.MULTILINE)
        assert found or "Error" not in self.output, self.output
        return int(found[1]) if found else 0

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process_id, number)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code: minus the signal's number when that ended it."""
        if self._code is None:
            self.send(number)
        return self.reap()

    def reap(self) -> int:
        """The exit code, once it has ended by itself."""
        if self._code is None:
            self._code = self._mother.ask({"reap": self.process_id})
        return self._code


class Nursery:
    """Some mothers, each with a child at a time; may be asked from as many threads."""

    def __init__(self, mothers: int) -> None:
        self._all = [Mother() for _ in range(mothers)]
        self._free: SimpleQueue[Mother] = SimpleQueue()
        for mother in self._all:
            self._free.put(mother)

    def close(self) -> None:
        for mother in self._all:
            mother.close()

    def run(self, job: Job) -> int:
        """The exit code of a child; minus the signal's number when one ended it."""
        with self._mother() as mother:
            return mother.ask({"play": job})

    @contextmanager
    def serving(self, how: Serving, *, waits: bool = True) -> Iterator[Served]:
        """A server that listens (or will, if nobody waits); killed at the end, unless it has ended before."""
        with self._mother() as mother:
            served = Served(mother, mother.ask({"serve": how}), how)
            try:
                if waits:
                    wait_until(lambda: served.port, "the server listens")
                yield served
            finally:
                served.end(signal.SIGKILL)

    @contextmanager
    def _mother(self) -> Iterator[Mother]:
        mother = self._free.get()
        try:
            yield mother
        finally:
            self._free.put(mother)

    def play(self, script: Script, folder: Path, *failpoints: tuple[Failpoint, int]) -> Outcome:
        """Play a script to its end, by processes of which each has a failpoint, and a last one that has none.

        The number beside a failpoint is the act from which on its calls count.
        """
        folder.mkdir(parents=True)
        job = Job(folder=folder, process=0, script=script, failpoint=None, armed=0)
        crashes = 0
        traps: list[tuple[Failpoint | None, int]] = [*failpoints, (None, 0)]
        for process, (failpoint, armed) in enumerate(traps, 1):
            code = self.run(replace(job, process=process, failpoint=failpoint, armed=armed))
            log = (folder / f"log-{process}").read_text()
            assert code != FAILED, log
            if code == 0:
                break
            crashes += 1
        assert code == 0, f"still dying with {code}"
        return Outcome(folder=folder, script=script, crashes=crashes)


@contextmanager
def nursery(mothers: int = MOTHERS) -> Iterator[Nursery]:
    found = Nursery(mothers)
    try:
        yield found
    finally:
        found.close()
