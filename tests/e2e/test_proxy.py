"""The settings of docs/deployment.md for nginx and Caddy, as they stand there, in front of a real server."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.docs.document import blocks
from tests.e2e import machine
from tests.raw_client import RawExchange, data_of, frames_of, new_gate
from tests.server import ROOT, RunningServer, running, wait_until

DEPLOYMENT = ROOT / "docs" / "deployment.md"
EVENTSOURCE = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
PIECES = 6
PATIENCE_SECONDS = 4  # of nginx
HEARTBEATS_A_SECOND = 5


def documented(language: str) -> str:
    (block,) = blocks(DEPLOYMENT, language)
    return block.text


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, f"the page does not say {old!r} once"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    """With gzip on for everything else, and a few seconds instead of sixty: what is silent for longer is cut."""
    server = replaced(
        documented("nginx"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
        ("proxy_read_timeout 60s;", f"proxy_read_timeout {PATIENCE_SECONDS}s;"),
    )
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; gzip on; gzip_types *; gzip_min_length 1; client_body_temp_path {folder}/body;\n"
        f"{paths}{server}}}\n"
    )
    return [machine.find_proxy("nginx"), "-p", str(folder), "-c", str(config)]


def caddy(folder: Path, port: int, upstream: int) -> list[str]:
    site = replaced(
        documented("caddy"), ("example.com", f"http://127.0.0.1:{port}"), ("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    )
    config = folder / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    return [machine.find_proxy("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]


COMMANDS = {"nginx": nginx, "caddy": caddy}


@dataclass(frozen=True)
class Proxied:
    """A server, and the port of the proxy in front of it."""

    server: RunningServer
    port: int

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, verify=False)


@contextlib.contextmanager
def proxy(name: str, folder: Path, upstream: int) -> Iterator[int]:
    port = free_port()
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(COMMANDS[name](folder, port, upstream), env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, f"{name} listens")
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def proxied(name: str, folder: Path) -> Iterator[Proxied]:
    env = {"RUNSTREAM_HEARTBEAT_SECONDS": str(1 / HEARTBEATS_A_SECOND)}
    with running(folder / "data", env=env) as server, proxy(name, folder, server.port) as port:
        yield Proxied(server=server, port=port)


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def site(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(name, tmp_path_factory.mktemp(name)) as site:
        yield site


def gated(site: Proxied) -> tuple[str, RawExchange]:
    gate = new_gate(site.server)
    body = {"graph": "gated", "input": {"gate": gate}}
    return gate, RawExchange(site.port, "POST", "/runs/stream", json_body=body, headers=EVENTSOURCE)


def test_each_frame_comes_through_at_once_and_uncompressed(site: Proxied) -> None:
    gate, exchange = gated(site)
    with exchange:
        exchange.read_frames(1)
        assert "content-encoding" not in exchange.headers
        assert exchange.headers["content-type"].startswith("text/event-stream")
        for piece in range(PIECES):
            # the node goes on only after its last word was read here: whoever collects frames stands still
            site.server.open_gate(gate, piece + 1)
            exchange.read_frames(piece + 2)
        exchange.read_all()
    assert exchange.is_ended
    frames = [data_of(frame) for frame in frames_of(exchange.body)]
    assert [frame["event"] for frame in frames] == ["start", *["custom"] * PIECES, "node", "complete"]


def test_heartbeats_keep_a_silent_stream_open_for_longer_than_the_proxy_waits(site: Proxied) -> None:
    gate, exchange = gated(site)
    with exchange:
        exchange.read_until(lambda body: body.count(b": ping") > PATIENCE_SECONDS * HEARTBEATS_A_SECOND * 1.2)
        assert not exchange.is_dropped
        site.server.open_gate(gate, PIECES)
        exchange.read_all()
    assert exchange.is_ended


def test_other_answers_are_what_they_are_without_a_proxy(site: Proxied) -> None:
    with site.client() as through, site.server.client() as direct:
        assert through.get("/graphs").json() == direct.get("/graphs").json()
        answer = through.post("/runs/invoke", json={"graph": "steps", "input": {"log": []}})
        assert answer.json()["status"] == "success"


def test_nginx_refuses_a_body_that_is_too_large_itself(name: str, site: Proxied) -> None:
    if name == "nginx":
        with site.client() as client:
            assert client.post("/runs/stream", json={"message": "x" * 1_100_000}).status_code == 413


def test_a_socket_comes_through(site: Proxied) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/ws") as connection:
        connection.send(json.dumps({"type": "ping", "payload": {}}))
        assert json.loads(connection.recv(timeout=20))["type"] == "pong"


def test_a_client_that_leaves_is_seen_to_leave(site: Proxied) -> None:
    _, exchange = gated(site)
    with exchange, site.server.client() as direct:
        exchange.read_frames(1)
        exchange.cut("FIN")
        wait_until(lambda: "runstream_open_streams 0.0" in direct.get("/metrics").text, "the server knows that it left")


def test_a_stream_that_is_broken_off_has_no_end_and_is_a_drop_behind_nginx(name: str, tmp_path: Path) -> None:
    with proxied(name, tmp_path) as site:
        _, exchange = gated(site)
        with exchange:
            exchange.read_frames(1)
            site.server.stop()
            exchange.read_all()
    assert data_of(frames_of(exchange.body)[-1])["event"] == "start"
    if name == "nginx":  # Caddy up to 2.6 sends the closing chunk all the same, as the page says
        assert exchange.is_dropped
