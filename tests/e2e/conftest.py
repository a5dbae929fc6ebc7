"""One server and one origin of web pages for all clients; what a machine lacks is said out loud (machine.py)."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import machine
from tests.e2e.site import Site
from tests.server import RunningServer, running

NODE_SECONDS = 60

RunScript = Callable[..., Any]


@pytest.fixture(scope="session")
def curl() -> str:
    return machine.find_curl()


@pytest.fixture(scope="session")
def node_script() -> RunScript:
    """Runs a client of tests/e2e/node with its arguments and gives what it printed."""
    node, folder = machine.find_node(), machine.install_node_packages()

    def run_script(name: str, **arguments: Any) -> Any:
        command = [node, name, json.dumps(arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NODE_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run_script


@pytest.fixture(scope="package")
def allowed_site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="package")
def foreign_site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, allowed_site: Site) -> Iterator[RunningServer]:
    """Pages of `allowed_site` may call it. It beats so seldom that a busy machine's pauses show no heartbeat."""
    env = {"RUNSTREAM_CORS_ORIGINS": allowed_site.origin, "RUNSTREAM_HEARTBEAT_SECONDS": "30"}
    data_dir: Path = tmp_path_factory.mktemp("e2e") / "data"
    with running(data_dir, env=env) as server:
        yield server


@pytest.fixture(scope="package")
def beating_server(tmp_path_factory: pytest.TempPathFactory, allowed_site: Site) -> Iterator[RunningServer]:
    """The same with a heartbeat in each 0.2 s of silence."""
    env = {"RUNSTREAM_CORS_ORIGINS": allowed_site.origin, "RUNSTREAM_HEARTBEAT_SECONDS": "0.2"}
    data_dir: Path = tmp_path_factory.mktemp("e2e-beating") / "data"
    with running(data_dir, env=env) as server:
        yield server
