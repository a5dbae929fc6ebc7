"""Names that the server is known by, and how often somebody may ask."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from websockets.sync.client import connect

from tests.api.test_ws import Client
from tests.raw_client import get
from tests.server import RunningServer, problem_of, running

NAMES = "runs.example, *.shop.example"
KEYS = {"ada": "key-of-ada", "bob": "key-of-bob"}
RATE = 5


def status(client: httpx.Client, host: str, path: str = "/runs") -> int:
    return client.get(path, headers={"Host": host}).status_code


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "app.localhost", "localhost.", "laptop:8000"]
)
def test_on_loopback_the_names_of_loopback_and_of_this_network_are_known(client: httpx.Client, host: str) -> None:
    assert status(client, host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "127.0.0.1.evil.example", "a b", ""]
)
def test_a_name_that_leads_here_is_not_served(client: httpx.Client, host: str) -> None:
    problem_of(client.get("/runs", headers={"Host": host}), 400, "host_not_allowed")
    assert status(client, host, "/") == 400
    assert status(client, host, "/health") == 200


def test_a_second_host_does_not_hide_behind_the_first(server: RunningServer) -> None:
    with get(server, "/runs", {"host": "evil.example"}) as exchange:
        assert exchange.read_all().status == 400


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with names, and a rate."""
    env = {
        "RUNSTREAM_ALLOWED_HOSTS": NAMES,
        "RUNSTREAM_RATE_LIMIT": f"{RATE}/hour",
        "RUNSTREAM_API_KEYS": ",".join(f"{owner}:{key}" for owner, key in KEYS.items()),
        "RUNSTREAM_METRICS_TOKEN": "for-prometheus",
    }
    with running(tmp_path_factory.mktemp("known") / "data", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def by_name(known: RunningServer) -> Iterator[httpx.Client]:
    with known.client(headers={"Host": "runs.example"}) as client:
        yield client


@pytest.mark.parametrize(("host", "code"), [
    ("runs.example", 200), ("runs.example:443", 200), ("eu.shop.example", 200), ("shop.example", 400),
    ("localhost", 400), ("xshop.example", 400), ("runs.example.evil.example", 400),
])  # fmt: skip
def test_names_that_are_set_are_known_and_no_others(by_name: httpx.Client, host: str, code: int) -> None:
    assert status(by_name, host, "/docs") == code


def limited(answer: httpx.Response) -> None:
    found = problem_of(answer, 429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert found["retry_after_seconds"] == int(answer.headers["retry-after"])


def test_an_owner_may_ask_so_often_and_uses_up_nobody_elses(known: RunningServer, by_name: httpx.Client) -> None:
    ada, bob = ({"X-Api-Key": key} for key in KEYS.values())
    codes = [by_name.get("/runs", headers=ada).status_code for _ in range(RATE)]
    assert codes == [200] * RATE
    limited(by_name.get("/runs", headers=ada))
    limited(by_name.post("/runs/stream", json={"graph": "steps"}, headers=ada))
    refused = [by_name.get("/runs", headers={"X-Api-Key": "wrong"}) for _ in range(RATE + 1)]
    assert [answer.status_code for answer in refused] == [401] * RATE + [429]
    limited(refused[-1])
    assert by_name.get("/health").status_code == by_name.get("/ready").status_code == 200

    url = f"ws://runs.example:{known.port}/ws"
    line = socket.create_connection(("127.0.0.1", known.port))
    with connect(url, sock=line, proxy=None, additional_headers=bob) as connection:
        ws = Client(connection)
        for _ in range(RATE - 1):
            ws.say("ping")
            assert ws.hear()["type"] == "pong"
        ws.say("start_run", graph="steps", input={})
        error = ws.hear()["payload"]
    assert (error["code"], error["retry_after_seconds"] > 0) == ("rate_limited", True)


def test_metrics_may_have_a_token_of_their_own(by_name: httpx.Client) -> None:
    assert by_name.get("/metrics", headers={"Authorization": "Bearer for-prometheus"}).status_code == 200
    for headers in ({}, {"X-Api-Key": KEYS["bob"]}, {"X-Api-Key": "for-prometheu"}):
        problem_of(by_name.get("/metrics", headers=headers), 401, "unauthorized")
    problem_of(by_name.get("/runs", headers={"Authorization": "Bearer for-prometheus"}), 429, "rate_limited")
