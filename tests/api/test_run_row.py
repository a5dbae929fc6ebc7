"""A run's row, and lists of them (wire contract, section 4)."""

import datetime
import uuid
from typing import Any

import httpx
import pytest

from tests.raw_client import RawExchange, data_of, frames_of, new_gate
from tests.server import RunningServer, problem_of, run

KEYS = {
    "run_id",
    "thread_id",
    "graph",
    "status",
    "attempt",
    "created_at",
    "started_at",
    "finished_at",
    "usage",
    "error",
    "metadata",
    "last_seq",
}


def row_of(client: httpx.Client, frames: list[dict[str, Any]]) -> dict[str, Any]:
    answer = client.get(f"/runs/{frames[0]['run_id']}")
    assert answer.status_code == 200
    row: dict[str, Any] = answer.json()
    assert row.keys() == KEYS
    assert (row["run_id"], row["thread_id"]) == (frames[0]["run_id"], frames[0]["thread_id"])
    return row


def list_runs(client: httpx.Client, **params: Any) -> tuple[list[dict[str, Any]], str | None]:
    answer = client.get("/runs", params=params)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page.keys() == {"runs", "next_cursor"}
    assert all(row.keys() == KEYS for row in page["runs"])
    return page["runs"], page["next_cursor"]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["run_id"] for row in rows]


def runs_on(client: httpx.Client, thread_id: str, count: int) -> list[str]:
    """Runs of one thread, the newest first."""
    started = [run(client, graph="steps", input={}, thread_id=thread_id)[0]["run_id"] for _ in range(count)]
    return started[::-1]


def new_thread() -> str:
    return f"t-{uuid.uuid4()}"


def test_the_row_of_a_finished_run_tells_everything_about_it(client: httpx.Client) -> None:
    frames = run(client, graph="talk", message="hi", metadata={"who": "me", "n": [1, None]})
    row = row_of(client, frames)
    usage = {"speaker": {"input_tokens": 3, "output_tokens": 10, "total_tokens": 13}}
    assert (row["graph"], row["status"], row["attempt"]) == ("talk", "success", 1)
    assert (row["error"], row["metadata"]) == (None, {"who": "me", "n": [1, None]})
    assert row["usage"] == frames[-1]["usage"] == usage
    assert row["last_seq"] == frames[-1]["seq"]
    times = [datetime.datetime.fromisoformat(row[key]) for key in ("created_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert all(time.utcoffset() == datetime.timedelta(0) for time in times)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"graph": "steps", "input": {}}, "success"),
        ({"graph": "ask", "input": {}}, "interrupted"),
        ({"graph": "fails", "input": {}}, "error"),
        ({"graph": "slow", "input": {}, "timeout_seconds": 0.2}, "timeout"),
    ],
)
def test_a_row_has_the_status_in_which_its_run_ended(client: httpx.Client, body: dict[str, Any], status: str) -> None:
    frames = run(client, **body)
    row = row_of(client, frames)
    assert row["status"] == status
    assert row["finished_at"] is not None
    if status in ("error", "timeout"):
        assert row["error"] == {"code": frames[-1]["code"], "message": frames[-1]["error"]}
        assert "hunter2" not in str(row)
    else:
        assert row["error"] is None


def test_a_running_runs_row_grows_with_its_log_and_has_no_end_yet(server: RunningServer, client: httpx.Client) -> None:
    gate = new_gate(server)
    body = {"graph": "gated", "input": {"gate": gate}}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
        start = data_of(frames_of(exchange.read_frames(1).body)[0])
        before = row_of(client, [start])
        assert (before["status"], before["last_seq"], before["finished_at"]) == ("running", 1, None)
        assert before["started_at"] is not None
        server.open_gate(gate, 2)
        exchange.read_frames(3)
        assert row_of(client, [start])["last_seq"] == 3
        server.open_gate(gate, 6)
        exchange.read_all()
    assert row_of(client, [start])["status"] == "success"


def test_the_status_is_committed_before_the_last_frame_is_sent(server: RunningServer, client: httpx.Client) -> None:
    for _ in range(20):
        body = {"graph": "steps", "input": {}}
        with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
            frames = [data_of(frame) for frame in frames_of(exchange.read_until(lambda b: b"complete" in b).body)]
        assert row_of(client, frames)["status"] == "success"


def test_an_unknown_run_is_not_found(client: httpx.Client) -> None:
    problem_of(client.get(f"/runs/{uuid.uuid4()}"), 404, "run_not_found")
    problem_of(client.get("/runs/not-an-id"), 404, "run_not_found")


def test_runs_are_listed_newest_first(client: httpx.Client) -> None:
    thread_id = new_thread()
    expected = runs_on(client, thread_id, 3)
    rows, cursor = list_runs(client, thread_id=thread_id)
    assert (ids(rows), cursor) == (expected, None)
    everyone, _ = list_runs(client, limit=1000)
    assert [run_id for run_id in ids(everyone) if run_id in expected] == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_pages_of_any_size_give_each_run_once_and_end_with_no_cursor(client: httpx.Client, limit: int) -> None:
    thread_id = new_thread()
    expected = runs_on(client, thread_id, 4)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(len(expected) + 1):
        params = {"cursor": cursor} if cursor else {}
        rows, cursor = list_runs(client, thread_id=thread_id, limit=limit, **params)
        assert 0 < len(rows) <= limit
        seen += ids(rows)
        if cursor is None:
            break
    assert seen == expected


def test_a_run_that_begins_between_two_pages_moves_nothing(client: httpx.Client) -> None:
    thread_id = new_thread()
    expected = runs_on(client, thread_id, 4)
    first, cursor = list_runs(client, thread_id=thread_id, limit=2)
    runs_on(client, thread_id, 2)
    second, end = list_runs(client, thread_id=thread_id, limit=2, cursor=cursor)
    assert ids(first + second) == expected
    assert end is None


def test_runs_are_filtered_by_thread_and_status_together(client: httpx.Client) -> None:
    thread_id = new_thread()
    asked = run(client, graph="ask", input={}, thread_id=thread_id)[0]["run_id"]
    answered = run(client, thread_id=thread_id, resume=True)[0]["run_id"]
    assert ids(list_runs(client, thread_id=thread_id, status="interrupted")[0]) == [asked]
    assert ids(list_runs(client, thread_id=thread_id, status="success")[0]) == [answered]
    assert list_runs(client, thread_id=thread_id, status="pending") == ([], None)
    assert asked in ids(list_runs(client, status="interrupted", limit=1000)[0])
    assert list_runs(client, thread_id=new_thread()) == ([], None)


@pytest.mark.parametrize(
    "params",
    [{"status": "done"}, {"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "-1"}, {"cursor": "9" * 30}],
)
def test_a_query_that_makes_no_sense_is_refused(client: httpx.Client, params: dict[str, Any]) -> None:
    found = problem_of(client.get("/runs", params=params), 422, "invalid_request")
    assert found["errors"]
