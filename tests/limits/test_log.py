"""What the log says about a run, and what it never says."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.log import JsonFormatter
from tests.limits.conftest import CONFIG
from tests.server import ROOT, RunningServer, run, running, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {"RUNSTREAM_LOG_FORMAT": "json"}
    with running(tmp_path_factory.mktemp("log") / "data", config=CONFIG, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def lines(server: RunningServer) -> list[dict[str, Any]]:
    """All that the process has written but where it listens: it must be JSON, uvicorn's lines too."""
    told = (line for line in server.log.splitlines() if not line.startswith("Runstream listens on"))
    return [json.loads(line) for line in told]


@pytest.mark.parametrize("graph", ["says_in_the_loop", "says_in_a_thread"])
def test_a_line_that_a_node_logs_has_the_ids_of_its_run(
    server: RunningServer, client: httpx.Client, graph: str
) -> None:
    (start, *_) = run(client, graph=graph, thread_id=f"thread-of-{graph}", input={"count": 1})

    wait_until(lambda: any(line["message"] == f"hello from {graph}" for line in lines(server)), "the line is there")
    (line,) = (line for line in lines(server) if line["message"] == f"hello from {graph}")
    assert {key: line[key] for key in ("run_id", "thread_id", "graph", "owner", "level")} == {
        "run_id": start["run_id"],
        "thread_id": f"thread-of-{graph}",
        "graph": graph,
        "owner": "",
        "level": "warning",
    }


def test_each_attempt_and_each_end_is_a_line(server: RunningServer, client: httpx.Client) -> None:
    (start, *_) = run(client, graph="says_in_the_loop", input={"count": 1})

    def told() -> list[str]:
        mine = (line for line in lines(server) if line.get("run_id") == start["run_id"] and line["level"] == "info")
        return [line["message"].removeprefix(f"run {start['run_id']}: ") for line in mine]

    expected = ["attempt 1 of graph says_in_the_loop", "ended as success"]
    wait_until(lambda: told() == expected, "both are there")


def test_a_failure_is_one_line_with_its_traceback_and_its_run(server: RunningServer, client: httpx.Client) -> None:
    frames = run(client, graph="breaks", input={"count": 1})

    (line,) = (line for line in lines(server) if line["level"] == "error" and "exception" in line)
    assert line["run_id"] == frames[-1]["run_id"]
    assert "ZeroDivisionError" in line["exception"]


def test_nothing_that_is_sent_to_a_graph_is_in_the_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = {"RUNSTREAM_LOG_LEVEL": "debug"}
    with running(tmp_path_factory.mktemp("debug") / "data", env=env) as server, server.client() as client:
        run(client, graph="talk", message="a secret of mine", metadata={"note": "another secret"})
        client.post("/runs/stream", json={"graph": "talk", "message": "a secret of mine", "mesage": "a third secret"})
    assert "secret" not in server.log


def test_a_line_of_a_run_says_so_as_text_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("text") / "data", config=CONFIG) as server, server.client() as client:
        (start, *_) = run(client, graph="says_in_a_thread", thread_id="t", input={"count": 1})
    (line,) = (line for line in server.log.splitlines() if "hello from" in line)
    assert line.endswith(f"[run={start['run_id']} thread=t graph=says_in_a_thread owner=]")


def test_a_line_is_one_line_of_ascii_whatever_is_in_it() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "a\nb \ud800 %s", ({"ü": 1},), None)
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb \ud800 {'ü': 1}"


def test_a_format_that_is_none_is_a_sentence() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "RUNSTREAM_LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert "RUNSTREAM_LOG_FORMAT" in refused.stderr
