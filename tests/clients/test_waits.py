"""When a client comes back, and when it gives up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from runstream_client import Client, ConnectionLost, ProblemError, RetryPolicy
from runstream_client.reading import Attempts

from tests.clients.conftest import Node


@pytest.fixture(scope="module")
def in_node(node: Node, js_client: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node(Path(__file__).parent / "waits.mjs"))
    return found


def assert_doubles(waits: Sequence[float], longest: Sequence[float]) -> None:
    """Each wait is up to a half shorter than the longest one of its turn, at random."""
    assert len(waits) == len(longest)
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, longest, strict=True)), waits


def test_waits_double_up_to_the_longest_and_then_it_gives_up() -> None:
    attempts, cause = Attempts(RetryPolicy(retries=5, seconds=4, max_seconds=20)), httpx.ConnectError("no route")
    assert_doubles([attempts.pause(cause) for _ in range(5)], [4, 8, 16, 20, 20])
    with pytest.raises(ConnectionLost) as lost:
        attempts.pause(cause)
    assert lost.value.__cause__ is cause


def test_a_success_makes_the_waits_short_again() -> None:
    attempts = Attempts(RetryPolicy(retries=2, seconds=4))
    waits = [attempts.pause(None), attempts.pause(None)]
    attempts.succeeded()
    assert_doubles([*waits, attempts.pause(None)], [4, 8, 4])


def test_a_server_that_says_when_is_not_asked_before() -> None:
    attempts = Attempts(RetryPolicy(seconds=4))
    busy = ProblemError(503, "shutting_down", "Soon.", problem={}, retry_after_seconds=7)
    assert_doubles([attempts.pause(busy) - 7], [4])


@pytest.mark.parametrize(
    "problem",
    [
        ProblemError(503, "graph_unavailable", "Never.", retry_after_seconds=1),
        ProblemError(504, "timeout", "It took too long."),
        ProblemError(409, "thread_busy", "No."),
        ProblemError(500, "unknown", "Sorry."),
    ],
    ids=lambda problem: problem.code,
)
def test_what_will_not_change_is_not_tried_again(problem: ProblemError) -> None:
    with pytest.raises(ProblemError):
        Attempts(RetryPolicy()).pause(problem)


def test_headers_go_with_every_request_and_the_base_may_have_a_path() -> None:
    sent: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"values": {}})

    transport = httpx.MockTransport(respond)
    with Client("http://server.invalid/base/", headers={"X-Api-Key": "key"}, transport=transport) as client:
        client.state("a b/c")
    [request] = sent
    assert request.url == "http://server.invalid/base/threads/a%20b%2Fc/state"
    assert request.headers["x-api-key"] == "key"


def test_typescript_waits_in_the_same_way(in_node: dict[str, Any]) -> None:
    lost = in_node["lost"]
    assert [failures for failures, _ in lost["waits"]] == [1, 2, 3, 4, 5]
    assert_doubles([wait for _, wait in lost["waits"]], [4, 8, 16, 20, 20])
    assert (lost["name"], lost["cause"]) == ("ConnectionLostError", "no route")
    first, second = in_node["asked"]["waits"]
    assert_doubles([first - 200, second], [8, 16])


def test_typescript_sends_the_same_start_again_with_headers_that_are_asked_for_each_time(
    in_node: dict[str, Any],
) -> None:
    sent = in_node["asked"]["sent"]
    [(url, method, run_id)] = {(url, method, run_id) for url, method, _, run_id in sent}
    assert (url, method) == ("http://server.invalid/base/runs/invoke", "POST")
    assert len(run_id) == 36
    assert [authorization for _, _, authorization, _ in sent] == ["token 1", "token 2", "token 3"]


def test_typescript_begins_to_count_again_after_each_success(in_node: dict[str, Any]) -> None:
    dropped = in_node["dropped"]
    assert dropped["seen"] == ["start", "node", "node", "node", "complete"]
    assert [cursor and cursor.rpartition(".")[2] for cursor in dropped["cursors"]] == [None, "1", "2", "3", "4"]


def test_typescript_is_aborted_while_it_waits_and_before_it_begins(in_node: dict[str, Any]) -> None:
    assert in_node["aborted"] == {"waiting": "AbortError", "before": "AbortError", "requests": 1}
