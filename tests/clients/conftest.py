"""One server, one site of web pages, and the build of clients/js; the Python client is imported from its folder."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients.site import ROOT, Site
from tests.clients.stage import Play, Result
from tests.e2e import machine
from tests.server import RunningServer, running

JS_DIR = ROOT / "clients" / "js"
TSC = JS_DIR / "node_modules" / "typescript" / "bin" / "tsc"
NODE_SECONDS = 60

# as a careful project compiles that uses the client
STRICT = ("--strict", "--target", "ES2022", "--module", "ES2022", "--moduleResolution", "bundler")

Node = Callable[..., str]


@pytest.fixture(scope="package")
def node() -> Node:
    """Runs Node with arguments, and gives what it printed."""
    executable = machine.find_node()

    def run(*arguments: str | Path, cwd: Path = JS_DIR) -> str:
        command: Sequence[str | Path] = [executable, *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=NODE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="package")
def js_client(node: Node) -> Path:
    """The folder of the built client."""
    machine.install_node_packages(JS_DIR)
    built = JS_DIR / "dist" / "runstream.js"
    with machine.alone(JS_DIR / "tsconfig.json") as settings:
        newest = max(path.stat().st_mtime for path in (JS_DIR / "runstream.ts", settings))
        if not built.exists() or built.stat().st_mtime < newest:
            node(TSC)
    return built.parent


@pytest.fixture(scope="package")
def play_in_node(js_client: Path) -> Iterator[Play]:
    """Plays scenarios in one Node process."""
    command: Sequence[str | Path] = [machine.find_node(), Path(__file__).parent / "node_player.mjs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as player:
        assert player.stdin is not None
        assert player.stdout is not None
        lines_in, lines_out = player.stdin, player.stdout

        def play(url: str, options: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[Result]:
            print(json.dumps({"url": url, "options": options, "steps": steps}), file=lines_in, flush=True)
            stopper = threading.Timer(NODE_SECONDS, player.kill)
            stopper.start()
            outcome = json.loads(lines_out.readline() or '{"failed": "Node has ended."}')
            stopper.cancel()
            assert "failed" not in outcome, outcome["failed"]
            results: list[Result] = outcome["results"]
            return results

        yield play
        lines_in.close()


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[RunningServer]:
    """Pages of the site may call it. A run whose reader has left is soon cancelled, and silence is soon filled."""
    env = {
        "RUNSTREAM_CORS_ORIGINS": site.origin,
        "RUNSTREAM_HEARTBEAT_SECONDS": "0.25",
        "RUNSTREAM_DISCONNECT_GRACE_SECONDS": "1",
    }
    data_dir: Path = tmp_path_factory.mktemp("clients") / "data"
    with running(data_dir, env=env) as server:
        yield server


@pytest.fixture(scope="package")
def example_server(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[RunningServer]:
    """What `make run` serves; its model speaks slowly enough to be interrupted."""
    env = {"RUNSTREAM_CORS_ORIGINS": site.origin, "SCRIPTED_DELAY_SECONDS": "0.02"}
    data_dir: Path = tmp_path_factory.mktemp("examples") / "data"
    with running(data_dir, env=env, config=ROOT / "langgraph.json") as server:
        yield server
