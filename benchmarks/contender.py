"""Who is measured, and its process: started on a core of its own, and looked at from outside."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.client import Query, post

CONFIGS: Final = Path(__file__).parent
ROOT: Final = CONFIGS.parent
START_SECONDS: Final = 60.0
LEAN: Final = "lean.json"  # graphs that import little
ALL: Final = "langgraph.json"
# those of the command: the client gives up all but one of them
CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

ContenderName = Literal["runstream", "bare loop", "saving loop", "langgraph dev"]


def on_core(number: int) -> Callable[[], None] | None:
    """What a process does before it begins: 0 is the contenders' core and 1 the client's, where there are two."""
    return (lambda: os.sched_setaffinity(0, {CORES[number]})) if len(CORES) > 1 else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A server, by the command that starts it; `ready_path` answers 200 once it serves.

    `query` makes the body of its own from that of the server here.
    """

    name: ContenderName
    command: Callable[[int, Path, str], list[str]]
    ready_path: str
    query: Callable[[Query], Query] = lambda query: query


def runstream(port: int, data_dir: Path, config: str) -> list[str]:
    serve = [sys.executable, "-m", "app", "serve", "--port", str(port), "--log-level", "warning"]
    return [*serve, "--config", str(CONFIGS / config), "--data-dir", str(data_dir)]


RUNSTREAM: Final = Contender(name="runstream", command=runstream, ready_path="/ready")


def module(name: str) -> Callable[[int, Path, str], list[str]]:
    return lambda port, data_dir, config: [sys.executable, "-m", name, str(port), str(CONFIGS / config)]


BARE_LOOP: Final = Contender(name="bare loop", command=module("benchmarks.bare"), ready_path="/openapi.json")
SAVING_LOOP: Final = Contender(name="saving loop", command=module("benchmarks.saving"), ready_path="/openapi.json")


def langgraph_dev(command: Path) -> Contender:
    """LangGraph's own server for development, by the path of the `langgraph` command."""
    serve = [str(command.absolute()), "dev", "--no-browser", "--no-reload"]
    return Contender(
        name="langgraph dev",
        command=lambda port, data_dir, config: [*serve, "--port", str(port), "--config", str(CONFIGS / config)],
        ready_path="/ok",
        query=lambda query: {
            "assistant_id": query["graph"],
            "input": {"messages": [{"role": "user", "content": query["message"]}]},
            "stream_mode": ["updates", "messages-tuple"],
        },
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A contender that serves. `start_*` is from the start of the process to the first 200."""

    contender: Contender
    port: int
    process: "subprocess.Popen[bytes]"
    start_seconds: float
    start_cpu_seconds: float

    @property
    def is_runstream(self) -> bool:
        return self.contender is RUNSTREAM

    def cpu_seconds(self) -> float:
        """What the process and its children have used, to the nanosecond: /proc/<pid>/stat counts in hundredths."""
        return sum(cpu_seconds(pid) for pid in (self.process.pid, *children(self.process.pid)))

    def private_bytes(self) -> int:
        """Memory of its own: what grows with what it holds."""
        return status_bytes(self.process.pid, "RssAnon")

    def resident_bytes(self) -> int:
        return status_bytes(self.process.pid, "VmRSS")

    def peak_bytes(self) -> int:
        return status_bytes(self.process.pid, "VmHWM")

    def post(self, query: Query, *, accept: str = "*/*") -> bytes:
        """A request that starts a run, as this contender understands it."""
        return post(self.contender.query(query), accept=accept)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python does not have


def children(pid: int) -> list[int]:
    found = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def status_bytes(pid: int, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


@contextmanager
def serving(contender: Contender, data_dir: Path, config: str = LEAN) -> Iterator[Server]:
    """The contender's process, with the graphs of a file here, until the end of the block, when it is gone."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    process = subprocess.Popen(
        contender.command(port, data_dir, config),
        cwd=data_dir,  # where nobody's .env is
        env=environment,
        preexec_fn=on_core(0),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(process, port, contender.ready_path)
        seconds = time.monotonic() - begun
        cpu = cpu_seconds(process.pid)
        yield Server(contender=contender, port=port, process=process, start_seconds=seconds, start_cpu_seconds=cpu)
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        finally:
            process.kill()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in connection.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.005)
    raise AssertionError("the server does not serve")


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is empty, and gone at the end."""
    path = Path(tempfile.mkdtemp(prefix="runstream-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
