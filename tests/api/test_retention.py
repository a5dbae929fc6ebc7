"""What a client finds of a run that ended long ago (wire contract, section 4: 410, and never a new run)."""

import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.test_ws import opened
from tests.raw_client import EVENTSOURCE, PLAIN, new_gate
from tests.server import RunningServer, events, frames_of, problem_of, run, running, wait_until

SECRET = "the colour of the safe"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Runs are kept for a moment."""
    with running(tmp_path_factory.mktemp("server") / "data", env={"RUNSTREAM_RETENTION_SECONDS": "0.4"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def is_expired(client: httpx.Client, run_id: str) -> bool:
    return client.get(f"/runs/{run_id}/events").status_code == 410


def expired_run(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The row of a run whose events are gone."""
    request = {"graph": "talk", "message": SECRET, "stream_mode": ["values", "messages"], **body}
    frames = frames_of(client.post("/runs/stream", json=request).text)
    assert events(frames)[-1] == "complete"
    run_id = frames[0]["run_id"]
    wait_until(lambda: is_expired(client, run_id), "the events are gone")
    row: dict[str, Any] = client.get(f"/runs/{run_id}").json()
    return row


@pytest.fixture(scope="module")
def old(client: httpx.Client) -> dict[str, Any]:
    return expired_run(client)


@pytest.mark.parametrize("dialect", [EVENTSOURCE, PLAIN], ids=["eventsource", "plain"])
@pytest.mark.parametrize("place", ["the start", "the middle", "the end", "beyond the end"])
def test_a_reader_is_told_wherever_it_was(
    client: httpx.Client, old: dict[str, Any], place: str, dialect: dict[str, str]
) -> None:
    run_id, thread_id, last = old["run_id"], old["thread_id"], old["last_seq"]
    seq = {"the start": 0, "the middle": last // 2, "the end": last, "beyond the end": last + 7}[place]
    again = {"Last-Event-ID": f"{run_id}.{seq}"}
    answers = [
        client.get(f"/runs/{run_id}/stream?after={seq}", headers=dialect),
        client.get(f"/runs/{run_id}/stream", headers={**dialect, **again}),
        client.get(f"/runs/{run_id}/events?after={seq}", headers=dialect),
        client.post("/runs/stream", json={"graph": "talk", "message": "hi"}, headers={**dialect, **again}),
        client.get("/runs/stream?graph=talk&message=hi", headers={**EVENTSOURCE, **again}),
        client.get(f"/threads/{thread_id}/runs/stream", headers={**dialect, **again}),
    ]
    for answer in answers:
        told = problem_of(answer, 410, "events_expired")
        assert (told["run_id"], told["thread_id"]) == (run_id, thread_id)
        state = client.get(told["state_url"])
        assert state.json()["values"]["messages"][0]["content"] == SECRET


def test_the_row_is_still_there_and_an_unknown_run_is_another_thing(client: httpx.Client, old: dict[str, Any]) -> None:
    assert (old["status"], old["error"]) == ("success", None)
    assert None not in (old["usage"], old["finished_at"])
    assert old["last_seq"] > 5
    listed = client.get("/runs", params={"thread_id": old["thread_id"]}).json()["runs"]
    assert [row["run_id"] for row in listed] == [old["run_id"]]
    problem_of(client.get(f"/runs/{uuid.uuid4()}/stream"), 404, "run_not_found")
    problem_of(client.get(f"/runs/{old['run_id']}/stream", headers={"Last-Event-ID": "x"}), 400, "bad_event_id")


def test_a_cancel_changes_nothing(client: httpx.Client, old: dict[str, Any]) -> None:
    assert client.post(f"/runs/{old['run_id']}/cancel?wait=true").json() == old


@pytest.mark.parametrize("route", ["/runs/stream", "/runs/invoke"])
@pytest.mark.parametrize("name", ["run_id", "Idempotency-Key"])
def test_a_repeated_start_executes_nothing(server: RunningServer, client: httpx.Client, route: str, name: str) -> None:
    key = str(uuid.uuid4())
    body = {"graph": "talk", "message": "once", **({"run_id": key} if name == "run_id" else {})}
    headers = {"Idempotency-Key": key} if name == "Idempotency-Key" else {}
    first = client.post("/runs/invoke", json=body, headers=headers).json()
    wait_until(lambda: is_expired(client, first["run_id"]), "the events are gone")
    spoken = len(server.trace())

    told = problem_of(client.post(route, json=body, headers=headers), 410, "events_expired")
    assert told["run_id"] == first["run_id"]
    other = {**body, "message": "twice"}
    problem_of(client.post(route, json=other, headers=headers), 409, "idempotency_conflict")
    assert len(server.trace()) == spoken


def test_the_thread_goes_on(client: httpx.Client, old: dict[str, Any]) -> None:
    frames = run(client, graph="talk", message="and now?", thread_id=old["thread_id"], stream_mode="values")
    assert frames[1]["data"]["messages"][0]["content"] == SECRET


def test_a_subscription_is_refused_with_the_same_words(server: RunningServer, old: dict[str, Any]) -> None:
    with opened(server) as ws:
        ws.say("subscribe_execution", executionId=old["run_id"], after=1)
        told = ws.hear()
    assert (told["type"], told["payload"]["code"]) == ("error", "events_expired")
    assert told["payload"]["state_url"] == f"/threads/{old['thread_id']}/state"


def test_neither_input_nor_text_is_left_in_the_tables_of_runs(server: RunningServer, client: httpx.Client) -> None:
    secret = str(uuid.uuid4())
    row = expired_run(client, message=secret)
    connection = sqlite3.connect(server.data_dir / "runstream.db")
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = [found for name in tables for found in connection.execute(f"SELECT * FROM {name}")]
    connection.close()
    assert any(row["run_id"] in str(found) for found in rows)
    assert not any(secret in str(found) for found in rows)


def test_a_run_that_is_at_work_does_not_expire(server: RunningServer, client: httpx.Client) -> None:
    gate = new_gate(server)
    with client.stream("POST", "/runs/stream", json={"graph": "gated", "input": {"gate": gate}}) as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        expired_run(client)  # another one, meanwhile
        server.open_gate(gate, 6)
        frames = frames_of((first + b"".join(pieces)).decode())
    assert events(frames) == ["start", *["custom"] * 6, "node", "complete"]


def test_after_its_own_time_the_row_is_gone_and_the_name_is_free(tmp_path: Any) -> None:
    env = {"RUNSTREAM_RETENTION_SECONDS": "0.1", "RUNSTREAM_ROW_RETENTION_SECONDS": "0.3"}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        body = {"graph": "talk", "message": "hi", "run_id": str(uuid.uuid4())}
        client.post("/runs/invoke", json=body)
        wait_until(lambda: client.get(f"/runs/{body['run_id']}").status_code == 404, "the row is gone")
        problem_of(client.get(f"/runs/{body['run_id']}/stream"), 404, "run_not_found")
        assert client.post("/runs/invoke", json=body).status_code == 200
        assert server.trace() == ["speak", "speak"]


def test_without_a_time_runs_are_kept(tmp_path: Any) -> None:
    env = {"RUNSTREAM_RETENTION_SECONDS": "", "RUNSTREAM_ROW_RETENTION_SECONDS": "0.05"}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        frames = run(client, graph="talk", message="hi")
        for _ in range(20):
            run(client, graph="steps", input={"log": []})
        assert frames_of(client.get(f"/runs/{frames[0]['run_id']}/stream").text) == frames
