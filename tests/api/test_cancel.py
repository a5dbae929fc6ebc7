"""Stopping a run, wherever it is (wire contract, section 4)."""

import threading
import uuid
from typing import Any

import httpx
import pytest

from tests.raw_client import RawExchange, data_of, frames_of
from tests.server import RunningServer, events, problem_of, run, spoken, wait_until

ENDS = {"complete", "interrupt", "cancelled", "error"}


class Started:
    """A run that somebody looks on at, on a thread of its own."""

    def __init__(self, server: RunningServer, *, until: str | None = None, **body: Any) -> None:
        self.thread_id, self.run_id = f"t-{uuid.uuid4()}", str(uuid.uuid4())
        self._server, self._mark = server, len(server.trace())
        body = {"thread_id": self.thread_id, "run_id": self.run_id, **body}
        self._exchange = RawExchange(server.port, "POST", "/runs/stream", json_body=body).read_frames(1)
        if until is not None:
            wait_until(lambda: until in self.trace(), f"a node says {until!r}")

    def trace(self) -> list[str]:
        """What the nodes have said since the run was started."""
        return self._server.trace()[self._mark :]

    def read_frames(self, count: int) -> None:
        self._exchange.read_frames(count)

    def frames(self) -> list[dict[str, Any]]:
        """All of its frames; waits for the end."""
        self._exchange.read_all()
        self._exchange.cut("FIN")
        return [data_of(frame) for frame in frames_of(self._exchange.body)]


def cancel(client: httpx.Client, run_id: str, *, wait: bool = False, body: Any = None) -> dict[str, Any]:
    answer = client.post(f"/runs/{run_id}/cancel", params={"wait": wait} if wait else {}, json=body)
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    assert row["run_id"] == run_id
    return row


def thread_of(client: httpx.Client, started: Started) -> tuple[str, list[str]]:
    """The thread's status, and the nodes that its state waits for."""
    status = client.get(f"/threads/{started.thread_id}").json()["status"]
    return status, client.get(f"/threads/{started.thread_id}/state").json()["next"]


# -- where it is when it is cancelled ---------------------------------------------------------------------------------


def test_cancelled_before_its_first_step_a_run_runs_no_node(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="opening", input={}, until="opening")
    assert cancel(client, started.run_id, wait=True)["status"] == "cancelled"
    assert started.trace() == ["opening", "left"]
    start, end = started.frames()
    assert (start["event"], end["event"], end["reason"], end["partial"]) == ("start", "cancelled", "user", {})
    assert thread_of(client, started) == ("idle", [])
    again = client.post("/runs/stream", json={"thread_id": started.thread_id, "input": None})
    problem_of(again, 409, "nothing_to_continue")


def test_cancelled_in_a_node_a_run_keeps_its_finished_steps_and_goes_on_at_that_node(
    server: RunningServer, client: httpx.Client
) -> None:
    started = Started(server, graph="slow", input={}, until="tick")
    assert cancel(client, started.run_id, wait=True)["status"] == "cancelled"
    assert started.trace()[-1] == "left"
    frames = started.frames()
    assert events(frames) == ["start", "node", "cancelled"]
    assert frames[-1].keys() == {"event", "reason", "partial", "usage", "seq"}
    assert (frames[-1]["reason"], frames[-1]["partial"], frames[-1]["usage"]) == ("user", {}, None)
    assert thread_of(client, started) == ("idle", ["tick"])
    mark = len(server.trace())
    again = Started(server, thread_id=started.thread_id, input=None, until="tick")
    assert "before" not in server.trace()[mark:]
    cancel(client, again.run_id, wait=True)
    assert events(again.frames()) == ["start", "cancelled"]


def test_after_a_cancel_new_input_begins_at_the_graphs_start(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="slow", input={}, until="tick")
    cancel(client, started.run_id, wait=True)
    started.frames()
    again = Started(server, thread_id=started.thread_id, input={"log": ["new"]}, until="tick")
    assert again.trace()[0] == "before"
    cancel(client, again.run_id, wait=True)
    again.frames()


