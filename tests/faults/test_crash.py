"""What becomes of runs and threads whose process has crashed."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from app.runs.model import Admission, NewRun, scoped
from app.storage.sqlite import SqliteStore
from tests.faults.nursery import Served
from tests.faults.serve import PROJECT
from tests.faults.site import Site, client, read, start
from tests.server import Frame, events, spoken

USED = {"speaker": 7}  # tokens: a node `one` that speaks uses so many


def nodes(frames: list[Frame]) -> list[str]:
    return [frame["node"] for frame in frames if frame["event"] == "node"]


def used(usage: dict[str, Any] | None) -> dict[str, int]:
    return {model: used["total_tokens"] for model, used in (usage or {}).items()}


def row(served: Served, run_id: str) -> dict[str, Any]:
    with client(served) as http:
        found: dict[str, Any] = http.get(f"/runs/{run_id}").json()
    return found


def test_a_run_that_kills_its_process_is_lost_after_three_times(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "deadly")
        assert served.reap() == -signal.SIGKILL
    for attempt in (2, 3):
        with site.served(waits=False) as served:
            assert served.reap() == -signal.SIGKILL
        assert site.run_row(run_id) == ("running", attempt, attempt - 1)
    with site.served() as served:
        frames = read(served, run_id)
        found = row(served, run_id)
    assert (frames[-1]["event"], frames[-1]["code"], frames[-1]["retryable"]) == ("error", "lost", True)
    assert site.trace().count("die dies") == 3
    assert site.trace().count("one ran") == 1
    assert nodes(frames) == ["one"]
    assert (found["status"], found["error"]["code"], found["attempt"]) == ("error", "lost", 4)
    assert used(found["usage"]) == used(frames[-1]["usage"]) == USED
    assert site.thread_status() == "error"


def test_a_thread_whose_run_was_lost_can_be_continued(site: Site) -> None:
    run_id = ""
    for crash in range(1, 4):
        with site.served() as served:
            run_id = run_id or start(served, "held")
            site.wait_for("hold holds", crash)
            served.end(signal.SIGKILL)
    with site.served() as served:
        assert read(served, run_id)[-1]["code"] == "lost"
        site.open_gate()
        frames = read(served, start(served, "held", input=None))
    assert nodes(frames) == ["hold", "three"]


def test_deploys_between_crashes_do_not_count(site: Site) -> None:
    ends = [signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    run_id = ""
    for attempt, end in enumerate(ends, 1):
        with site.served() as served:
            run_id = run_id or start(served, "held")
            site.wait_for("hold holds", attempt)
            served.end(end)
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    reasons = [frame["reason"] for frame in frames if frame["event"] == "restart"]
    assert reasons == ["crash", "deploy", "deploy", "crash", "deploy"]
    assert events(frames)[-1] == "complete"
    assert site.run_row(run_id) == ("success", 6, 2)


@pytest.mark.parametrize(
    ("graph", "options", "answer"),
    [("ask", {}, {"resume": "yes"}), ("linear", {"interrupt_before": ["two"]}, {"input": None})],
)
def test_a_paused_thread_stays_paused(site: Site, graph: str, options: dict[str, Any], answer: dict[str, Any]) -> None:
    with site.served() as served:
        run_id = start(served, graph, **options)
        whole = read(served, run_id)
        served.end(signal.SIGKILL)
    ran = site.trace()
    with site.served() as served:
        assert read(served, run_id) == whole
        assert site.thread_status() == "interrupted"
        assert site.trace() == ran
        assert events(read(served, start(served, graph, **answer)))[-1] == "complete"
    assert site.run_row(run_id) == ("interrupted", 1, 0)


def test_a_run_that_was_to_stop_is_stopped_by_the_next_process(site: Site) -> None:
    with site.served({"RUNSTREAM_STOP_SECONDS": "60"}) as served:
        run_id = start(served, "talks_on")
        site.wait_for("talk half")
        with client(served) as http:
            http.post(f"/runs/{run_id}/cancel")
        site.wait_for("talk ignores")
        served.end(signal.SIGKILL)
    with site.served() as served:
        frames = read(served, run_id)
        found = row(served, run_id)
    assert (frames[-1]["event"], frames[-1]["reason"]) == ("cancelled", "user")
    assert frames[-1]["partial"] == spoken(frames)
    assert list(spoken(frames).values()) == ["w0 w1 "]
    assert nodes(frames) == ["one"]
    assert site.trace().count("talk half") == 1
    assert (found["status"], site.thread_status()) == ("cancelled", "idle")


def test_a_question_whose_answer_was_stopped_before_it_was_taken_still_stands(site: Site, tmp_path: Path) -> None:
    site.open_gate()
    with site.served() as served:
        read(served, start(served, "ask_late"))
        site.close_gate()
        run_id = start(served, "ask_late", resume="never taken")
        site.wait_for("question holds", 2)
        served.end(signal.SIGKILL)
    asyncio.run(ask_to_stop(tmp_path / "data", run_id))
    with site.served() as served:
        assert events(read(served, run_id))[-1] == "cancelled"
        assert site.thread_status() == "interrupted"
        site.open_gate()
        assert events(read(served, start(served, "ask_late", resume="taken")))[-1] == "complete"
        with client(served) as http:
            assert http.get("/threads/t/state").json()["values"]["log"] == ["in", "before", "taken"]


async def ask_to_stop(data_dir: Path, run_id: str) -> None:
    """What is left when a process ends between noting that a run is to stop and stopping it."""
    store = await SqliteStore.open(data_dir)
    await store.request_cancel(scoped("", run_id), "user")
    await store.aclose()


def test_what_earlier_attempts_have_used_is_counted(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.end(signal.SIGKILL)
    with site.served() as served:
        site.wait_for("hold holds", 2)
        served.end(signal.SIGTERM)
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
        assert used(row(served, run_id)["usage"]) == used(frames[-1]["usage"]) == USED


def test_a_run_that_never_began_begins(site: Site, tmp_path: Path) -> None:
    asyncio.run(leave_pending(tmp_path / "data"))
    with site.served() as served:
        frames = read(served, "pending-run")
        found = row(served, "pending-run")
    assert events(frames)[0] == "start"
    assert frames[0]["attempt"] == 1
    assert "restart" not in events(frames)
    assert nodes(frames) == ["one", "two", "three"]
    assert (found["status"], found["attempt"]) == ("success", 1)


async def leave_pending(data_dir: Path) -> None:
    """What is left when a process ends between accepting a run and claiming it."""
    store = await SqliteStore.open(data_dir)
    plan = {
        "input": {"log": ["in"]},
        "interrupt_before": [],
        "interrupt_after": [],
        "config": {},
        "durability": "sync",
    }
    new = NewRun(
        owner="",
        run_id="pending-run",
        thread_id="t",
        graph="linear",
        request=plan,
        fingerprint="",
        on_disconnect="continue",
    )
    await store.accept(new, worker=None, start=None, admission=Admission(max_active=10))
    await store.aclose()


def test_a_run_whose_graph_is_gone_ends_and_lets_its_thread_go(site: Site, tmp_path: Path) -> None:
    with site.served() as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.end(signal.SIGKILL)
    with site.served(config=without("held", tmp_path)) as served:
        frames = read(served, run_id)
    assert frames[-1]["event"] == "error"
    assert site.run_row(run_id)[0] == "error"
    assert site.thread_status() == "error"


@pytest.mark.parametrize("source", ["./missing.py:graph", "./graphs.py:nothing"])
def test_a_run_whose_graph_does_not_load_any_more_ends_and_has_its_nodes_in_the_log(
    site: Site, tmp_path: Path, source: str
) -> None:
    with site.served() as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.end(signal.SIGKILL)
    with site.served(config=without("held", tmp_path, source)) as served:
        frames = read(served, run_id)
    assert (frames[-1]["event"], frames[-1]["code"]) == ("error", "graph_unavailable")
    assert nodes(frames) == ["one"]
    assert used(frames[-1]["usage"]) == USED


def without(name: str, folder: Path, source: str | None = None) -> Path:
    """A configuration in which a graph is missing, or is somewhere else."""
    graphs = json.loads(PROJECT.read_text())["graphs"]
    found = {key: value.replace("./", f"{PROJECT.parent}/") for key, value in graphs.items() if key != name}
    path = folder / "langgraph.json"
    if source is not None:
        found[name] = source
    path.write_text(json.dumps({"dependencies": [], "graphs": found}))
    return path


def test_a_crash_ends_no_run_that_is_over(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "linear")
        whole = read(served, run_id)
        served.end(signal.SIGKILL)
    with site.served() as served:
        assert read(served, run_id) == whole
    assert site.run_row(run_id) == ("success", 1, 0)
