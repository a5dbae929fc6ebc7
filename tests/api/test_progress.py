"""Progress and events of nodes over real sockets (docs/streaming.md; wire contract, section 2)."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import Frame, RunningServer, events, run
from tests.streaming.serving import serving

KEYS = {"current", "total", "percent", "rate", "eta_seconds", "message", "milestone"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("progress") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def worked(client: httpx.Client) -> list[Frame]:
    return run(client, graph="works", input={})


def of_node(frames: list[Frame], node: str) -> list[Any]:
    return [frame["data"] for frame in frames if frame["event"] == "progress" and frame["node"] == node]


@pytest.mark.parametrize(("node", "first"), [("sync", 0), ("async", 1)])
def test_a_hundred_thousand_updates_of_a_loop_are_some_tens_of_frames_the_first_and_the_last_among_them(
    worked: list[Frame], node: str, first: int
) -> None:
    shown = of_node(worked, node)
    assert all(data.keys() == KEYS for data in shown)
    assert 2 <= len(shown) < 200
    assert (shown[0]["current"], shown[-1]["current"]) == (first, 100_000)
    assert (shown[-1]["total"], shown[-1]["percent"], shown[-1]["eta_seconds"]) == (100_000, 100.0, 0.0)
    assert [data["current"] for data in shown] == sorted(data["current"] for data in shown)
    assert {data["message"] for data in shown} == {node}
    assert shown[-1]["rate"] > 0


def test_milestones_of_a_node_are_shown_between_its_first_and_last(worked: list[Frame]) -> None:
    shown = of_node(worked, "milestones")
    assert [(data["percent"], data["milestone"]) for data in shown] == [
        (0.0, None),
        (25.0, 25),
        (50.0, 50),
        (75.0, 75),
        (100.0, None),
    ]


def test_without_a_total_the_last_one_is_shown_when_the_node_has_ended_or_failed(
    client: httpx.Client, worked: list[Frame]
) -> None:
    failed = run(client, graph="works", input={"answer": "fail"})
    assert events(failed)[-2:] == ["progress", "error"]
    for frames in (worked, failed):
        shown = of_node(frames, "counted")
        assert (shown[0]["current"], shown[-1]["current"]) == (0, 999)
        assert len(shown) < 50
        assert {data["percent"] for data in shown} == {None}


def test_a_nodes_progress_comes_before_its_node_event(worked: list[Frame]) -> None:
    kinds = [(frame["event"], frame.get("node")) for frame in worked]
    for node in ("counted", "sync", "async", "milestones"):
        last = len(kinds) - 1 - kinds[::-1].index(("progress", node))
        assert kinds[last + 1] == ("node", node)


def test_progress_is_of_the_mode_custom(client: httpx.Client, worked: list[Frame]) -> None:
    frames = run(client, graph="works", input={}, stream_mode="updates")
    assert events(frames) == ["start", *["node"] * 4, "complete"]
    path = f"/runs/{worked[0]['run_id']}/stream"
    assert "progress" not in client.get(path, params={"stream_mode": "updates"}).text
    assert '"event":"progress"' in client.get(path, params={"stream_mode": "custom"}).text


def test_decorated_nodes_tell_of_their_start_and_end(client: httpx.Client) -> None:
    frames = run(client, graph="hears", input={})
    custom = [(frame["node"], frame["data"]) for frame in frames if frame["event"] == "custom"]
    assert custom == [
        ("heard", {"event": "start", "name": "heard"}),
        ("heard", {"event": "end", "name": "heard"}),
        ("loudly", {"what": "END", "output": {"log": ["loud"]}}),
    ]