def test_cancelled_while_a_model_speaks_the_end_holds_the_text_so_far(
    server: RunningServer, client: httpx.Client
) -> None:
    started = Started(server, graph="slow_talk", message="hi")
    started.read_frames(4)
    cancel(client, started.run_id, wait=True)
    frames = started.frames()
    partial = frames[-1]["partial"]
    assert partial == spoken(frames)
    assert next(iter(partial.values())).startswith("word0 word1 word2 ")
    assert thread_of(client, started) == ("idle", ["speak"])


@pytest.mark.parametrize("subgraphs", [True, False])
def test_cancelled_in_a_subgraph_a_run_stops_there(
    server: RunningServer, client: httpx.Client, subgraphs: bool
) -> None:
    started = Started(server, graph="slow_below", message="hi", subgraphs=subgraphs, until="speaking")
    if subgraphs:
        started.read_frames(3)
    assert cancel(client, started.run_id, wait=True)["status"] == "cancelled"
    assert started.trace() == ["speaking", "left"]
    frames = started.frames()
    assert frames[-1]["partial"] == spoken(frames)
    assert bool(frames[-1]["partial"]) == subgraphs
    assert thread_of(client, started) == ("idle", ["child"])


def test_a_sync_node_is_waited_for_in_its_thread_and_keeps_the_thread_busy_until_it_has_left(
    server: RunningServer, client: httpx.Client
) -> None:
    started = Started(server, graph="slow_sync", input={}, until="tick")
    assert cancel(client, started.run_id)["status"] == "running"
    assert "left" not in started.trace()
    busy = client.post("/runs/stream", json={"thread_id": started.thread_id, "input": {}})
    assert problem_of(busy, 409, "thread_busy")["run_id"] == started.run_id
    assert cancel(client, started.run_id, wait=True)["status"] == "cancelled"
    assert started.trace()[-1] == "left"
    assert events(started.frames()) == ["start", "cancelled"]
    assert thread_of(client, started) == ("idle", ["tick"])


@pytest.mark.parametrize("stream_mode", [[], ["updates"], ["values", "tasks", "debug", "checkpoints"]])
def test_a_silent_node_is_stopped_too(server: RunningServer, client: httpx.Client, stream_mode: list[str]) -> None:
    started = Started(server, graph="slow", input={}, stream_mode=stream_mode, until="tick")
    assert cancel(client, started.run_id, wait=True)["status"] == "cancelled"
    assert started.trace()[-1] == "left"
    assert started.frames()[-1]["event"] == "cancelled"


def test_an_invoke_answers_when_its_run_is_cancelled(server: RunningServer, client: httpx.Client) -> None:
    mark, run_id = len(server.trace()), str(uuid.uuid4())
    body = {"graph": "slow", "input": {}, "run_id": run_id}
    with RawExchange(server.port, "POST", "/runs/invoke", json_body=body) as waiting:
        wait_until(lambda: "tick" in server.trace()[mark:], "the node is at work")
        cancel(client, run_id)
        waiting.read_all()
    answer = httpx.Response(waiting.status, content=waiting.body)
    assert answer.status_code == 200
    assert answer.json() == {
        "run_id": run_id,
        "thread_id": answer.json()["thread_id"],
        "status": "cancelled",
        "output": {"log": ["before"], "messages": []},
        "interrupts": [],
        "next": ["tick"],
        "usage": None,
    }
    assert server.trace()[-1] == "left"


# -- how often, and when ----------------------------------------------------------------------------------------------


def test_to_cancel_twice_is_to_cancel_once(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="slow", input={}, until="tick")
    cancel(client, started.run_id)
    first = cancel(client, started.run_id, wait=True)
    assert cancel(client, started.run_id) == cancel(client, started.run_id, wait=True) == first
    frames = started.frames()
    assert [event for event in events(frames) if event in ENDS] == ["cancelled"]
    assert started.trace().count("left") == 1


