"""What every client is to be shown, whichever it is."""

import json
from collections.abc import Sequence
from typing import Any

from tests.server import Frame, RunningServer, events, refuse_constant, spoken

ENDS = frozenset({"complete", "interrupt", "cancelled", "error"})
ODD_TEXT = "Hello, wide world\u2028\u0085“ü”\nend."
PACED_TEXT = "".join(f"w{i} " for i in range(40))

EVERYTHING = ["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug"]

# what to run, and kinds of frames that it must show
RUNS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "chat": ({"graph": "talk", "message": "hi"}, {"start", "token", "node", "complete"}),
    "tools": (
        {"graph": "agent", "message": "2 + 2?", "stream_mode": EVERYTHING},
        {"token", "tool_call_delta", "tool_call", "tool_result", "node_start", "values", "checkpoint", "debug"},
    ),
    "custom": ({"graph": "writers", "input": {}}, {"custom", "node", "complete"}),
    "question": ({"graph": "ask", "input": {}}, {"node", "interrupt"}),
    "failure": ({"graph": "fails", "input": {}}, {"node", "error"}),
    "second try": ({"graph": "retries", "message": "hi"}, {"token", "discard", "complete"}),
}


def parsed(texts: Sequence[str]) -> list[Frame]:
    return [json.loads(text, parse_constant=refuse_constant) for text in texts]


def assert_whole(server: RunningServer, texts: Sequence[str]) -> list[Frame]:
    """Assert that a client saw one run, whole: byte for byte what an uncut stream of it is. Give its frames."""
    frames = parsed(texts)
    names = events(frames)
    assert names[0] == "start", names
    assert [name for name in names if name in ENDS] == names[-1:], names
    assert list(texts) == log_of(server, frames[0]["run_id"])
    for node in (frame for frame in frames if frame["event"] == "node" and "message" in frame["data"]):
        message = node["data"]["message"]
        said = spoken(frames).get(message["id"])
        assert said is None or said == text_of(message), message
    return frames


def log_of(server: RunningServer, run_id: str) -> list[str]:
    """The data of each frame of a run that is over, read in one piece and without any decoder."""
    with server.client() as client:
        answer = client.get(f"/runs/{run_id}/stream")
    assert answer.status_code == 200, answer.text
    blocks = answer.content.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def runs_of(server: RunningServer, thread_id: str) -> list[dict[str, Any]]:
    with server.client() as client:
        rows: list[dict[str, Any]] = client.get("/runs", params={"thread_id": thread_id}).json()["runs"]
    return rows
