"""The pull model: pages of a run's log (wire contract, section 4)."""

import uuid
from typing import Any

import httpx
import pytest

from tests.raw_client import RawExchange, new_gate
from tests.server import RunningServer, problem_of, run


def pull(client: httpx.Client, run_id: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/runs/{run_id}/events", params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    page: dict[str, Any] = answer.json()
    assert page.keys() == {"events", "next_after", "closed"}
    return page


def walk(client: httpx.Client, run_id: str, **params: Any) -> list[dict[str, Any]]:
    """All pages, as a client that pulls reads them."""
    pages, after, closed = [], 0, False
    while not closed:
        page = pull(client, run_id, after=after, **params)
        pages.append(page)
        after, closed = page["next_after"], page["closed"]
    return pages


def gated_run(server: RunningServer, client: httpx.Client) -> tuple[str, str]:
    """A run that waits at its gate, and the gate."""
    gate, run_id = new_gate(server), str(uuid.uuid4())
    body = {"graph": "gated", "input": {"gate": gate}, "run_id": run_id, "on_disconnect": "continue"}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
        exchange.read_frames(1)
    return run_id, gate


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 13, 14, 5000, None])
def test_pages_of_any_size_joined_are_the_streams_frames(client: httpx.Client, limit: int | None) -> None:
    frames = run(client, graph="talk", message="hi")
    pages = walk(client, frames[0]["run_id"], **({} if limit is None else {"limit": limit}))
    assert [event for page in pages for event in page["events"]] == frames
    assert all(len(page["events"]) <= (limit or 500) for page in pages)
    for page in pages:
        assert page["next_after"] == page["events"][-1]["seq"]
        assert page["closed"] == (page["events"][-1]["event"] == "complete")


def test_a_page_after_the_end_is_empty_closed_and_does_not_wait(client: httpx.Client) -> None:
    frames = run(client, graph="steps", input={})
    page = pull(client, frames[0]["run_id"], after=5, wait_seconds=30)
    assert page == {"events": [], "next_after": 5, "closed": True}


def test_without_a_wait_a_page_of_nothing_new_is_empty_and_open(server: RunningServer, client: httpx.Client) -> None:
    run_id, gate = gated_run(server, client)
    assert pull(client, run_id, after=1) == {"events": [], "next_after": 1, "closed": False}
    server.open_gate(gate, 6)


def test_a_wait_ends_with_the_first_new_event(server: RunningServer, client: httpx.Client) -> None:
    run_id, gate = gated_run(server, client)
    # the socket gives up before the 30 seconds are over
    path = f"/runs/{run_id}/events?after=1&wait_seconds=30"
    with RawExchange(server.port, "GET", path, timeout_seconds=15) as exchange:
        server.open_gate(gate, 1)
        exchange.read_all()
    page = pull(client, run_id, after=1)
    assert exchange.body.startswith(b'{"events":[{"event":"custom"')
    assert exchange.body.endswith(b'],"next_after":2,"closed":false}')
    assert [event["seq"] for event in page["events"]] == [2]
    server.open_gate(gate, 6)


def test_a_wait_ends_by_itself_when_nothing_comes(server: RunningServer, client: httpx.Client) -> None:
    run_id, gate = gated_run(server, client)
    page = pull(client, run_id, after=1, wait_seconds=0.2)
    assert page == {"events": [], "next_after": 1, "closed": False}
    server.open_gate(gate, 6)


def test_a_client_that_only_pulls_sees_a_running_run_to_its_end(server: RunningServer, client: httpx.Client) -> None:
    run_id, gate = gated_run(server, client)
    seen, after, closed = [], 0, False
    for level in range(7):
        page = pull(client, run_id, after=after, wait_seconds=15)
        assert page["events"], "a wait that was not over gave nothing"
        assert not page["closed"]
        seen += page["events"]
        after = page["next_after"]
        server.open_gate(gate, level + 1)
    while not closed:
        page = pull(client, run_id, after=after, wait_seconds=15)
        seen += page["events"]
        after, closed = page["next_after"], page["closed"]
    assert [event["seq"] for event in seen] == list(range(1, 10))
    assert seen == [event for page in walk(client, run_id) for event in page["events"]]


def test_large_events_come_in_pages_of_bounded_size_without_a_gap(client: httpx.Client) -> None:
    frames = run(client, graph="flood", input={"gate": "none", "count": 120})
    pages = walk(client, frames[0]["run_id"], limit=5000)
    assert [event for page in pages for event in page["events"]] == frames
    assert len(pages) > 1


def test_the_pull_model_gives_everything_that_was_recorded(client: httpx.Client) -> None:
    modes = ["updates", "messages", "tasks", "values", "checkpoints", "debug"]
    frames = run(client, graph="talk", message="hi", stream_mode=modes)
    (page,) = walk(client, frames[0]["run_id"])
    assert page["events"] == frames
    assert {"node", "token", "node_start", "values", "checkpoint", "debug"} < {event["event"] for event in frames}


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 5001},
        {"limit": "many"},
        {"wait_seconds": 30.1},
        {"wait_seconds": -1},
        {"wait_seconds": "nan"},
        {"after": -1},
        {"after": "x"},
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused(client: httpx.Client, params: dict[str, Any]) -> None:
    run_id = run(client, graph="steps", input={})[0]["run_id"]
    answer = client.get(f"/runs/{run_id}/events", params=params)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_place_beyond_the_end_of_the_log_is_refused(client: httpx.Client) -> None:
    run_id = run(client, graph="steps", input={})[0]["run_id"]
    found = problem_of(client.get(f"/runs/{run_id}/events", params={"after": 6}), 409, "event_id_ahead")
    assert found["last_seq"] == 5


def test_an_unknown_run_has_no_events(client: httpx.Client) -> None:
    problem_of(client.get(f"/runs/{uuid.uuid4()}/events"), 404, "run_not_found")
