"""Everything in docs/streaming.md that can be run does what the page says."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.document import Block, blocks
from tests.e2e import machine
from tests.raw_client import data_of, frames_of, post, run_id_of
from tests.server import ROOT, Frame, RunningServer, events, run, running, spoken
from tests.streaming.test_patch_libraries import NODE_DIR

PAGE = ROOT / "docs" / "streaming.md"
SECONDS = 60


def block(language: str, text: str) -> Block:
    """The one block of the page that holds a text."""
    (found,) = (found for found in blocks(PAGE, language) if text in found.text)
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of the page, and the example graphs, under one langgraph.json."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("library", "question", "support", "letter"):
        text = f"class {name.capitalize()}"
        (folder / f"{name}.py").write_text(block("python", text).text)
    document = json.loads(block("json", "expose_nodes").text)
    for name, entry in json.loads((ROOT / "langgraph.json").read_text())["graphs"].items():
        document["graphs"][name] = {**entry, "path": entry["path"].replace("./", f"{ROOT}/", 1)}
    for name in ("library", "question", "letter"):
        document["graphs"][name] = f"./{name}.py:graph"
    path = folder / "langgraph.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data_dir = tmp_path_factory.mktemp("page-server") / "data"
    env = {"OPENAI_API_KEY": "", "SCRIPTED_DELAY_SECONDS": "0.01"}
    with running(data_dir, config=project, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def shell(server: RunningServer, text: str, **env: str) -> str:
    command = text.replace("localhost:8000", server.url.removeprefix("http://"))
    done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, timeout=SECONDS, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stream_of(server: RunningServer, text: str) -> list[Frame]:
    machine.find_curl()
    return [data_of(frame) for frame in frames_of(shell(server, block("sh", text).text).encode())]


def test_tokens_are_joined_by_count(server: RunningServer, client: httpx.Client) -> None:
    frames = stream_of(server, '"count": 20')
    page = client.get(f"/runs/{frames[0]['run_id']}/events", params={"limit": 5000}).json()["events"]
    assert spoken(frames) == spoken(page)
    assert events(page).count("token") > 2 * events(frames).count("token") > 0


def test_tokens_are_joined_by_time_and_filtered_by_node(server: RunningServer) -> None:
    frames = stream_of(server, '"ms": 100')
    tokens = [frame for frame in frames if frame["event"] == "token"]
    assert {frame["node"] for frame in tokens} == {"planner"}
    assert all(frame["data"]["content"].strip() or frame["data"]["content"] == "" for frame in tokens)
    assert len({frame["node"] for frame in frames if frame["event"] == "node"}) > 1


def test_the_arguments_of_a_tool_are_shown_before_they_are_complete(server: RunningServer) -> None:
    frames = stream_of(server, '"parsed": true')
    deltas = [frame for frame in frames if frame["event"] == "tool_call_delta" and "parsed" in frame["data"]]
    example = json.loads(block("json", "tool_call_delta").text)
    assert {*deltas[-1]} == {*example, "ns"}
    assert deltas[-1]["data"].keys() == example["data"].keys()
    (call,) = (frame for frame in frames if frame["event"] == "tool_call")
    assert deltas[-1]["data"]["parsed"] == call["data"]["args"]
    seen = [frame["data"]["parsed"].get("expression", "") for frame in deltas]
    assert len(set(seen)) > 2
    assert all(call["data"]["args"]["expression"].startswith(text) for text in seen)


def test_a_nodes_tokens_are_sent_as_the_page_says(client: httpx.Client) -> None:
    frames = run(client, graph="letter", message="hello")
    page = client.get(f"/runs/{frames[0]['run_id']}/events", params={"limit": 5000}).json()["events"]
    assert events(page).count("token") > events(frames).count("token") > 0
    assert spoken(frames) == spoken(page)


@pytest.mark.parametrize("script", ["mirror.js", "immer_mirror.js"])
def test_the_mirror_of_the_page_is_the_state_at_the_end(
    server: RunningServer, client: httpx.Client, tmp_path: Path, script: str
) -> None:
    node, folder = machine.find_node(), machine.install_node_packages(NODE_DIR)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in ("frames.js", script):
        (tmp_path / name).write_text(block("js", f"// {name}\n").text)
    body = {"graph": "chat", "thread_id": f"page-{script}", "message": "hi", "tokens": {"in_state": True}}
    (tmp_path / "main.js").write_text(
        f"""
        import {{ mirror }} from './{script}';
        const shown = [];
        const show = (state) => shown.push(state.streaming?.partial ?? null);
        const state = await mirror({json.dumps(server.url + "/runs/stream")}, {json.dumps(body)}, show);
        console.log(JSON.stringify({{ state, shown }}));
        """
    )
    done = subprocess.run([node, "main.js"], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    values = client.get(f"/threads/page-{script}/state").json()["values"]
    assert seen["state"] == values
    assert values["messages"][1]["content"] in seen["shown"]
    assert seen["shown"][-1] is None


def test_progress_of_the_page_is_counted_and_throttled(client: httpx.Client) -> None:
    frames = run(client, graph="library", input={"documents": ["one two"] * 500})
    shown = {
        node: [f["data"] for f in frames if f["event"] == "progress" and f["node"] == node]
        for node in ("count", "check")
    }
    assert (shown["count"][0]["current"], shown["count"][-1]["current"]) == (0, 500)
    assert [data["milestone"] for data in shown["check"] if data["milestone"]] == [25, 50, 75]
    assert len(shown["check"]) < 20
    assert shown["check"][-1]["current"] == 1000
    example = json.loads(block("json", '"event": "progress"').text)
    found = next(f for f in frames if f["event"] == "progress" and f["data"]["milestone"] == 50)
    assert found.keys() == example.keys()
    assert found["data"].keys() == example["data"].keys()
    moving = {"rate", "eta_seconds"}
    assert {k: v for k, v in found["data"].items() if k not in moving} == {
        k: v for k, v in example["data"].items() if k not in moving
    }


def test_events_of_nodes_and_tools_are_those_of_the_page(client: httpx.Client) -> None:
    frames = run(client, graph="question", input={"text": "sea"})
    assert [frame["data"] for frame in frames if frame["event"] == "custom"] == [
        {"event": "start", "name": "looking it up"},
        {"found": 2},
        {"event": "end", "name": "looking it up"},
    ]


def test_what_the_page_hides_is_hidden(client: httpx.Client) -> None:
    frames = run(client, graph="support", message="hello", thread_id="page-support", include_output=True)
    assert {frame["node"] for frame in frames if "node" in frame} == {"answer"}
    assert len(spoken(frames)) == 1
    assert frames[-1]["output"].keys() == {"messages"}
    assert client.get("/threads/page-support/state").json()["values"].keys() == {"messages"}


def test_the_page_follows_a_thread_over_runs_with_an_event_source(
    server: RunningServer, client: httpx.Client, tmp_path: Path
) -> None:
    node = machine.find_node()
    packages = machine.install_node_packages()  # those of tests/e2e: a browser has an EventSource of its own
    run(client, graph="chat", message="hi", thread_id="page-follow")
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "follow.js").write_text(block("js", "// follow.js\n").text)
    (tmp_path / "main.js").write_text(
        f"""
        import {{ EventSource }} from 'eventsource';
        import {{ follow }} from './follow.js';
        globalThis.EventSource = EventSource;
        const url = {json.dumps(server.url)}, seen = [];
        const post = () => fetch(url + '/runs/invoke', {{
          method: 'POST',
          headers: {{ 'Content-Type': 'application/json' }},
          body: JSON.stringify({{ thread_id: 'page-follow', message: 'again' }}),
        }});
        const leave = follow(url, 'page-follow', (frame) => {{
          seen.push(frame.event);
          if (seen.filter((event) => event === 'complete').length < 2) return;
          leave();
          console.log(JSON.stringify(seen));
        }});
        while (!seen.length) await post();
        while (seen.filter((event) => event === 'complete').length < 2) await post();
        """
    )
    done = subprocess.run([node, "main.js"], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen[0], seen[-1]) == ("start", "complete")
    assert seen.count("start") == 2


def test_a_cancel_of_the_page_keeps_what_was_said(server: RunningServer, client: httpx.Client) -> None:
    machine.find_curl()
    body = {"graph": "chat", "message": "tell me a long story", "thread_id": "page-stop"}
    with post(server, body) as exchange:
        exchange.read_until(lambda body: b'"event":"token"' in body)
        row = json.loads(shell(server, block("sh", "keep_partial").text, RUN_ID=run_id_of(exchange)))
        frames = [data_of(frame) for frame in frames_of(exchange.read_all().body)]
    assert row["status"] == "cancelled"
    said = client.get("/threads/page-stop/state").json()["values"]["messages"][-1]
    assert (said["additional_kwargs"], {said["id"]: said["content"]}) == ({"partial": True}, frames[-1]["partial"])


def test_nothing_on_the_page_is_left_untried() -> None:
    """A block of another language, or one more of these, wants a test here; Python runs in tests/docs too."""
    counted = {language: len(blocks(PAGE, language)) for language in ("sh", "js", "json", "python")}
    assert counted == {"sh": 4, "js": 4, "json": 3, "python": 4}
    assert len(blocks(PAGE)) == sum(counted.values())
