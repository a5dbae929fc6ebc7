"""A real server in a process of its own, on a free port, and readers of what it sends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "tests" / "project" / "langgraph.json"
START_SECONDS = 30.0

Frame = dict[str, Any]


class RunningServer:
    """`runstream serve` as a user would start it. `trace` holds a line for each node that ran (tests/project)."""

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
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--config", str(config)]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "RUNSTREAM_TEST_TRACE": str(self.trace_path),
                "SCRIPTED_DELAY_SECONDS": "0",
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(START_SECONDS) or not self.url:
            self.kill()
            raise AssertionError("the server does not listen:\n" + "".join(self.output))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("Runstream listens on "):
                self.url = line.split()[-1]
                self._listening.set()
        self._listening.set()

    @property
    def log(self) -> str:
        return "".join(self.output)

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
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> int:
        """SIGKILL: what a crash is."""
        if self.process.poll() is None:
            self.process.kill()
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(timeout=90)
        self._reader.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


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
