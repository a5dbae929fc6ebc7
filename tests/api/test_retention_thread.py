"""Threads and checkpoints that go by themselves, and those that must not."""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.raw_client import new_gate
from tests.server import PROJECT, problem_of, run, running, wait_until

SWEPT = "1"  # seconds; sweeps come four times as often


def is_gone(client: httpx.Client, thread_id: str) -> bool:
    return client.get(f"/threads/{thread_id}").status_code == 404


def start(client: httpx.Client, thread_id: str, **body: Any) -> str:
    run_id: str = run(client, thread_id=thread_id, **body)[0]["run_id"]
    return run_id


def history(client: httpx.Client, thread_id: str) -> list[Any]:
    answer: list[Any] = client.get(f"/threads/{thread_id}/history", params={"limit": 1000}).json()
    return answer


def test_an_unused_thread_goes_with_all_it_has_and_a_paused_or_busy_one_stays(tmp_path: Path) -> None:
    env = {"RUNSTREAM_THREAD_TTL_SECONDS": SWEPT}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        start(client, "paused", graph="ask", input={"log": []})
        gate = new_gate(server)
        busy = {"graph": "gated", "thread_id": "busy", "input": {"gate": gate}, "on_disconnect": "continue"}
        with client.stream("POST", "/runs/stream", json=busy) as answer:
            next(answer.iter_raw())
        run_id = start(client, "unused", graph="steps", input={"log": []})
        start(client, "failed", graph="fails", input={"log": []})
        for thread_id in ("unused", "failed"):
            wait_until(lambda thread_id=thread_id: is_gone(client, thread_id), f"{thread_id} is gone")  # type: ignore[misc]

        problem_of(client.get("/threads/unused/state"), 404, "thread_not_found")
        problem_of(client.get(f"/runs/{run_id}/stream"), 404, "run_not_found")
        fresh = run(client, thread_id="unused", graph="ask", input={"log": ["new"]}, stream_mode="values")
        assert fresh[1]["data"]["log"] == ["new"]
        for thread_id in ("paused", "busy"):
            assert not is_gone(client, thread_id)
        answered = run(client, thread_id="paused", graph="ask", resume="yes")
        assert answered[-1]["event"] == "complete"
        server.open_gate(gate, 6)
        wait_until(lambda: is_gone(client, "busy"), "the run has ended, and the thread is old enough")


def test_a_paused_thread_has_a_time_of_its_own(tmp_path: Path) -> None:
    env = {"RUNSTREAM_PAUSED_THREAD_TTL_SECONDS": SWEPT}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        start(client, "idle", graph="steps", input={"log": []})
        start(client, "paused", graph="ask", input={"log": []})
        wait_until(lambda: is_gone(client, "paused"), "the paused thread is gone")
        assert not is_gone(client, "idle")


def turn(client: httpx.Client, key: str) -> Any:
    body = {"graph": "talk", "thread_id": "chat", "message": key}
    return client.post("/runs/invoke", json=body, headers={"Idempotency-Key": key}).json()


def test_old_checkpoints_go_and_the_ends_of_runs_stay_as_long_as_the_runs(tmp_path: Path) -> None:
    env = {"RUNSTREAM_KEEP_CHECKPOINTS": "1", "RUNSTREAM_THREAD_TTL_SECONDS": "4"}  # for the sweeps to come often
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        first = [turn(client, key) for key in "abcd"]
        wait_until(lambda: len(history(client, "chat")) == 4, "one checkpoint a run is left")
        assert [turn(client, key) for key in "abcd"] == first  # from the checkpoints at which they ended


def test_of_a_thread_whose_runs_have_expired_the_state_is_left(tmp_path: Path) -> None:
    env = {"RUNSTREAM_KEEP_CHECKPOINTS": "1", "RUNSTREAM_RETENTION_SECONDS": "0.5"}
    with running(tmp_path / "data", env=env) as server, server.client() as client:
        for key in "abcd":
            run(client, graph="talk", thread_id="chat", message=key)
        wait_until(lambda: len(history(client, "chat")) == 1, "the newest checkpoint is left")
        state = client.get("/threads/chat/state").json()
        assert [message["content"] for message in state["values"]["messages"][::2]] == [*"abcd"]
        assert turn(client, "e")["status"] == "success"


def test_langgraph_json_says_it_too(tmp_path: Path) -> None:
    config = tmp_path / "langgraph.json"
    ttl = {"strategy": "delete", "default_ttl": 1 / 60, "sweep_interval_minutes": 60}
    source = str(PROJECT.parent / "graphs.py")
    config.write_text(json.dumps({"graphs": {"steps": f"{source}:steps"}, "checkpointer": {"ttl": ttl}}))
    with running(tmp_path / "data", config=config) as server, server.client() as client:
        start(client, "unused", graph="steps", input={"log": []})
        wait_until(lambda: is_gone(client, "unused"), "the thread is gone")
