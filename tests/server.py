"""A real server in a process of its own, on a free port, and readers of what it sends."""

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.forked import fork_server

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "tests" / "project" / "langgraph.json"
START_SECONDS = 60.0
LISTENS = re.compile(r"^Runstream listens on (\S+)$", re.MULTILINE)

Frame = dict[str, Any]


class RunningServer:
    """`runstream serve`, forked off a process that has imported everything (tests/forked.py).

    `trace` holds a line for each node that ran (tests/project).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        config: Path = PROJECT,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.trace_path = data_dir.with_suffix(".trace")
        self.trace_path.touch()
        self._output = data_dir.with_suffix(".output")
        self._output.touch()
        options = ["--port", "0", "--config", str(config), "--data-dir", str(data_dir), *arguments]
        trace = {"RUNSTREAM_TEST_TRACE": str(self.trace_path), "SCRIPTED_DELAY_SECONDS": "0"}
        self._begins_at = len(self._output.read_bytes())
        self.process = fork_server(options, {**os.environ, **trace, **(env or {})}, self._output)
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        wait_until(lambda: LISTENS.search(self.log) or not self.process.is_alive(), "it listens", START_SECONDS)
        found = LISTENS.search(self.log)
        assert found, f"the server does not listen:\n{self.log}"
        return found[1]

    @property
    def log(self) -> str:
        return self._output.read_bytes()[self._begins_at :].decode()

    @property
    def process_id(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def trace(self) -> list[str]:
        return self.trace_path.read_text().splitlines()

    def open_gate(self, name: str, level: int) -> None:
        """Let the graphs that wait at this gate (tests/project) go on, as far as `level`."""
        Path(f"{self.trace_path}.gate-{name}").write_bytes(b"+" * level)

    def client(self, **options: Any) -> httpx.Client:
        # plain HTTP: reading the machine's certificates for each client takes longer than most tests
        return httpx.Client(**{"base_url": self.url, "timeout": 30.0, "verify": False, **options})

    def stop(self) -> int:
        """SIGTERM, as an operator would; the exit code."""
        self.process.terminate()
        return self.ended()

    def kill(self) -> int:
        """SIGKILL: what a crash is."""
        self.process.kill()
        return self.ended()

    def ended(self, seconds: float = 90.0) -> int:
        """The exit code, once it has ended; minus the signal's number when one ended it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it does not end:\n{self.log}"
        return self.process.exitcode


@contextlib.contextmanager
def running(data_dir: Path, **options: Any) -> Iterator[RunningServer]:
    server = RunningServer(data_dir, **options)
    try:
        yield server
    finally:
        server.kill()


def frames_of(text: str) -> list[Frame]:
    """The frames of a plain stream: each block begins with `data: ` and holds one JSON object; pings are left out."""
    found = []
    for block in text.split("\n\n"):
        if not block or block == ": ping":
            continue
        assert block.startswith("data: "), block
        found.append(json.loads(block[len("data: ") :], parse_constant=refuse_constant))
    return found


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def run(client: httpx.Client, **body: Any) -> list[Frame]:
    """Start a run and read its stream to the end."""
    answer = client.post("/runs/stream", json=body)
    assert answer.status_code == 200, answer.text
    return frames_of(answer.text)


def events(frames: Sequence[Frame]) -> list[str]:
    return [frame["event"] for frame in frames]


def spoken(frames: Sequence[Frame]) -> dict[str, str]:
    """The text of each message, its tokens joined."""
    texts: dict[str, str] = {}
    for frame in frames:
        if frame["event"] == "token":
            texts[frame["data"]["id"]] = texts.get(frame["data"]["id"], "") + frame["data"]["content"]
    return texts


def wait_until(predicate: Callable[[], Any], description: str, seconds: float = 20.0) -> None:
    """Look again and again until the predicate holds; fail with the description when it does not in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not predicate():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {description}"
        pause.wait(0.02)


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, after a look at its form (RFC 9457)."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert all(isinstance(body[key], str) and body[key] for key in ("type", "title", "detail")), body
    return body
