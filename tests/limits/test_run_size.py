"""A run that says more than it may, or more than the disk takes (docs/decisions/008-limits.md)."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.limits.conftest import CONFIG, resident_bytes
from tests.server import Frame, RunningServer, events, run, running

MAX_EVENTS = 2_000
MAX_BYTES = 4_000_000
FLOODS = ("sync_flood", "async_flood", "drips")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {"RUNSTREAM_MAX_RUN_EVENTS": str(MAX_EVENTS), "RUNSTREAM_MAX_RUN_BYTES": str(MAX_BYTES)}
    with running(tmp_path_factory.mktemp("limits") / "data", config=CONFIG, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def flood(client: httpx.Client, graph: str, **fields: Any) -> list[Frame]:
    return run(client, graph=graph, input=fields)


def check_end(client: httpx.Client, frames: list[Frame]) -> None:
    end = frames[-1]
    assert (end["event"], end["code"], end["retryable"]) == ("error", "limit_exceeded", False)
    row = client.get(f"/runs/{end['run_id']}").json()
    assert (row["status"], row["error"]["code"]) == ("error", "limit_exceeded")
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))


@pytest.mark.parametrize("graph", FLOODS)
def test_a_run_of_more_events_than_it_may_have_ends_with_limit_exceeded(client: httpx.Client, graph: str) -> None:
    frames = flood(client, graph, count=MAX_EVENTS * 50)

    check_end(client, frames)
    said = [frame["data"]["number"] for frame in frames if frame["event"] == "custom"]
    assert said == list(range(len(said)))
    assert len(said) == pytest.approx(MAX_EVENTS, abs=2)


@pytest.mark.parametrize("graph", FLOODS)
def test_a_run_of_more_bytes_than_it_may_have_ends_with_limit_exceeded(client: httpx.Client, graph: str) -> None:
    frames = flood(client, graph, count=1000, size=MAX_BYTES // 100)

    check_end(client, frames)
    assert 97 <= events(frames).count("custom") <= 100


@pytest.mark.parametrize("graph", ["sync_flood", "async_flood"])
def test_a_node_that_never_waits_is_stopped_where_it_speaks(
    server: RunningServer, client: httpx.Client, graph: str
) -> None:
    before = len(server.trace())

    flood(client, graph, count=10_000_000)

    (line,) = server.trace()[before:]
    assert line.startswith("LimitExceeded at ")
    assert int(line.split()[-1]) < 100 * MAX_EVENTS


def test_a_run_within_the_limits_says_all_of_it_and_the_thread_goes_on_after_a_run_beyond(
    client: httpx.Client,
) -> None:
    frames = run(client, graph="sync_flood", thread_id="goes-on", input={"count": MAX_EVENTS * 2})
    check_end(client, frames)

    frames = run(client, graph="sync_flood", thread_id="goes-on", input={"count": MAX_EVENTS - 100})

    assert events(frames).count("custom") == MAX_EVENTS - 100
    assert events(frames)[-2:] == ["node", "complete"]


def test_an_invoke_of_such_a_run_is_a_problem_with_its_code(client: httpx.Client) -> None:
    body = {"graph": "drips", "input": {"count": MAX_EVENTS * 2}, "stream_mode": "custom"}

    answer = client.post("/runs/invoke", json=body)

    assert (answer.status_code, answer.json()["code"]) == (500, "limit_exceeded")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server in which a megabyte of a run's events may wait for the disk."""
    env = {"RUNSTREAM_MAX_WAITING_BYTES": "1000000"}
    with running(tmp_path_factory.mktemp("narrow") / "data", config=CONFIG, env=env) as server:
        yield server


def test_a_node_in_a_thread_is_held_while_the_disk_is_behind_and_loses_nothing(narrow: RunningServer) -> None:
    with narrow.client() as client:
        frames = flood(client, "sync_flood", count=400, size=20_000)

    assert [frame["data"]["number"] for frame in frames if frame["event"] == "custom"] == list(range(400))
    assert frames[-1]["event"] == "complete"


def test_a_node_in_the_loop_that_cannot_be_held_ends_its_run_when_too_much_waits(narrow: RunningServer) -> None:
    with narrow.client() as client:
        check_end(client, flood(client, "async_flood", count=400, size=20_000))


def test_many_events_that_wait_take_little_more_memory_than_their_text_is_long(narrow: RunningServer) -> None:
    count = 10_000
    with narrow.client() as client:
        flood(client, "async_flood", count=10)
        before = resident_bytes(narrow.process_id)
        frames = flood(client, "async_flood", count=count)
        growth = resident_bytes(narrow.process_id) - before

    assert events(frames).count("custom") == count
    assert growth < count * 2_000


def test_a_thread_that_the_loop_itself_waits_for_is_not_held(client: httpx.Client) -> None:
    frames = flood(client, "joins", count=MAX_EVENTS - 100)

    assert events(frames).count("custom") == MAX_EVENTS - 100
    assert frames[-1]["event"] == "complete"
