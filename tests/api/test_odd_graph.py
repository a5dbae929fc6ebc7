"""Graphs that do what most do not: they exit, fail validation, bring a store, ask from an unsaved subgraph."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import events, run, running

GRAPHS = """
import operator
from typing import Annotated

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list, operator.add]


class Strict(BaseModel):
    text: str = Field(min_length=2)


def one(node, **options):
    return StateGraph(State).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile(**options)


def leave(state):
    raise SystemExit(3)


async def leave_later(state):
    raise KeyboardInterrupt


def say(name):
    def node(state):
        return {"log": [name]}

    return node


async def remember(state, runtime: Runtime):
    await runtime.store.aput(("x",), "key", {"value": 1})
    return {"log": [(await runtime.store.aget(("x",), "key")).value["value"]]}


def question(state):
    return {"log": [interrupt("why?")]}


leaves = one(leave)
leaves_later = one(leave_later)
strict = StateGraph(Strict).add_node("node", lambda state: {}).add_edge(START, "node").compile()
two = (
    StateGraph(State).add_node("a", say("a")).add_node("b", say("b"))
    .add_edge(START, "a").add_edge("a", "b").add_edge("b", END).compile()
)
remembers = one(remember, store=InMemoryStore())
asks_unsaved = one(one(question, checkpointer=False))
asks_kept = one(one(question, checkpointer=True))


def makes_nothing():
    raise RuntimeError("no")
"""

NAMES = ("leaves", "leaves_later", "strict", "two", "remembers", "asks_unsaved", "asks_kept", "makes_nothing")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("odd")
    (folder / "odd.py").write_text(GRAPHS)
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"graphs": {name: f"./odd.py:{name}" for name in NAMES}}))
    with running(folder / "data", config=config) as server, server.client() as client:
        yield client


@pytest.mark.parametrize("graph", ["leaves", "leaves_later"])
def test_a_node_that_exits_ends_its_run_and_not_the_server(client: httpx.Client, graph: str) -> None:
    frames = run(client, graph=graph, input={})
    assert events(frames) == ["start", "error"]
    assert (frames[-1]["code"], frames[-1]["node"]) == ("graph_error", "node")
    assert client.get("/health").status_code == 200


def test_a_thread_whose_state_is_not_valid_can_be_read_listed_and_deleted(client: httpx.Client) -> None:
    frames = run(client, graph="strict", thread_id="strict", input={"text": "a"})
    assert frames[-1]["code"] == "graph_error"
    assert client.get("/threads/strict/state").json()["values"] == {"text": "a"}
    assert client.get("/threads/strict/history").status_code == 200
    assert client.post("/threads/search", json={}).status_code == 200
    assert client.delete("/threads/strict").status_code == 204


@pytest.mark.parametrize("command", [{"goto": "b"}, {"update": {"log": ["new"]}}])
def test_a_command_may_begin_a_thread(client: httpx.Client, command: dict[str, object]) -> None:
    answer = client.post("/runs/invoke", json={"graph": "two", "command": command}).json()
    assert answer["status"] == "success"
    assert {"a", "b"} <= set(answer["output"]["log"])


def test_a_graph_keeps_the_store_it_was_compiled_with(client: httpx.Client) -> None:
    answer = client.post("/runs/invoke", json={"graph": "remembers", "input": {}}).json()
    assert answer["output"] == {"log": [1]}


@pytest.mark.parametrize("graph", ["asks_unsaved", "asks_kept"])
@pytest.mark.parametrize("answer", ["because", False, ["a"], 0])
def test_a_question_of_a_subgraph_takes_its_answer_however_it_is_saved(
    client: httpx.Client, graph: str, answer: object
) -> None:
    first = run(client, graph=graph, input={}, subgraphs=True)
    thread_id = first[0]["thread_id"]
    frames = run(client, thread_id=thread_id, resume=answer, subgraphs=True)
    assert events(frames) == ["start", "node", "node", "complete"]
    inner, outer = frames[1:3]
    assert inner["ns"] == [f"node:{outer['task_id']}"]
    assert outer["data"] == {"log": [answer]}


def test_a_factory_that_makes_nothing_is_named_and_hides_no_other(client: httpx.Client) -> None:
    listed = {graph["name"]: graph for graph in client.get("/graphs").json()["graphs"]}
    assert list(listed) == list(NAMES)
    assert listed["makes_nothing"] == {"name": "makes_nothing", "error": "graph_unavailable"}
    assert "mermaid" in listed["two"]
    assert list(client.get("/ready").json()["graphs"]) == ["makes_nothing"]


def test_a_run_id_in_capitals_is_the_same_id(client: httpx.Client) -> None:
    capitals = "ABCDEF00-3B0C-4B5F-9A57-2F1F6A0C9E11"
    frames = run(client, graph="two", input={}, run_id=capitals)
    assert client.get(f"/runs/{capitals}").json()["run_id"] == frames[0]["run_id"]
    rest = client.get(f"/runs/{capitals}/stream", headers={"Last-Event-ID": f"{capitals}.3"})
    assert rest.text.startswith("data: ")


def test_what_is_no_message_is_refused_before_the_stream(tmp_path: Path) -> None:
    wrong = [5, [{"role": "bogus", "content": "x"}], [{"role": "user"}]]
    with running(tmp_path / "data") as server, server.client() as client:
        for messages in wrong:
            answer = client.post("/runs/stream", json={"graph": "talk", "input": {"messages": messages}})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
