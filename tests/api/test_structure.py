"""Structure before it is complete, what is no text, and what authors say of their nodes, over real sockets."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.raw_client import EVENTSOURCE, data_of, frames_of, get, id_of, new_gate, post, run_id_of, uncut
from tests.server import Frame, RunningServer, run
from tests.streaming.serving import serving

EACH = {"flush": "each", "exclude_whitespace": False, "parsed": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("structure") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def run_id(server: RunningServer) -> str:
    with server.client() as client:
        return str(run(client, graph="authored", message="hi")[0]["run_id"])


def read(server: RunningServer, run_id: str, tokens: Any = None, after: int = 0) -> list[dict[str, Any]]:
    query = f"after={after}" + ("" if tokens is None else f"&tokens={quote(json.dumps(tokens))}")
    with get(server, f"/runs/{run_id}/stream?{query}") as exchange:
        return [data_of(frame) for frame in frames_of(exchange.read_all().body)]


def test_a_reader_that_comes_before_a_waiting_run_begins_gets_what_all_get(server: RunningServer) -> None:
    body = {"graph": "authored", "message": "hi", "thread_id": "line", "multitask_strategy": "enqueue"}
    with ExitStack() as stack:
        waiting = [stack.enter_context(post(server, body)) for _ in range(5)]
        found = {run_id_of(exchange.read_all()): exchange.body for exchange in waiting}
    assert found == {run_id: uncut(server, run_id, {}) for run_id in found}


def of(frames: list[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame["event"] == kind]


def said_by(node: str, frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame["data"] for frame in of(frames, "token") if frame["node"] == node]


def test_a_picture_and_a_citation_keep_their_type_and_place(server: RunningServer, run_id: str) -> None:
    found = said_by("paint", read(server, run_id, {"flush": {"count": 9}}))
    assert [(d["content"], d["index"], d.get("block", {}).get("type"), "annotations" in d) for d in found] == [
        ("look look ", 0, None, False),
        ("", 0, None, True),
        ("", 1, "image", False),
        ("there", 2, None, False),
    ]
    assert found[-1]["last"] is True


def test_a_node_is_sent_as_its_author_said(server: RunningServer, run_id: str) -> None:
    frames = read(server, run_id)
    form = said_by("fill_in", frames)
    assert [d["content"] for d in form] == ['{"title": "A boat", "tags": ["sea"', ', "wind"], "year": 19', "60}"]
    assert [d["parsed"] for d in form] == [
        {"title": "A boat", "tags": ["sea"]},
        {"title": "A boat", "tags": ["sea", "wind"], "year": 19},
        {"title": "A boat", "tags": ["sea", "wind"], "year": 1960},
    ]
    assert [d["content"] for d in said_by("remark", frames)] == ["a b c "]
    assert [d["content"] for d in said_by("paint", frames)] == ["look ", "look ", "", "", "there"]


def test_a_client_that_asks_for_something_else_gets_it_and_the_log_has_every_token(
    server: RunningServer, client: httpx.Client, run_id: str
) -> None:
    frames = read(server, run_id, EACH)
    assert [d["content"] for d in said_by("remark", frames)] == ["a ", "b ", " ", "c "]
    assert not any("parsed" in d for d in said_by("fill_in", frames))
    log = client.get(f"/runs/{run_id}/events").json()["events"]
    assert frames == log


def test_inside_a_subgraph_too(client: httpx.Client) -> None:
    frames = run(client, graph="authored_below", message="hi", subgraphs=True)
    assert [d["content"] for d in said_by("remark", frames)] == ["a b c "]


@pytest.mark.parametrize("tokens", [None, {"parsed": True, "flush": "each"}], ids=["author's", "reader's"])
def test_one_who_comes_back_after_any_frame_gets_the_rest_with_all_that_was_said_before(
    server: RunningServer, run_id: str, tokens: Any
) -> None:
    uncut = read(server, run_id, tokens)
    assert sum("parsed" in d for d in said_by("fill_in", uncut)) >= 3
    for number, frame in enumerate(uncut, 1):
        assert read(server, run_id, tokens, after=frame["seq"]) == uncut[number:]


def test_arguments_of_a_tool_are_shown_before_they_are_complete_and_after_a_cut(
    server: RunningServer, client: httpx.Client
) -> None:
    frames = run(client, graph="agent", message="hi", tokens={"parsed": True})
    deltas = of(frames, "tool_call_delta")
    assert [frame["data"].get("parsed") for frame in deltas] == [None, {"a": 2}, {"a": 2, "b": 2}]
    again = read(server, frames[0]["run_id"], after=deltas[1]["seq"])
    assert again == [frame for frame in frames if frame["seq"] > deltas[1]["seq"]]


def test_on_a_thread_that_is_followed_from_an_id_too(server: RunningServer, client: httpx.Client) -> None:
    frames = run(client, graph="agent", message="hi", thread_id="followed", tokens={"parsed": True})
    [_, second, third] = of(frames, "tool_call_delta")
    last_id = f"{frames[0]['run_id']}.{second['seq']}"
    with get(server, "/threads/followed/runs/stream", {**EVENTSOURCE, "Last-Event-ID": last_id}) as exchange:
        exchange.read_frames(1)
        assert data_of(frames_of(exchange.body)[0]) == third


def test_a_reader_that_is_cut_in_a_running_run_goes_on_with_what_was_said(server: RunningServer) -> None:
    gate = new_gate(server, 2)
    body = {
        "graph": "stalls",
        "input": {"gate": gate, "messages": []},
        "tokens": {"flush": {"count": 2}, "parsed": True},
    }
    with post(server, body, EVENTSOURCE) as first:
        first.read_frames(2)
        last = frames_of(first.body)[1]
        assert data_of(last)["data"]["content"] == "one two "
        run_id, _, seq = str(id_of(last)).partition(".")
        with get(server, f"/runs/{run_id}/stream", {"Last-Event-ID": seq}) as second:
            server.open_gate(gate, 3)
            rest = [data_of(frame) for frame in frames_of(second.read_all().body)]
        assert [frame["data"]["content"] for frame in of(rest, "token")] == ["three "]
