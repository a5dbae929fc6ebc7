"""Two runs on one thread: `multitask_strategy` (wire contract, section 1)."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.raw_client import EVENTSOURCE, RawExchange, data_of, frames_of, new_gate, post
from tests.server import Frame, RunningServer, events, problem_of, run, running, wait_until


class Thread:
    """A thread of the graph `line`, and the runs that meet on it."""

    def __init__(self, server: RunningServer, client: httpx.Client) -> None:
        self.id = f"t-{uuid.uuid4()}"
        self.gate = new_gate(server)
        self.server, self.client = server, client
        self._stack = ExitStack()

    def start(self, name: str, *, asks: bool = False, **body: Any) -> RawExchange:
        """A run that waits at the gate; it is there when this returns, unless it has to wait for its turn."""
        exchange = self.ask(input={"name": name, "gate": self.gate, "asks": asks}, **body)
        if "multitask_strategy" not in body:
            self.wait_for(f"{name} waits")
        return exchange

    def ask(self, **body: Any) -> RawExchange:
        if "input" in body:  # the thread's state keeps the gate of the run before
            body["input"] = {"gate": "", **body["input"]}
        exchange = post(self.server, {"graph": "line", "thread_id": self.id, **body})
        return self._stack.enter_context(exchange)

    def wait_for(self, line: str) -> None:
        wait_until(lambda: line in self.server.trace(), line)

    def open_gate(self) -> None:
        self.server.open_gate(self.gate, 1)

    def close(self) -> None:
        self.open_gate()
        self._stack.close()

    @property
    def status(self) -> str:
        return str(self.client.get(f"/threads/{self.id}").json()["status"])

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/threads/{self.id}/state").json()
        return found

    @property
    def log(self) -> list[str]:
        return list(self.state["values"].get("log", []))


@pytest.fixture
def thread(server: RunningServer, client: httpx.Client) -> Iterator[Thread]:
    made = Thread(server, client)
    yield made
    made.close()


def read(exchange: RawExchange) -> list[Frame]:
    exchange.read_all()
    return [data_of(frame) for frame in frames_of(exchange.body)]


def name() -> str:
    return f"n{uuid.uuid4().hex[:8]}"


def run_id(exchange: RawExchange) -> str:
    if not exchange.headers:
        exchange.read_head()
    return str(exchange.headers["location"].split("/")[2])


def whole(*names: str) -> list[str]:
    return [f"{name} {did}" for name in names for did in ("began", "held", "ended")]


def row(client: httpx.Client, exchange: RawExchange) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.get(f"/runs/{run_id(exchange)}").json()
    return found


# -- enqueue ----------------------------------------------------------------------------------------------------------


def test_an_enqueued_run_begins_when_the_ones_before_it_have_ended(thread: Thread, client: httpx.Client) -> None:
    names = [name(), name(), name()]
    first = thread.start(names[0])
    second = thread.start(names[1], multitask_strategy="enqueue").read_head()
    third = thread.start(names[2], multitask_strategy="enqueue").read_head()
    assert [row(client, waiting)["status"] for waiting in (second, third)] == ["pending", "pending"]
    assert row(client, second)["started_at"] is None
    assert (row(client, second)["last_seq"], thread.status) == (0, "busy")
    problem_of(client.post("/runs/invoke", json={"graph": "line", "thread_id": thread.id}), 409, "thread_busy")
    thread.open_gate()
    for exchange in (first, second, third):
        frames = read(exchange)
        assert (frames[0]["event"], frames[0]["attempt"]) == ("start", 1)
        assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
        assert frames[-1]["event"] == "complete"
    assert (thread.log, thread.status) == (whole(*names), "idle")


def test_the_stream_of_an_enqueued_run_opens_at_once_and_shows_that_it_is_alive(tmp_path: Path) -> None:
    with (
        running(tmp_path / "data", env={"RUNSTREAM_HEARTBEAT_SECONDS": "0.05"}) as server,
        server.client() as client,
        ExitStack() as stack,
    ):
        thread = stack.enter_context(closing(Thread(server, client)))
        thread.start(name())
        plain = thread.start(name(), multitask_strategy="enqueue").read_until(lambda body: b": ping\n\n" in body)
        assert frames_of(plain.body) == []
        listening = RawExchange(server.port, "GET", f"/runs/{run_id(plain)}/stream", headers=EVENTSOURCE)
        with listening:
            listening.read_until(lambda body: b": ping\n" in body)
            thread.open_gate()
            assert read(listening) == read(plain)


def test_a_message_means_what_the_thread_waits_for_when_its_turn_comes(thread: Thread) -> None:
    paused = name()
    first = thread.start(paused, interrupt_before=["end"])
    goes_on = thread.ask(message="", multitask_strategy="enqueue").read_head()
    thread.open_gate()
    assert read(first)[-1]["event"] == "interrupt"
    frames = read(goes_on)
    assert [frame["node"] for frame in frames if frame["event"] == "node"] == ["end"]
    assert (frames[-1]["event"], thread.log) == ("complete", whole(paused))


def test_a_run_that_does_not_fit_the_thread_at_its_turn_ends_with_an_error_and_keeps_the_question(
    thread: Thread, client: httpx.Client
) -> None:
    first = thread.start(name(), interrupt_before=["end"])
    unfit = thread.start(name(), multitask_strategy="enqueue").read_head()
    answer = thread.ask(resume="go on", multitask_strategy="enqueue").read_head()
    thread.open_gate()
    assert read(first)[-1]["event"] == "interrupt"
    frames = read(unfit)
    assert events(frames) == ["start", "error"]
    assert (frames[-1]["code"], frames[-1]["retryable"]) == ("thread_interrupted", False)
    assert (row(client, unfit)["status"], row(client, unfit)["error"]["code"]) == ("error", "thread_interrupted")
    assert read(answer)[-1]["event"] == "complete"
    assert thread.status == "idle"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"graph": "steps", "input": {}}, 409, "graph_mismatch"),
        ({"input": [1]}, 422, "invalid_request"),
        ({"input": {}, "interrupt_before": ["nowhere"]}, 422, "invalid_request"),
    ],
)
def test_what_can_never_run_is_refused_before_it_waits(
    thread: Thread, client: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    thread.start(name())
    asked = {"graph": "line", "thread_id": thread.id, "multitask_strategy": "enqueue", **body}
    problem_of(client.post("/runs/stream", json=asked), status, code)


def test_a_waiting_run_is_cancelled_without_ever_beginning(thread: Thread, client: httpx.Client) -> None:
    first, other = name(), name()
    running_one = thread.start(first)
    waiting = thread.start(other, multitask_strategy="enqueue").read_head()
    answer = client.post(f"/runs/{run_id(waiting)}/cancel", params={"wait": True})
    assert (answer.json()["status"], thread.status) == ("cancelled", "busy")
    frames = read(waiting)
    assert events(frames) == ["start", "cancelled"]
    assert (frames[-1]["reason"], frames[-1]["partial"]) == ("user", {})
    assert client.post(f"/runs/{run_id(waiting)}/cancel").json()["status"] == "cancelled"
    thread.open_gate()
    read(running_one)
    assert thread.log == whole(first)


def test_a_waiting_run_that_nobody_looks_on_is_cancelled(tmp_path: Path) -> None:
    env = {"RUNSTREAM_DISCONNECT_GRACE_SECONDS": "0.1"}
    with running(tmp_path / "data", env=env) as server, server.client() as client, ExitStack() as stack:
        thread = stack.enter_context(closing(Thread(server, client)))
        thread.start(name())
        left = thread.start(name(), multitask_strategy="enqueue").read_head()
        stays = thread.start(name(), multitask_strategy="enqueue", on_disconnect="continue").read_head()
        left.cut("RST")
        stays.cut("RST")
        wait_until(lambda: row(client, left)["status"] == "cancelled", "the run that nobody waits for is gone")
        assert client.get(f"/runs/{run_id(left)}/events").json()["events"][-1]["reason"] == "disconnect"
        assert row(client, stays)["status"] == "pending"
        thread.open_gate()
        wait_until(lambda: row(client, stays)["status"] == "success", "the other one has its turn")


def test_the_same_request_twice_waits_once(thread: Thread, client: httpx.Client) -> None:
    thread.start(name())
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"graph": "line", "thread_id": thread.id, "input": {"name": name()}, "multitask_strategy": "enqueue"}
    with post(thread.server, body, key) as one, post(thread.server, body, key) as two:
        one.read_head()
        two.read_head()
        assert run_id(one) == run_id(two)
        thread.open_gate()
        assert read(one) == read(two)


def test_a_thread_is_followed_from_run_to_run(thread: Thread) -> None:
    names = [name(), name()]
    first = thread.start(names[0])
    second = thread.start(names[1], multitask_strategy="enqueue").read_head()
    with RawExchange(thread.server.port, "GET", f"/threads/{thread.id}/runs/stream") as following:
        following.read_frames(1)
        thread.open_gate()
        expected = read(first) + read(second)
        following.read_frames(len(expected))
        assert [data_of(frame) for frame in frames_of(following.body)][: len(expected)] == expected


def test_a_waiting_run_survives_a_crash_and_has_its_turn(tmp_path: Path) -> None:
    data, names = tmp_path / "data", [name(), name()]
    with running(data) as server, server.client() as client, ExitStack() as stack:
        thread = stack.enter_context(closing(Thread(server, client)))
        first = thread.start(names[0], on_disconnect="continue")
        second = thread.start(names[1], multitask_strategy="enqueue", on_disconnect="continue").read_head()
        ids = [run_id(first), run_id(second)]
        gate, thread_id = thread.gate, thread.id
        server.kill()
    with running(data) as server, server.client() as client:
        server.open_gate(gate, 1)
        found = [client.get(f"/runs/{each}/stream").text for each in ids]
        kinds = [events(frames_in(text)) for text in found]
        assert "restart" in kinds[0]
        assert "restart" not in kinds[1]
        assert [each[-1] for each in kinds] == ["complete", "complete"]
        log = client.get(f"/threads/{thread_id}/state").json()["values"]["log"]
        assert log == whole(*names)


def frames_in(text: str) -> list[Frame]:
    return [data_of(frame) for frame in frames_of(text.encode())]


def test_an_invoke_waits_for_its_turn_too(thread: Thread, client: httpx.Client) -> None:
    first, second = name(), name()
    running_one = thread.start(first)
    waiting = thread.ask(input={"name": second}, multitask_strategy="enqueue").read_head()
    thread.open_gate()
    body = {"graph": "line", "thread_id": thread.id, "input": {"name": "last"}, "multitask_strategy": "enqueue"}
    answer = client.post("/runs/invoke", json=body)
    assert answer.json()["status"] == "success"
    assert answer.json()["output"]["log"] == whole(first, second, "last")
    read(running_one)
    read(waiting)


# -- interrupt and rollback -------------------------------------------------------------------------------------------


def test_interrupt_stops_the_other_run_and_keeps_its_finished_steps(thread: Thread, client: httpx.Client) -> None:
    first, second = name(), name()
    stopped = thread.start(first)
    frames = read(thread.ask(input={"name": second}, multitask_strategy="interrupt"))
    assert events(frames)[0] == "start"
    assert frames[-1]["event"] == "complete"
    end = read(stopped)[-1]
    assert (end["event"], end["reason"]) == ("cancelled", "superseded")
    assert row(client, stopped)["status"] == "cancelled"
    assert thread.log == [f"{first} began", *whole(second)]


def test_rollback_undoes_the_steps_of_the_other_run(thread: Thread, client: httpx.Client) -> None:
    zero, first, second = name(), name(), name()
    read(thread.ask(input={"name": zero}))
    before = client.post(f"/threads/{thread.id}/history", json={"limit": 100}).json()
    stopped = thread.start(first)
    frames = read(thread.ask(input={"name": second}, multitask_strategy="rollback"))
    assert frames[-1]["event"] == "complete"
    assert read(stopped)[-1]["reason"] == "superseded"
    assert thread.log == whole(zero, second)
    after = client.post(f"/threads/{thread.id}/history", json={"limit": 100}).json()
    assert after[-len(before) :] == before
    assert all(first not in str(item["values"]) for item in after)


def test_rollback_of_an_answer_asks_the_question_again(thread: Thread, client: httpx.Client) -> None:
    first = name()
    asked = read(thread.ask(input={"name": first, "asks": True, "gate": thread.gate}))[-1]
    before = thread.state
    ids = {entry["value"]: entry["id"] for entry in asked["interrupts"]}
    read(thread.ask(resume={ids["left?"]: "one"}))
    partly = thread.state
    stopped = thread.ask(resume={ids["right?"]: "two"})
    thread.wait_for(f"{first} waits")
    redone = thread.ask(resume={ids["right?"]: "other"}, multitask_strategy="rollback").read_head()
    assert read(stopped)[-1]["reason"] == "superseded"
    thread.open_gate()
    assert read(redone)[-1]["event"] == "complete"
    assert sorted(thread.log) == sorted([*whole(first), "left: one", "right: other"])
    assert (before["next"], partly["next"]) == (["left", "right"], ["right"])


def test_rollback_to_a_question_takes_no_new_input_for_it(thread: Thread) -> None:
    first = name()
    asked = read(thread.ask(input={"name": first, "asks": True, "gate": thread.gate}))[-1]
    before = thread.state
    answered = thread.ask(resume={entry["id"]: "yes" for entry in asked["interrupts"]})
    thread.wait_for(f"{first} waits")
    frames = read(thread.ask(input={"name": name()}, multitask_strategy="rollback"))
    assert (events(frames), frames[-1]["code"]) == (["start", "error"], "thread_interrupted")
    assert read(answered)[-1]["reason"] == "superseded"
    assert (thread.status, thread.state) == ("interrupted", before)


def test_rollback_of_a_run_that_had_waited_goes_back_to_what_it_began_from(thread: Thread) -> None:
    first, asks = name(), name()
    before = thread.start(first)
    pauses = thread.start(asks, multitask_strategy="enqueue", asks=True).read_head()
    stopped = thread.ask(
        command={"goto": "hold", "update": {"gate": new_gate(thread.server)}}, multitask_strategy="enqueue"
    ).read_head()
    thread.open_gate()
    assert [read(before)[-1]["event"], read(pauses)[-1]["event"]] == ["complete", "interrupt"]
    thread.wait_for(f"{asks} waits")
    frames = read(thread.ask(message="yes", multitask_strategy="rollback"))
    # an answer, as it would have been before the run that is undone; and there are two questions
    assert (events(frames), frames[-1]["code"]) == (["start", "error"], "ambiguous_resume")
    assert read(stopped)[-1]["reason"] == "superseded"
    assert (thread.status, thread.state["next"]) == ("interrupted", ["left", "right"])


def test_rollback_of_a_first_run_leaves_a_new_thread(thread: Thread) -> None:
    stopped, second = thread.start(name()), name()
    assert read(thread.ask(input={"name": second}, multitask_strategy="rollback"))[-1]["event"] == "complete"
    assert read(stopped)[-1]["reason"] == "superseded"
    assert thread.log == whole(second)


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
def test_runs_that_wait_are_superseded_too(thread: Thread, strategy: str) -> None:
    first, last = name(), name()
    stopped = thread.start(first)
    waiting = thread.start(name(), multitask_strategy="enqueue").read_head()
    assert read(thread.ask(input={"name": last}, multitask_strategy=strategy))[-1]["event"] == "complete"
    assert read(stopped)[-1]["reason"] == "superseded"
    assert (events(read(waiting)), read(waiting)[-1]["reason"]) == (["start", "cancelled"], "superseded")
    kept = [f"{first} began"] if strategy == "interrupt" else []
    assert thread.log == [*kept, *whole(last)]


@pytest.mark.parametrize("strategy", ["enqueue", "interrupt", "rollback"])
def test_on_a_free_thread_every_strategy_begins_at_once(client: httpx.Client, strategy: str) -> None:
    frames = run(client, graph="line", input={"name": "free"}, multitask_strategy=strategy)
    assert events(frames) == ["start", *["node"] * 5, "complete"]


def test_a_rollback_is_carried_out_though_the_process_is_killed_between(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server, server.client() as client, ExitStack() as stack:
        thread = stack.enter_context(closing(Thread(server, client)))
        # a sync node does not stop: its run is being stopped for as long as the process lives
        stopped = thread.ask(input={"name": "stuck", "gate": thread.gate, "sync": True}, on_disconnect="continue")
        thread.wait_for("stuck waits")
        after = {"input": {"name": "after"}, "multitask_strategy": "rollback", "on_disconnect": "continue"}
        exchange = thread.ask(**after).read_head()
        ids, thread_id = [run_id(stopped), run_id(exchange)], thread.id
        server.kill()
    with running(data) as server, server.client() as client:
        found = [frames_in(client.get(f"/runs/{each}/stream").text) for each in ids]
        assert [frames[-1]["event"] for frames in found] == ["cancelled", "complete"]
        assert client.get(f"/threads/{thread_id}/state").json()["values"]["log"] == whole("after")


def test_two_at_once_leave_one_behind_the_other(thread: Thread) -> None:
    thread.start(name())
    names = [name() for _ in range(5)]
    waiting = [thread.start(each, multitask_strategy="enqueue") for each in names]
    thread.open_gate()
    for exchange in waiting:
        assert read(exchange)[-1]["event"] == "complete"
    said = thread.log[3:]
    assert sorted(said) == sorted(whole(*names))
    for each in names:
        place = said.index(f"{each} began")
        assert said[place : place + 3] == whole(each)
