"""Alive, ready, measured; and what keeps a process from starting (wire contract, sections 6 and 8)."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.raw_client import RawExchange, gauge, new_gate
from tests.server import PROJECT, ROOT, RunningServer, running, wait_until


def serve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`runstream serve` that is expected to end by itself."""
    command = [sys.executable, "-m", "app", "serve", "--config", str(PROJECT), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_that_answers_is_alive(client: httpx.Client) -> None:
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_ready_process_says_so_and_names_the_graphs_that_cannot_be_served(client: httpx.Client) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert list(answer.json()["graphs"]) == ["broken"]
    assert "missing.py" in answer.json()["graphs"]["broken"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/"])
def test_a_monitor_may_ask_for_the_head_alone(client: httpx.Client, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == client.get(path).headers["content-type"]


def test_metrics_are_in_the_text_format_and_count_runs_and_streams(server: RunningServer, client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    wait_until(lambda: gauge(client, "runstream_active_runs") == 0, "nothing runs")
    gate = new_gate(server)
    body = {"graph": "gated", "input": {"gate": gate}}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
        exchange.read_frames(1)
        assert gauge(client, "runstream_active_runs") == 1
        assert gauge(client, "runstream_open_streams") == 1
        server.open_gate(gate, 6)
        exchange.read_all()
    wait_until(lambda: gauge(client, "runstream_active_runs") == 0, "the run is over")
    wait_until(lambda: gauge(client, "runstream_open_streams") == 0, "the stream is closed")


def test_a_second_process_on_a_data_directory_is_refused_with_a_sentence_until_the_first_has_stopped(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as server:
        second = serve("--port", "0", "--data-dir", str(data_dir))
        assert second.returncode == 1
        assert str(data_dir) in second.stderr
        assert "Traceback" not in second.stderr
        with server.client() as client:
            assert client.get("/health").status_code == 200
        assert server.stop() == 0
        assert "Traceback" not in server.log
    with running(data_dir) as server, server.client() as client:
        assert client.get("/ready").status_code == 200


def test_a_port_that_is_taken_is_a_sentence_that_names_it_and_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = serve("--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert refused.stderr.strip().count("\n") == 0
    assert str(port) in refused.stderr
    assert "--port" in refused.stderr


def test_a_configuration_that_is_missing_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    missing = tmp_path / "langgraph.json"
    refused = serve("--config", str(missing), "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert str(missing) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_setting_that_makes_no_sense_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    refused = serve("--port", "0", "--data-dir", str(tmp_path / "data"), RUNSTREAM_HEARTBEAT_SECONDS="often")
    assert refused.returncode == 1
    assert "RUNSTREAM_HEARTBEAT_SECONDS" in refused.stderr
    assert "Traceback" not in refused.stderr
