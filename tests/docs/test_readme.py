"""The README, done as it says: its commands in a shell, its scripts in Node, and what they show."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from app.cli import main
from tests.docs.document import README, blocks, section
from tests.e2e import machine
from tests.server import Frame, RunningServer, events, frames_of

SECONDS = 60
CURL_WAS_STOPPED = 28
ENDS = ("complete", "interrupt", "cancelled", "error")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the README, what it shows beneath it, and what really came."""

    command: str
    shown: list[Frame]
    code: int
    frames: list[Frame]


@pytest.fixture(scope="module")
def session(examples: RunningServer) -> list[Step]:
    """All of its `sh` blocks in order, with this server's address and the ids of this session."""
    machine.find_curl()
    steps: list[Step] = []
    ids: dict[str, str] = {}
    found = blocks(README)
    for number, block in enumerate(found):
        if block.language != "sh":
            continue
        following = found[number + 1] if number + 1 < len(found) else None
        shown = shown_frames(following.text) if following and following.language == "text" else []
        code, output = run_in_shell(with_session(block.text, examples, ids))
        frames = frames_of(output.rpartition("\n\n")[0])
        ids |= zip(interrupt_ids(shown), interrupt_ids(frames), strict=True)
        steps.append(Step(command=block.text, shown=shown, code=code, frames=frames))
    return steps


def with_session(command: str, server: RunningServer, ids: Mapping[str, str]) -> str:
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    for shown_id, real_id in ids.items():
        command = command.replace(shown_id, real_id)
    return command


def run_in_shell(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout


def shown_frames(text: str) -> list[Frame]:
    """Frames as they are shown: `[…]` and `,…}` stand for what is left out."""
    whole = text.replace("[…]", "[]").replace(",…}", "}")
    return [json.loads(line.removeprefix("data: ")) for line in whole.splitlines() if line]


def interrupt_ids(frames: list[Frame]) -> Iterator[str]:
    return (interrupt["id"] for frame in frames for interrupt in frame.get("interrupts", ()))


def outline(frames: list[Frame]) -> list[str]:
    """The names of the events, a run of tokens as one."""
    return [name for name, _ in groupby(events(frames))]


def test_each_command_gives_the_events_that_are_shown_beneath_it(session: list[Step]) -> None:
    steps = [step for step in session if step.shown]

    assert len(steps) == 3
    for step in steps:
        assert step.code == 0
        assert outline(step.frames) == outline(step.shown), step.command


def test_the_frames_that_are_shown_have_the_keys_of_those_that_came(session: list[Step]) -> None:
    for step in session:
        for shown in step.shown:
            mine = (shown["event"], shown.get("node"))
            real = [frame for frame in step.frames if (frame["event"], frame.get("node")) == mine]
            assert real, f"{mine} did not come"
            assert list(shown) in [list(frame) for frame in real]


def test_the_questions_that_are_shown_are_those_that_were_asked(session: list[Step]) -> None:
    def questions(frames: list[Frame]) -> list[list[object]]:
        ends = [frame for frame in frames if frame["event"] == "interrupt"]
        return [[(i["node"], i["value"]) for i in frame["interrupts"]] for frame in ends]

    assert [questions(step.frames) for step in session] == [questions(step.shown) for step in session]


def test_a_connection_that_curl_cuts_is_taken_up_where_the_next_command_says(session: list[Step]) -> None:
    cut = next(step for step in session if "--max-time" in step.command)
    back = session[session.index(cut) + 1]
    after = int(re.findall(r"Last-Event-ID: (\d+)", back.command)[0])

    assert cut.code == CURL_WAS_STOPPED
    assert cut.frames[-1]["event"] not in ENDS
    assert back.frames[0]["seq"] == after + 1
    assert back.frames[-1]["event"] == "complete"
    seen = {frame["seq"]: frame for frame in cut.frames}
    again = {frame["seq"]: frame for frame in back.frames}
    assert all(again[seq] == frame for seq, frame in seen.items() if seq in again)
    assert seen.keys() | again.keys() == set(range(1, back.frames[-1]["seq"] + 1))


def test_the_fetch_loop_runs_in_node_and_shows_every_frame(examples: RunningServer, tmp_path: Path) -> None:
    node = machine.find_node()
    snippet = next(block.text for block in blocks(README, "js") if "fetch(" in block.text)
    script = tmp_path / "loop.mjs"
    script.write_text(snippet.replace("http://localhost:8000", examples.url))

    done = subprocess.run([node, str(script)], capture_output=True, text=True, timeout=SECONDS, check=False)

    assert done.returncode == 0, done.stderr
    shown = re.findall(r"event: '(\w+)'", done.stdout)
    assert [name for name, _ in groupby(shown)] == ["start", "token", "node", "complete"]


def test_a_project_with_the_langgraph_json_of_the_readme_is_served_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = blocks(README, "json")
    (guide,) = blocks(README.parent / "docs" / "human-in-the-loop.md", "python")
    (tmp_path / "langgraph.json").write_text(config.text)
    (tmp_path / "agent.py").write_text(guide.text)

    code = main(["graphs", "--config", str(tmp_path / "langgraph.json")])

    assert (code, capsys.readouterr().out) == (0, "agent\t./agent.py:graph\n")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    commands = re.findall(r"^make (\w+)", section(README, "## Two commands"), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (README.parent / "Makefile").read_text(), re.MULTILINE)

    assert commands == ["run", "test"]
    assert set(commands) <= set(targets)
