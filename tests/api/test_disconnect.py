"""The client leaves (wire contract, section 1, `on_disconnect`): here the grace is 0.3 seconds."""

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.raw_client import EVENTSOURCE, RawExchange, data_of, frames_of, gauge, get, new_gate, open_streams
from tests.server import RunningServer, events, run, running, wait_until

# a node works a tenth of a second at a time: what it may do in the grace and one second more
WORK_ALLOWED = 13
# what it does in well more than the grace
WORK_OF_A_SECOND = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    env = {"RUNSTREAM_DISCONNECT_GRACE_SECONDS": "0.3"}
    with running(tmp_path_factory.mktemp("grace") / "data", env=env) as server:
        yield server


class Left:
    """A run whose client is about to leave."""

    def __init__(self, server: RunningServer, *, path: str = "/runs/stream", **body: Any) -> None:
        self.run_id, self.thread_id = str(uuid.uuid4()), f"t-{uuid.uuid4()}"
        self._server, self._mark = server, len(server.trace())
        body = {"run_id": self.run_id, "thread_id": self.thread_id, **body}
        self.exchange = RawExchange(server.port, "POST", path, json_body=body)
        wait_until(lambda: {"tick", "speaking"} & set(self.trace()), "the node is at work")

    def trace(self) -> list[str]:
        return self._server.trace()[self._mark :]

    def ticks(self) -> int:
        return self.trace().count("tick")

    def works_on(self, client: httpx.Client) -> None:
        """Wait for a second's work, and see that it still runs."""
        before = self.ticks()
        wait_until(lambda: self.ticks() >= before + WORK_OF_A_SECOND or "left" in self.trace(), "a second's work")
        assert "left" not in self.trace()
        assert self.row(client)["status"] == "running"

    def row(self, client: httpx.Client) -> dict[str, Any]:
        row: dict[str, Any] = client.get(f"/runs/{self.run_id}").json()
        return row

    def log(self, client: httpx.Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get(f"/runs/{self.run_id}/events", params={"limit": 5000}).json()["events"]
        return found

    def ends(self, client: httpx.Client, status: str = "cancelled") -> dict[str, Any]:
        """Its last event, once it has come."""
        wait_until(lambda: self.row(client)["status"] != "running", "the run ends")
        assert self.row(client)["status"] == status
        return self.log(client)[-1]


CASES: dict[str, dict[str, Any]] = {
    "updates": {"graph": "slow", "input": {}, "stream_mode": "updates"},
    "messages": {"graph": "slow_talk", "message": "hi", "stream_mode": "messages"},
    "custom": {"graph": "slow_custom", "input": {}, "stream_mode": "custom"},
    "everything": {"graph": "slow_custom", "input": {}, "stream_mode": ["values", "tasks", "checkpoints", "debug"]},
    "subgraphs": {"graph": "slow_below", "message": "hi", "subgraphs": True},
    "a silent node": {"graph": "slow", "input": {}, "stream_mode": []},
    "invoke": {"graph": "slow", "input": {}, "path": "/runs/invoke"},
    "invoke of a model": {"graph": "slow_below", "message": "hi", "path": "/runs/invoke", "stream_mode": "messages"},
}


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize("case", CASES)
def test_when_the_client_has_left_no_node_works_on_and_the_thread_can_be_continued(
    server: RunningServer, client: httpx.Client, case: str, how: str
) -> None:
    left = Left(server, **CASES[case])
    ticks, seq = left.ticks(), left.row(client)["last_seq"]
    left.exchange.cut(how)
    end = left.ends(client)
    assert (end["event"], end["reason"]) == ("cancelled", "disconnect")
    assert left.trace()[-1] == "left"
    assert left.ticks() - ticks <= WORK_ALLOWED
    assert (
        len([event for event in left.log(client) if event["event"] == "token" and event["seq"] > seq]) <= WORK_ALLOWED
    )
    assert client.get(f"/threads/{left.thread_id}").json()["status"] == "idle"
    waiting = client.get(f"/threads/{left.thread_id}/state").json()["next"]
    again = Left(server, thread_id=left.thread_id, input=None)
    assert "before" not in again.trace()
    again.exchange.cut(how)
    again.ends(client)
    assert client.get(f"/threads/{left.thread_id}/state").json()["next"] == waiting


def test_a_reader_that_comes_back_in_time_stops_the_clock(server: RunningServer, client: httpx.Client) -> None:
    left = Left(server, graph="slow", input={})
    left.exchange.cut("RST")
    for _ in range(2):
        headers = {**EVENTSOURCE, "Last-Event-ID": f"{left.run_id}.1"}
        with RawExchange(server.port, "GET", f"/runs/{left.run_id}/stream", headers=headers) as reader:
            reader.read_frames(1)
            left.works_on(client)
            reader.cut("FIN")
    assert left.ends(client)["reason"] == "disconnect"


def test_a_run_goes_on_as_long_as_one_of_its_readers_is_there(server: RunningServer, client: httpx.Client) -> None:
    left = Left(server, graph="slow", input={})
    with RawExchange(server.port, "GET", f"/runs/{left.run_id}/stream") as other:
        other.read_frames(1)
        left.exchange.cut("RST")
        left.works_on(client)
        other.cut("RST")
    assert left.ends(client)["reason"] == "disconnect"


def test_a_reader_of_the_thread_is_a_reader_of_its_run(server: RunningServer, client: httpx.Client) -> None:
    left = Left(server, graph="slow", input={})
    with get(server, f"/threads/{left.thread_id}/runs/stream") as other:
        other.read_frames(1)
        left.exchange.cut("RST")
        left.works_on(client)
        other.cut("RST")
    assert left.ends(client)["reason"] == "disconnect"


def test_a_waiting_invoke_of_the_same_key_is_a_reader(server: RunningServer, client: httpx.Client) -> None:
    left = Left(server, graph="slow", input={})
    body = {"run_id": left.run_id, "thread_id": left.thread_id, "graph": "slow", "input": {}}
    with RawExchange(server.port, "POST", "/runs/invoke", json_body=body) as invoke:
        wait_until(lambda: open_streams(client) == 2, "the invoke waits")
        left.exchange.cut("RST")
        left.works_on(client)
        invoke.cut("RST")
    assert left.ends(client)["reason"] == "disconnect"


def test_long_polls_are_readers_with_the_grace_after_each(server: RunningServer, client: httpx.Client) -> None:
    left = Left(server, graph="slow_custom", input={})
    after = 1
    left.exchange.cut("RST")
    before = left.ticks()
    while left.ticks() < before + WORK_OF_A_SECOND:
        page = client.get(f"/runs/{left.run_id}/events", params={"after": after, "wait_seconds": 5}).json()
        after = page["next_after"]
        assert not page["closed"]
    assert left.ends(client)["reason"] == "disconnect"


def test_a_long_poll_that_waits_keeps_the_run_and_one_that_was_left_does_not(
    server: RunningServer, client: httpx.Client
) -> None:
    left = Left(server, graph="slow", input={})
    path = f"/runs/{left.run_id}/events?after=2&wait_seconds=30"
    with RawExchange(server.port, "GET", path) as poll:
        wait_until(lambda: open_streams(client) == 2, "the poll waits")
        left.exchange.cut("RST")
        left.works_on(client)
        ticks = left.ticks()
        poll.cut("RST")
    assert left.ends(client)["reason"] == "disconnect"
    assert left.ticks() - ticks <= WORK_ALLOWED


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_with_continue_a_run_ends_by_itself_and_can_be_read_afterwards(
    server: RunningServer, client: httpx.Client, path: str
) -> None:
    # a second and a half of work: well more than the grace
    left = Left(server, path=path, graph="slow_sync", input={}, on_disconnect="continue")
    left.exchange.cut("RST")
    left.ends(client, "success")
    assert left.trace()[-1] == "left"
    with RawExchange(server.port, "GET", f"/runs/{left.run_id}/stream") as reader:
        frames = [data_of(frame) for frame in frames_of(reader.read_all().body)]
    assert events(frames) == ["start", "node", "complete"]


def test_a_run_that_ends_within_the_grace_is_not_touched_by_it(server: RunningServer, client: httpx.Client) -> None:
    gate, run_id = new_gate(server, 6), str(uuid.uuid4())
    body = {"graph": "gated", "input": {"gate": gate}, "run_id": run_id}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
        exchange.read_frames(1)
        exchange.cut("RST")
    wait_until(lambda: client.get(f"/runs/{run_id}").json()["status"] != "running", "the run ends")
    assert client.get(f"/runs/{run_id}").json()["status"] == "success"


# -- leaks ------------------------------------------------------------------------------------------------------------


def descriptors(server: RunningServer) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def threads(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def task_names(client: httpx.Client) -> list[str]:
    """The coroutines of the process's tasks, as a node sees them."""
    (told,) = [frame for frame in run(client, graph="all_tasks", input={"gate": ""}) if frame["event"] == "custom"]
    return sorted(re.match(r"<[^ ]+ object ([^ ]+)|.*", name)[0] for name in told["data"]["tasks"])  # type: ignore[index]


def disturb(server: RunningServer, client: httpx.Client, rounds: int) -> None:
    """Runs of every kind whose clients leave in every way, until nothing of them is at work any more."""
    for turn in range(rounds):
        how = ("RST", "FIN")[turn % 2]
        run(client, graph="talk", message="hi")
        for path, body in (
            ("/runs/stream", {"graph": "steps", "input": {}}),
            ("/runs/stream", {"graph": "slow_talk", "message": "hi"}),
            ("/runs/stream", {"graph": "slow_custom", "input": {}, "subgraphs": True}),
            ("/runs/invoke", {"graph": "slow", "input": {}}),
        ):
            run_id = str(uuid.uuid4())
            with RawExchange(server.port, "POST", path, json_body={**body, "run_id": run_id}) as exchange:
                if path == "/runs/stream":
                    exchange.read_frames(1)
                else:
                    wait_until(lambda: gauge(client, "runstream_open_streams") > 0, "the invoke waits")
                with RawExchange(server.port, "GET", f"/runs/{run_id}/events?after=1&wait_seconds=30") as poll:
                    exchange.cut(how)
                    poll.cut(how)
    wait_until(lambda: gauge(client, "runstream_active_runs") == 0, "no run is at work")
    wait_until(lambda: open_streams(client) == 0, "no stream is open")


def test_runs_and_clients_that_left_leave_no_descriptor_thread_or_task_behind(
    server: RunningServer, client: httpx.Client
) -> None:
    disturb(server, client, rounds=6)
    before = (descriptors(server), threads(server), task_names(client))
    disturb(server, client, rounds=12)
    # the connections' own ends come a moment after the runs'
    wait_until(
        lambda: descriptors(server) <= before[0] + 2, f"{descriptors(server)} descriptors, {before[0]} before", 5
    )
    assert threads(server) <= before[1] + 2
    assert task_names(client) == before[2]
