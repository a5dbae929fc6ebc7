"""Stopping kindly over real sockets: what was said stays, and the next turn works (wire contract, section 4)."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.raw_client import data_of, frames_of, post, run_id_of
from tests.server import Frame, RunningServer, events, problem_of, run, spoken, wait_until
from tests.streaming.serving import serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("kept") / "data") as server:
        yield server


class Stopped:
    """A run that was stopped: its thread, its frames, and its row as the cancel answered it."""

    def __init__(
        self,
        server: RunningServer,
        client: httpx.Client,
        is_enough: Callable[[bytes], bool],
        *,
        keep_partial: bool = True,
        **body: Any,
    ) -> None:
        self._client = client
        self.thread_id = f"t-{uuid.uuid4()}"
        with post(server, {"thread_id": self.thread_id, **body}) as exchange:
            exchange.read_until(is_enough)
            url = f"/runs/{run_id_of(exchange)}/cancel"
            answer = client.post(url, params={"wait": True}, json={"keep_partial": keep_partial})
            self.row = answer.json()
            self.frames = [data_of(frame) for frame in frames_of(exchange.read_all().body)]
        assert answer.status_code == 200, answer.text

    @property
    def end(self) -> Frame:
        return self.frames[-1]

    @property
    def state(self) -> Any:
        return self._client.get(f"/threads/{self.thread_id}/state").json()

    @property
    def messages(self) -> list[Any]:
        found: list[Any] = self.state["values"]["messages"]
        return found


def has(text: str) -> Callable[[bytes], bool]:
    return lambda body: text.encode() in body


def test_the_partial_message_stays_marked_as_such_and_the_thread_is_idle(
    server: RunningServer, client: httpx.Client
) -> None:
    stopped = Stopped(server, client, has("word2"), graph="slow_talk", message="hi")
    assert (stopped.row["status"], events(stopped.frames)[-1]) == ("cancelled", "cancelled")
    assert stopped.end["partial"] == spoken(stopped.frames)
    human, said = stopped.messages
    assert (human["type"], said["type"]) == ("human", "ai")
    assert {said["id"]: said["content"]} == stopped.end["partial"]
    assert said["content"].startswith("word0 word1 word2 ")
    assert said["additional_kwargs"] == {"partial": True}
    assert stopped.state["next"] == []
    assert client.get(f"/threads/{stopped.thread_id}").json()["status"] == "idle"
    again = client.post("/runs/stream", json={"thread_id": stopped.thread_id, "input": None})
    problem_of(again, 409, "nothing_to_continue")


def test_without_it_the_end_has_the_text_as_well_but_the_thread_goes_on_where_it_was(
    server: RunningServer, client: httpx.Client
) -> None:
    stopped = Stopped(server, client, has("word2"), keep_partial=False, graph="slow_talk", message="hi")
    assert stopped.end["partial"] == spoken(stopped.frames)
    assert [message["type"] for message in stopped.messages] == ["human"]
    assert stopped.state["next"] == ["speak"]


def test_in_a_subgraph_too(server: RunningServer, client: httpx.Client) -> None:
    stopped = Stopped(server, client, has("word1"), graph="slow_below", message="hi", subgraphs=True)
    assert [message["content"] for message in stopped.messages[1:]] == list(stopped.end["partial"].values())
    assert stopped.messages[1]["content"].startswith("word0 word1 ")
    assert stopped.state["next"] == []


def test_calls_left_open_are_closed_and_the_next_turn_works_with_a_model_that_refuses_open_ones(
    server: RunningServer, client: httpx.Client
) -> None:
    stopped = Stopped(server, client, has('"tool_result"'), graph="talks", message="tools")
    tools = {message["tool_call_id"]: message for message in stopped.messages if message["type"] == "tool"}
    assert (tools["call-quick"]["content"], tools["call-quick"]["status"]) == ("done", "success")
    assert (tools["call-wait"]["status"], "stopped" in tools["call-wait"]["content"]) == ("error", True)
    assert stopped.state["next"] == []
    again = run(client, thread_id=stopped.thread_id, message="go on")
    assert events(again)[-1] == "complete"
    assert list(spoken(again).values()) == ["All is well."]


def test_a_turn_after_a_call_that_is_not_closed_fails_with_such_a_model(
    server: RunningServer, client: httpx.Client
) -> None:
    stopped = Stopped(server, client, has('"tool_result"'), keep_partial=False, graph="talks", message="tools")
    assert events(run(client, thread_id=stopped.thread_id, message="go on"))[-1] == "error"


@pytest.mark.parametrize("graph", ["talks", "only_branches"])
def test_the_next_turn_works_after_a_message_that_was_cut_whatever_the_graphs_edges_ask_for(
    server: RunningServer, client: httpx.Client, graph: str
) -> None:
    stopped = Stopped(server, client, has("word1"), graph=graph, message="slowly")
    assert stopped.end["event"] == "cancelled"
    assert stopped.messages[-1]["additional_kwargs"] == {"partial": True}
    again = run(client, thread_id=stopped.thread_id, message="go on")
    assert list(spoken(again).values()) == ["All is well."]
    assert [message["type"] for message in stopped.messages] == ["human", "ai", "human", "ai"]


def test_what_a_node_still_writes_as_it_is_stopped_keeps_nothing_from_staying(
    server: RunningServer, client: httpx.Client
) -> None:
    stopped = Stopped(server, client, has("word1"), graph="protests", message="hi")
    assert stopped.end["event"] == "cancelled"
    assert [frame["data"] for frame in stopped.frames if frame["event"] == "custom"] == list(range(200))
    assert {stopped.messages[-1]["id"]: stopped.messages[-1]["content"]} == stopped.end["partial"]


def test_messages_without_a_reducer_are_all_there(server: RunningServer, client: httpx.Client) -> None:
    said = [{"type": "human", "content": "first"}, {"type": "human", "content": "second"}]
    stopped = Stopped(server, client, has("word1"), graph="plain_list", input={"messages": said})
    assert [message["content"] for message in stopped.messages[:2]] == ["first", "second"]
    assert stopped.messages[2]["content"].startswith("word0 word1 ")


def test_a_graph_without_messages_is_only_made_idle(server: RunningServer, client: httpx.Client) -> None:
    stopped = Stopped(server, client, has('"node":"before"'), graph="slow", input={})
    assert stopped.end["partial"] == {}
    assert stopped.state["next"] == []
    assert stopped.state["values"]["log"] == ["before"]
    mark = len(server.trace())
    with post(server, {"thread_id": stopped.thread_id, "input": {}}) as exchange:
        exchange.read_frames(1)
        wait_until(lambda: "tick" in server.trace()[mark:], "the next run is at its second node")
        client.post(f"/runs/{run_id_of(exchange)}/cancel", params={"wait": True})
    assert server.trace()[mark] == "before"


@pytest.mark.parametrize("body", [{"keep_partial": "yes"}, {"keep": True}, [1]])
def test_what_is_no_such_body_is_refused(client: httpx.Client, body: Any) -> None:
    run_id = run(client, graph="steps", input={})[0]["run_id"]
    problem_of(client.post(f"/runs/{run_id}/cancel", json=body), 422, "invalid_request")


def test_of_a_run_that_has_ended_nothing_is_changed(client: httpx.Client) -> None:
    frames = run(client, graph="talk", message="hi", thread_id="ended")
    before = client.get("/threads/ended/state").json()
    row = client.post(f"/runs/{frames[0]['run_id']}/cancel", params={"wait": True}, json={"keep_partial": True}).json()
    assert row["status"] == "success"
    assert client.get("/threads/ended/state").json() == before