def test_a_second_cancel_does_not_cut_a_nodes_own_clean_up_short(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="reluctant", input={}, until="tick")
    seen_at_answer: list[list[str]] = []

    def cancel_and_look() -> None:
        with server.client() as own:
            cancel(own, started.run_id, wait=True)
            seen_at_answer.append(started.trace())

    callers = [threading.Thread(target=cancel_and_look) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert seen_at_answer == [["before", "tick", "left"]] * 3
    assert events(started.frames()) == ["start", "node", "cancelled"]
    assert thread_of(client, started) == ("idle", ["tick"])


def test_without_wait_a_cancel_answers_before_the_work_has_stopped(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="reluctant", input={}, until="tick")
    assert cancel(client, started.run_id)["status"] == "running"
    assert started.frames()[-1]["event"] == "cancelled"
    assert started.trace()[-1] == "left"


@pytest.mark.parametrize(("graph", "status"), [("steps", "success"), ("ask", "interrupted"), ("fails", "error")])
@pytest.mark.parametrize("wait", [True, False])
def test_to_cancel_a_run_that_is_over_changes_nothing(
    client: httpx.Client, graph: str, status: str, wait: bool
) -> None:
    frames = run(client, graph=graph, input={})
    run_id = frames[0]["run_id"]
    before = client.get(f"/runs/{run_id}").json()
    assert cancel(client, run_id, wait=wait) == before
    assert before["status"] == status
    assert client.get(f"/runs/{run_id}/events").json()["events"] == frames
    if graph == "ask":
        assert events(run(client, thread_id=frames[0]["thread_id"], resume=True))[-1] == "complete"


def test_cancelled_at_any_moment_a_run_has_one_end_and_its_thread_takes_the_next_run(
    server: RunningServer, client: httpx.Client
) -> None:
    thread_id = f"t-{uuid.uuid4()}"
    for attempt in range(40):
        started = Started(server, thread_id=thread_id, graph="steps", input={})
        started.read_frames(1 + attempt % 4)
        row = cancel(client, started.run_id, wait=True)
        frames = started.frames()
        assert [event for event in events(frames) if event in ENDS] == [frames[-1]["event"]]
        assert row["status"] == {"complete": "success", "cancelled": "cancelled"}[frames[-1]["event"]]
        assert row["last_seq"] == frames[-1]["seq"] == len(frames)
        assert client.get(f"/threads/{thread_id}").json()["status"] == "idle"
    assert events(run(client, thread_id=thread_id, input={})) == ["start", "node", "node", "node", "complete"]


def test_an_unknown_run_cannot_be_cancelled(client: httpx.Client) -> None:
    problem_of(client.post(f"/runs/{uuid.uuid4()}/cancel"), 404, "run_not_found")


def test_a_cancel_takes_no_body_or_an_empty_one_and_refuses_what_it_does_not_know(client: httpx.Client) -> None:
    run_id = run(client, graph="steps", input={})[0]["run_id"]
    assert client.post(f"/runs/{run_id}/cancel").status_code == 200
    assert client.post(f"/runs/{run_id}/cancel", json={}).status_code == 200
    problem_of(client.post(f"/runs/{run_id}/cancel", json={"keep": True}), 422, "invalid_request")
    problem_of(client.post(f"/runs/{run_id}/cancel?wait=perhaps"), 422, "invalid_request")


# -- the partial answer -----------------------------------------------------------------------------------------------


def test_the_partial_answer_is_kept_in_the_thread_on_request(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="slow_talk", message="hi")
    started.read_frames(4)
    cancel(client, started.run_id, wait=True, body={"keep_partial": True})
    ((message_id, text),) = started.frames()[-1]["partial"].items()
    assert thread_of(client, started) == ("idle", [])
    messages = client.get(f"/threads/{started.thread_id}/state").json()["values"]["messages"]
    assert [message["type"] for message in messages] == ["human", "ai"]
    assert (messages[1]["id"], messages[1]["content"]) == (message_id, text)


def test_without_the_request_a_partial_answer_is_not_kept(server: RunningServer, client: httpx.Client) -> None:
    started = Started(server, graph="slow_talk", message="hi")
    started.read_frames(4)
    cancel(client, started.run_id, wait=True)
    started.frames()
    messages = client.get(f"/threads/{started.thread_id}/state").json()["values"]["messages"]
    assert [message["type"] for message in messages] == ["human"]
