"""Many requests at once on one thread, and threads that outlive their process (wire contract, sections 1 and 2)."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import RunningServer, events, frames_of, problem_of, run, running, wait_until


def at_once(server: RunningServer, bodies: list[dict[str, Any]], path: str = "/runs/stream") -> list[httpx.Response]:
    with server.client() as client, ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: client.post(path, json=body), bodies))


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_of_ten_requests_at_once_one_runs_and_nine_are_told_which(
    server: RunningServer, client: httpx.Client, path: str
) -> None:
    thread_id = f"ten-{path[6:]}"
    seen = len(server.trace())
    body = {"graph": "slow_sync", "thread_id": thread_id, "input": {}}
    answers = at_once(server, [body] * 10, path)
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    (row,) = client.get("/runs", params={"thread_id": thread_id}).json()["runs"]
    for answer in answers:
        if answer.status_code == 409:
            assert problem_of(answer, 409, "thread_busy")["run_id"] == row["run_id"]
    assert server.trace()[seen:].count("left") == 1
    assert client.get(f"/threads/{thread_id}/state").json()["values"]["log"] == ["sync"]


@pytest.mark.parametrize("turn", range(5))
def test_no_question_is_lost_when_many_begin_a_new_thread_at_once(
    server: RunningServer, client: httpx.Client, turn: int
) -> None:
    thread_id = f"new-{turn}"
    seen = len(server.trace())
    answers = at_once(server, [{"graph": "ask", "thread_id": thread_id, "input": {}}] * 10)
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert codes <= {"thread_busy", "thread_interrupted"}
    assert server.trace()[seen:] == ["before", "question"]


@pytest.mark.parametrize("turn", range(5))
def test_two_answers_at_once_have_their_effect_once(server: RunningServer, client: httpx.Client, turn: int) -> None:
    thread_id = run(client, graph="ask", input={})[0]["thread_id"]
    seen = len(server.trace())
    answers = at_once(server, [{"thread_id": thread_id, "resume": number} for number in range(2)])
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["code"] in ("thread_busy", "nothing_to_resume")
    assert server.trace()[seen:].count("answered") == 1
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 200)
    assert client.get(f"/threads/{thread_id}/state").json()["values"]["answer"] == winner


def test_a_busy_thread_refuses_everything_until_its_run_has_ended(server: RunningServer, client: httpx.Client) -> None:
    thread_id = "busy"
    seen = len(server.trace())
    bodies: list[dict[str, Any]] = [{}, {"input": {}}, {"message": "x"}, {"resume": 1}, {"command": {"goto": "after"}}]
    with client.stream("POST", "/runs/stream", json={"graph": "slow", "thread_id": thread_id, "input": {}}) as stream:
        run_id = stream.headers["location"].split("/")[2]
        wait_until(lambda: "tick" in server.trace()[seen:], "the node works")
        for body in bodies:
            answer = client.post("/runs/stream", json={"thread_id": thread_id, **body})
            assert problem_of(answer, 409, "thread_busy")["run_id"] == run_id
        client.post(f"/runs/{run_id}/cancel", params={"wait": "true"})
    assert client.get(f"/threads/{thread_id}").json()["status"] == "idle"
    assert client.post("/runs/stream", json={"thread_id": thread_id, "resume": {"0" * 32: 1}}).status_code == 409


def test_threads_do_not_hinder_each_other(server: RunningServer) -> None:
    answers = at_once(server, [{"graph": "steps", "thread_id": f"own-{n}", "input": {}} for n in range(10)])
    assert [events(frames_of(answer.text))[-1] for answer in answers] == ["complete"] * 10


def test_what_one_process_paused_another_resumes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server, server.client() as client:
        asked = run(client, graph="ask", thread_id="question", input={})
        run(client, graph="ask_both", thread_id="questions", input={})
        run(client, graph="ask_far", thread_id="below", input={})
        run(client, graph="steps", thread_id="breakpoint", input={}, interrupt_after=["one"])
        run(client, graph="odd", thread_id="types", input={}, interrupt_after=["make"])
        failed = run(client, graph="mendable", thread_id="failed", input={})
        assert failed[-1]["event"] == "error"
        assert server.stop() == 0
    with running(data) as server, server.client() as client:
        again = client.get(f"/runs/{asked[0]['run_id']}/stream")
        assert frames_of(again.text) == asked
        assert run(client, thread_id="question", resume={asked[-1]["interrupts"][0]["id"]: None})[-1]["event"] == (
            "complete"
        )
        found = problem_of(
            client.post("/runs/stream", json={"thread_id": "questions", "resume": 1}), 409, "ambiguous_resume"
        )
        answers = {pending["id"]: pending["node"] for pending in found["interrupts"]}
        assert run(client, thread_id="questions", resume=answers)[-1]["event"] == "complete"
        below = client.post("/runs/stream", json={"thread_id": "below", "message": "x"}).json()
        assert run(client, thread_id="below", resume={p["id"]: {} for p in below["interrupts"]})[-1]["event"] == (
            "complete"
        )
        assert run(client, thread_id="breakpoint", message="")[-1]["event"] == "complete"
        # a model, a dataclass and an enum come back as what they were, not as dictionaries
        rest = run(client, thread_id="types", include_output=True)
        assert rest[-1]["output"]["seen"] == "Colour Point Box"
        client.post("/threads/failed/state", json={"values": {"answer": "mended"}})
        assert run(client, thread_id="failed")[-1]["event"] == "complete"
        assert server.trace().count("before") == 2
