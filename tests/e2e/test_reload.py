"""`serve --reload`: the server starts anew when a file changes, and its clients notice a drop and nothing more."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from watchfiles import Change

from app.reload import Filter
from tests.server import Frame, RunningServer, events, frames_of, problem_of, run, wait_until

GRAPH = """
import asyncio, operator, pathlib
from typing import Annotated, TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict):
    log: Annotated[list[str], operator.add]

async def before(state):
    with open(pathlib.Path(__file__).parent / "ran", "a") as file:
        file.write("before ")
    return {"log": ["before"]}

async def wait(state):
    while not (pathlib.Path(__file__).parent / "gate").exists():
        await asyncio.sleep(0.01)
    return {"log": ["version 1"]}

builder = StateGraph(State).add_node("before", before).add_node("wait", wait)
graph = builder.add_edge(START, "before").add_edge("before", "wait").add_edge("wait", END).compile()
"""


class Project:
    """A user's project, served with --reload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "graph.py"
        self.path.write_text(GRAPH)
        (folder / "other.py").write_text(GRAPH)
        graphs = {"graph": "./graph.py:graph", "other": "./other.py:graph"}
        (folder / "langgraph.json").write_text(json.dumps({"graphs": graphs}))

    @contextmanager
    def served(self) -> Iterator[RunningServer]:
        config = self.folder / "langgraph.json"
        server = RunningServer(self.folder / "data", config=config, arguments=["--reload"])
        try:
            yield server
        finally:
            assert server.stop() == 0

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def change(self, server: RunningServer, old: str, new: str) -> None:
        """Save the file, and wait until the next server listens."""
        starts = server.log.count("Runstream listens on ")
        self.path.write_text(self.path.read_text().replace(old, new))
        wait_until(lambda: server.log.count("Runstream listens on ") > starts, "it listens again")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def read(client: httpx.Client, method: str, url: str, **options: Any) -> Iterator[Frame]:
    """The frames that come as long as the connection lasts; one that is refused is an error."""
    text = ""
    try:
        with client.stream(method, url, **options) as answer:
            assert answer.status_code in (200, 503), answer.read()  # 503: it is about to stop
            for piece in answer.iter_text() if answer.status_code == 200 else ():
                whole, end, text = (text + piece).rpartition("\n\n")
                yield from frames_of(whole + end)
    except (httpx.RemoteProtocolError, httpx.ReadError):
        pass


def test_an_open_stream_goes_on_in_the_next_server_with_the_new_code(project: Project) -> None:
    with project.served() as server, server.client() as client:
        frames: list[Frame] = []
        for frame in read(client, "POST", "/runs/stream", json={"graph": "graph", "input": {"log": []}}):
            frames.append(frame)
            if frame["event"] == "node":
                project.path.write_text(GRAPH.replace("version 1", "version 2"))
        assert events(frames) == ["start", "node"]
        while frames[-1]["event"] != "complete":
            for frame in read(client, "GET", f"/runs/{frames[0]['run_id']}/stream?after={frames[-1]['seq']}"):
                frames.append(frame)
                if frame["event"] == "restart":
                    project.open_gate()

    assert events(frames) == ["start", "node", "restart", "node", "complete"]
    assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5]
    assert (frames[2]["reason"], frames[3]["data"]) == ("deploy", {"log": ["version 2"]})
    assert (project.folder / "ran").read_text() == "before "


def test_a_file_that_is_broken_for_a_moment_does_no_harm(project: Project) -> None:
    project.open_gate()
    with project.served() as server, server.client() as client:
        project.change(server, "builder =", "builder ==")
        problem_of(client.post("/runs/invoke", json={"graph": "graph", "input": {"log": []}}), 503, "graph_unavailable")
        assert events(run(client, graph="other", input={"log": []}))[-1] == "complete"
        project.change(server, "builder ==", "builder =")
        assert events(run(client, graph="graph", input={"log": []}))[-1] == "complete"


def test_a_configuration_that_is_broken_is_said_and_the_next_change_is_waited_for(project: Project) -> None:
    config = project.folder / "langgraph.json"
    with project.served() as server, server.client() as client:
        whole = config.read_text()
        config.write_text("{")
        wait_until(lambda: "is not JSON" in server.log, "it says what is wrong")
        config.write_text(whole)
        assert client.get("/health").status_code == 200  # the connection waits for the server


def test_when_the_first_process_is_killed_the_server_goes_too(project: Project) -> None:
    server = RunningServer(project.folder / "data", config=project.folder / "langgraph.json", arguments=["--reload"])
    os.kill(server.process_id, signal.SIGKILL)
    server.ended()

    def is_gone() -> bool:
        try:
            httpx.get(f"{server.url}/health")
        except httpx.TransportError as error:
            return isinstance(error, httpx.ConnectError)
        return False

    wait_until(is_gone, "nothing listens")


@pytest.mark.parametrize(
    ("name", "is_watched"),
    [
        ("graphs/chat.py", True),
        ("langgraph.json", True),
        ("notes.txt", False),
        (".venv/lib/x.py", False),
        ("data/x.py", False),
        ("graphs/__pycache__/chat.cpython-311.pyc", False),
    ],
)
def test_python_files_of_the_project_and_its_configuration_are_watched(name: str, is_watched: bool) -> None:
    watched = Filter([Path("/p/langgraph.json")], without=Path("/p/data"))
    assert watched(Change.modified, f"/p/{name}") is is_watched
