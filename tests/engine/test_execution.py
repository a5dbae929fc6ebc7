"""One attempt at a run with real graphs and real checkpoints: the gate, crashes at every commit, and the ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from app.engine.checkpoints import Writer
from app.errors import LeaseLost
from app.runs.engine import Drained, Past
from app.runs.event import Event, with_seq
from app.runs.model import CancelReason, Lease
from app.runs.request import Continue, Resume
from app.runs.store import Page
from tests.engine.attempt import Attempt, Bench, Frame, Result, Told, asked, bench, play
from tests.project.graphs import Speaker, Steps

T = TypeVar("T")


class Ran:
    """The nodes that ran, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def node(self, name: str, turns: int = 0) -> Any:
        """A node that gives way `turns` times before it ends."""

        async def run(state: Steps) -> Steps:
            self.names.append(name)
            for _ in range(turns):
                await asyncio.sleep(0)
            return {"log": [name]}

        return run

    def sync_node(self, name: str) -> Any:
        def run(state: Steps) -> Steps:
            self.names.append(name)
            return {"log": [name]}

        return run

    def take(self) -> list[str]:
        names, self.names = self.names, []
        return names


def chain(*nodes: tuple[str, Any]) -> "StateGraph[Any]":
    builder: StateGraph[Any] = StateGraph(Steps)
    before = START
    for name, node in nodes:
        builder.add_node(name, node).add_edge(before, name)
        before = name
    return builder.add_edge(before, END)


# -- graphs, each of nodes that note that they ran --------------------------------------------------------------------


def in_a_row(ran: Ran) -> Any:
    return chain(*((name, ran.node(name)) for name in ("a", "b", "c"))).compile()


def in_parallel(ran: Ran) -> Any:
    builder: StateGraph[Any] = StateGraph(Steps)
    for name, turns in (("left", 0), ("middle", 100), ("right", 30)):
        builder.add_node(name, ran.node(name, turns)).add_edge(START, name)
    builder.add_node("after", ran.node("after"))
    return builder.add_edge(["left", "middle", "right"], "after").compile()


def fanned_out(ran: Ran) -> Any:
    async def worker(state: Steps) -> Steps:
        ran.names.append(f"worker {state['answer']}")
        return {"log": [f"worker {state['answer']}"]}

    def spread(state: Steps) -> list[Send]:
        return [Send("worker", {"answer": n}) for n in range(3)]

    builder = chain(("spread", ran.node("spread"))).add_node("worker", worker)
    return builder.add_conditional_edges("spread", spread, ["worker"]).compile()


def with_a_child(ran: Ran) -> Any:
    child = chain(("c1", ran.node("c1")), ("c2", ran.node("c2"))).compile()
    return chain(("before", ran.node("before")), ("child", child), ("after", ran.node("after"))).compile()


def with_an_unsaved_child(ran: Ran) -> Any:
    child = chain(("c1", ran.node("c1")), ("c2", ran.node("c2"))).compile(checkpointer=False)
    return chain(("before", ran.node("before")), ("child", child), ("after", ran.node("after"))).compile()


def with_a_sync_child_in_a_thread(ran: Ran) -> Any:
    child = chain(("c1", ran.sync_node("c1")), ("c2", ran.sync_node("c2"))).compile()

    def call(state: Steps) -> Steps:
        child.invoke({"log": []})
        return {"log": ["call"]}

    return chain(("call", call), ("after", ran.sync_node("after"))).compile()


def of_functions(ran: Ran) -> Any:
    @task
    async def first() -> str:
        ran.names.append("first")
        return "first"

    @task
    async def second() -> str:
        ran.names.append("second")
        return "second"

    @entrypoint()
    async def flow(value: Any) -> list[str]:
        return [await first(), await second()]

    return flow


GRAPHS = [
    in_a_row,
    in_parallel,
    fanned_out,
    with_a_child,
    with_an_unsaved_child,
    with_a_sync_child_in_a_thread,
    of_functions,
]


# -- crashes ----------------------------------------------------------------------------------------------------------


class StoppingWriter:
    """Commits so many writes, then none any more: what a process that was killed has left in its file."""

    def __init__(self, writer: Writer, commits: int) -> None:
        self._writer = writer
        self._left = commits
        self._under_way = 0
        self._settled = asyncio.Event()
        self.stopped = asyncio.Event()
        self._released = asyncio.Event()

    async def submit(self, operation: Callable[[Any], T]) -> T:
        self._left -= 1
        if self._left < 0:
            self.stopped.set()
            await self._released.wait()
            raise LeaseLost("killed")
        self._under_way += 1
        try:
            return await self._writer.submit(operation)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._settled.set()

    async def settled(self) -> None:
        """Return when what may still be committed is."""
        while self._under_way:
            self._settled.clear()
            await self._settled.wait()

    def release(self) -> None:
        """Let whoever waits fail, so that the test can end."""
        self._released.set()

    async def reclaim(self) -> bool:
        return await self._writer.reclaim()

    async def aclose(self) -> None:
        await self._writer.aclose()


@dataclass
class Crash:
    """What a client had seen, and what had run, when the process died; and then in the attempt after it."""

    frames_before: list[Frame]
    ran_before: list[str]
    after: Result
    ran_after: list[str]

    @property
    def node_frames(self) -> list[Frame]:
        return [f for f in [*self.frames_before, *self.after.frames] if f["event"] == "node"]


async def crash(make: Callable[[Ran], Any], path: Path, commits: int, durability: Any) -> Crash | None:
    """A run that dies after so many commits, and the attempt that takes it up. None: it ended before it could die."""
    ran, writers = Ran(), list[StoppingWriter]()

    def stopping(writer: Writer) -> Writer:
        writers.append(StoppingWriter(writer, commits))
        return writers[0]

    seen = Result()
    async with bench(make(ran), path=path, wrap=stopping) as first:
        request = asked({"log": []}, modes=["updates"], subgraphs=True, durability=durability, run_id="run")
        attempt = await first.begin(request, seen.put)
        work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
        stopped = asyncio.create_task(writers[0].stopped.wait())  # noqa: TID251
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await writers[0].settled()
        for _ in range(300):  # nothing is saved any more; whatever is told from now on is told too early
            await asyncio.sleep(0)
        frames, texts, names, died = list(seen.frames), list(seen.texts), ran.take(), not work.done()
        stopped.cancel()
        writers[0].release()
        await asyncio.wait({work, stopped})
        work.exception()
    if not died:
        return None
    ran.take()
    async with bench(make(ran), path=path) as second:
        after = await take_up(second, attempt, texts)
    return Crash(frames_before=frames, ran_before=names, after=after, ran_after=ran.take())


async def take_up(bench: Bench, attempt: Attempt, texts: list[bytes]) -> Result:
    """The next attempt at a run, in a process that finds the log and the checkpoints."""

    async def pages() -> AsyncIterator[Page]:
        yield Page(events=[Event(seq, with_seq(text, seq)) for seq, text in enumerate(texts, 1)], closed=False)

    run, result = attempt.run, Result()
    lease = Lease(run_key=run.key, thread_key=run.thread_key, worker="w2", epoch=2, attempt=2, version=99)
    execution = bench.engine.execution(run, lease, Told(result.put), Past(restart="crash", pages=pages))
    await Attempt(bench, run, execution).to_end(result)
    return result


async def crashes(make: Callable[[Ran], Any], folder: Path, durability: Any) -> list[Crash]:
    """A crash after each commit of a run."""
    found = list[Crash]()
    while (one := await crash(make, folder / f"{len(found)}.sqlite", len(found), durability)) is not None:
        found.append(one)
    return found


def noted(frame: Frame) -> str | None:
    """The node that a node frame is of, where the node notes that it runs."""
    log = frame["data"].get("log") if isinstance(frame["data"], dict) else None
    return log[0] if frame["event"] == "node" and log and len(log) == 1 else None


def told_too_early(crash: Crash) -> set[str]:
    """Nodes whose event was in the log when the process died, and which ran again."""
    return {name for name in map(noted, crash.frames_before) if name} & set(crash.ran_after)


@dataclass
class Crashed:
    make: Callable[[Ran], Any]
    crashes: list[Crash]


@pytest.fixture(scope="module", params=GRAPHS, ids=lambda make: make.__name__)
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    """A graph's run, and one crash after each of its commits."""
    folder = tmp_path_factory.mktemp("crashes")
    return Crashed(request.param, play(lambda: crashes(request.param, folder, "sync")))


def test_a_node_whose_event_is_in_the_log_runs_in_no_later_attempt(crashed: Crashed) -> None:
    assert len(crashed.crashes) > 3
    assert any(crash.frames_before for crash in crashed.crashes)
    assert [crash for crash in crashed.crashes if told_too_early(crash)] == []


def test_whenever_a_process_dies_each_node_is_told_once_and_the_run_ends(crashed: Crashed) -> None:
    async def undisturbed() -> Result:
        async with bench(crashed.make(Ran())) as one:
            return await one.run({"log": []}, modes=["updates"], subgraphs=True)

    whole = sorted(play(undisturbed).nodes)
    for crash in crashed.crashes:
        assert sorted(frame["node"] for frame in crash.node_frames) == whole, crash
        ids = [frame["task_id"] for frame in crash.node_frames]
        assert len(ids) == len(set(ids))
        assert crash.after.last["event"] == "complete"
        assert crash.after.kinds.count("restart") == 1


@pytest.mark.parametrize("make", [in_a_row, in_parallel, with_a_child, with_a_sync_child_in_a_thread])
def test_the_same_holds_where_the_graph_does_not_wait_for_its_checkpoints(
    make: Callable[[Ran], Any], tmp_path: Path
) -> None:
    found = play(lambda: crashes(make, tmp_path, "async"))
    assert any(crash.frames_before for crash in found)
    assert [crash for crash in found if told_too_early(crash)] == []


def test_a_restart_says_which_text_is_void(tmp_path: Path) -> None:
    async def talk(state: Steps) -> Steps:
        return {"messages": [await Speaker(words=["a", "b"], message_id="m").ainvoke("x")]}

    async def scenario() -> Result:
        seen = Result()
        async with bench(chain(("talk", talk)), path=tmp_path / "c.sqlite") as first:
            attempt = await first.begin(asked({"log": []}, run_id="run"), seen.put)
            await attempt.execution.work()
        half = [text for text, frame in zip(seen.texts, seen.frames, strict=True) if frame["event"] == "token"][:1]
        async with bench(chain(("talk", talk)), path=tmp_path / "other.sqlite") as second:
            return await take_up(second, attempt, half)

    after = play(scenario)
    assert after.of("restart") == [{"event": "restart", "attempt": 2, "discard": ["m"], "reason": "crash"}]
    assert after.last["event"] == "complete"


# -- ends -------------------------------------------------------------------------------------------------------------


async def fail(state: Steps) -> Steps:
    raise ValueError("password=hunter2")


def ended(graph: Any, *values: Any, **options: Any) -> Result:
    """A run on a thread of its own, to its end."""
    fields = {key: options.pop(key) for key in list(options) if key not in ("max_recursion_limit", "expose_errors")}

    async def scenario() -> Result:
        async with bench(graph, **options) as one:
            return await one.run(*(values or ({"log": []},)), **fields)

    return play(scenario)


def test_a_success_is_complete_and_leaves_an_idle_thread() -> None:
    result = ended(chain(("a", Ran().node("a"))))
    assert result.last == {"event": "complete", "status": "success", "usage": None}
    assert result.ending is not None
    assert (result.ending.status, result.ending.thread_status) == ("success", "idle")
    assert result.ending.checkpoint_id


def test_the_output_is_in_the_complete_frame_only_when_it_is_asked_for() -> None:
    assert "output" not in ended(chain(("a", Ran().node("a")))).last
    assert ended(chain(("a", Ran().node("a"))), include_output=True).last["output"]["log"] == ["a"]


def test_a_failure_names_its_node_and_not_its_reason() -> None:
    result = ended(chain(("a", Ran().node("a")), ("fail", fail)))
    assert result.texts[-1] == (
        b'{"event":"error","error":"The graph failed.","code":"graph_error","node":"fail","run_id":"run-1",'
        b'"retryable":false,"usage":null}'
    )
    assert not any(b"hunter2" in text for text in result.texts)
    assert result.ending is not None
    assert result.ending.error is not None
    assert "hunter2" not in result.ending.error.message
    assert (result.ending.status, result.ending.thread_status) == ("error", "error")


def test_the_reason_of_a_failure_is_in_the_servers_log_with_the_runs_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        ended(chain(("fail", fail)))
    assert "hunter2" in caplog.text
    assert "run-1" in caplog.text


def test_for_development_a_failure_may_say_its_reason() -> None:
    assert ended(chain(("fail", fail)), expose_errors=True).last["error"] == "ValueError: password=hunter2"


def test_of_parallel_nodes_the_one_that_failed_is_named() -> None:
    begun = asyncio.Event()

    async def waits(state: Steps) -> Steps:
        begun.set()
        await asyncio.Event().wait()
        return {}

    async def fails_then(state: Steps) -> Steps:
        await begun.wait()
        raise ValueError

    builder = StateGraph(Steps).add_node("waits", waits).add_node("fails", fails_then)
    result = ended(builder.add_edge(START, "waits").add_edge(START, "fails"))
    assert result.last["node"] == "fails"


def test_a_failure_inside_a_model_call_is_a_model_error_and_may_be_tried_again() -> None:
    async def talk(state: Steps) -> Steps:
        try:
            await Speaker(words=["a", "b"], fails_after=1).ainvoke("x")
        except ConnectionError as error:
            raise RuntimeError("wrapped, password=hunter2") from error
        return {}

    result = ended(chain(("talk", talk)))
    assert (result.last["code"], result.last["retryable"], result.last["node"]) == ("model_error", True, "talk")
    assert not any(b"hunter2" in text for text in result.texts)


def test_a_model_error_that_a_node_got_over_is_not_blamed_for_a_later_failure() -> None:
    async def talk(state: Steps) -> Steps:
        try:
            await Speaker(words=["a"], fails_after=0).ainvoke("x")
        except ConnectionError:
            return {"log": ["got over it"]}
        return {}

    assert ended(chain(("talk", talk), ("fail", fail))).last["code"] == "graph_error"


def test_too_many_steps_are_a_recursion_limit() -> None:
    builder = chain(("again", Ran().node("again"))).add_edge("again", "again")
    result = ended(builder, max_recursion_limit=3)
    assert (result.last["code"], result.nodes) == ("recursion_limit", ["again"] * 3)


def test_a_client_may_ask_for_fewer_steps_but_not_for_more() -> None:
    def steps(asked_for: int) -> int:
        builder = chain(("again", Ran().node("again"))).add_edge("again", "again")
        return len(ended(builder, max_recursion_limit=4, config={"recursion_limit": asked_for}).nodes)

    assert (steps(2), steps(100)) == (2, 4)


def disagreeing(ran: Ran) -> "StateGraph[Any]":
    """Two nodes of one step write what only one may write; the state of its thread can't be made any more."""
    builder = chain(("before", ran.node("before")))
    for name in ("left", "right"):
        builder.add_node(name, lambda state: {"answer": 1}).add_edge("before", name)
    return builder


def test_a_write_that_the_state_does_not_take_is_an_invalid_update() -> None:
    result = ended(disagreeing(Ran()))
    assert result.last["code"] == "invalid_update"
    assert result.ending is not None
    assert result.ending.checkpoint_id


def refused(old: list[str], new: list[str]) -> list[str]:
    if "bad" in new:
        raise ValueError("password=hunter2")
    return old + new


def test_a_write_that_a_reducer_refuses_fails_the_run_and_names_no_reason() -> None:
    class Strict(TypedDict):
        log: Annotated[list[str], refused]

    builder = StateGraph(Strict).add_node("bad", lambda state: {"log": ["bad"]}).add_edge(START, "bad")
    result = ended(builder)
    assert (result.last["event"], result.last["code"]) == ("error", "graph_error")
    assert not any(b"hunter2" in text for text in result.texts)


def test_a_thread_whose_last_step_can_not_be_applied_takes_new_input() -> None:
    async def scenario() -> list[str]:
        async with bench(disagreeing(Ran())) as one:
            await one.run({"log": []})
            again = await one.run(action=Continue())
            assert again.last["code"] == "invalid_update"
            return (await one.run({"log": ["new"]})).nodes

    assert play(scenario) == ["before", "left", "right"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_what_nodes_did_before_a_failure_stays_and_is_told(durability: str) -> None:
    async def scenario() -> None:
        async with bench(chain(("a", Ran().node("a")), ("fail", fail))) as one:
            result = await one.run({"log": []}, durability=durability)
            state = await one.state()
            assert result.nodes == ["a"]
            assert state.values["log"] == ["a"]
            assert state.next == ("fail",)

    play(scenario)


def test_a_failed_run_goes_on_where_it_failed() -> None:
    ran = Ran()
    broken = True

    async def mended(state: Steps) -> Steps:
        if broken:
            raise ValueError
        return {"log": ["mended"]}

    async def scenario() -> Result:
        nonlocal broken
        async with bench(chain(("a", ran.node("a")), ("b", mended))) as one:
            await one.run({"log": []})
            broken = False
            return await one.run(action=Continue())

    result = play(scenario)
    assert result.nodes == ["b"]
    assert result.last["event"] == "complete"
    assert ran.names == ["a"]


async def question(state: Steps) -> Steps:
    return {"log": [f"answer {interrupt('?')}"]}


def test_the_event_of_an_answered_node_comes_before_that_of_the_next() -> None:
    async def scenario() -> Result:
        async with bench(chain(("ask", question), ("after", Ran().node("after")))) as one:
            assert (await one.run({"log": []})).last["event"] == "interrupt"
            return await one.run(action=Resume(value="yes"))

    result = play(scenario)
    assert result.nodes == ["ask", "after"]
    assert result.of("node")[0]["data"] == {"log": ["answer yes"]}


def test_the_event_of_an_answered_node_stays_when_a_later_node_fails() -> None:
    async def scenario() -> Result:
        async with bench(chain(("ask", question), ("fail", fail))) as one:
            await one.run({"log": []})
            return await one.run(action=Resume(value="yes"))

    result = play(scenario)
    assert result.nodes == ["ask"]
    assert result.last["code"] == "graph_error"


def test_nodes_that_ended_before_a_pause_are_not_told_again_after_it() -> None:
    async def worker(state: Steps) -> Steps:
        return {"log": [f"{interrupt('?')}" if state["answer"] == 1 else str(state["answer"])]}

    def spread(state: Steps) -> list[Send]:
        return [Send("worker", {"answer": n}) for n in range(3)]

    builder = chain(("spread", Ran().node("spread"))).add_node("worker", worker)
    builder.add_conditional_edges("spread", spread, ["worker"])

    async def scenario() -> tuple[Result, Result]:
        async with bench(builder) as one:
            return await one.run({"log": []}), await one.run(action=Resume(value="yes"))

    paused, resumed = play(scenario)
    assert paused.nodes == ["spread", "worker", "worker"]
    assert [frame["data"]["log"] for frame in resumed.of("node")] == [["yes"]]


def test_a_node_may_update_and_go_elsewhere_in_one() -> None:
    async def jump(state: Steps) -> Command[Any]:
        return Command(update={"log": ["jump"]}, goto="target")

    builder = (
        StateGraph(Steps).add_node("jump", jump, destinations=("target",)).add_node("target", Ran().node("target"))
    )
    result = ended(builder.add_edge(START, "jump"))
    assert [(frame["node"], frame["data"]) for frame in result.of("node")] == [
        ("jump", {"log": ["jump"]}),
        ("target", {"log": ["target"]}),
    ]


def test_with_durability_exit_nothing_is_held_back_and_the_end_is_saved() -> None:
    async def scenario() -> None:
        async with bench(chain(("a", Ran().node("a")), ("b", Ran().node("b")))) as one:
            result = await one.run({"log": []}, durability="exit")
            assert result.nodes == ["a", "b"]
            assert (await one.state()).values["log"] == ["a", "b"]

    play(scenario)


# -- stopping ---------------------------------------------------------------------------------------------------------


def stopped(
    node: Any, reason: CancelReason, begun: asyncio.Event, modes: list[str] | None = None
) -> tuple[Result, list[str]]:
    """A run that is stopped in its second node; and the thread's log afterwards."""

    async def scenario() -> tuple[Result, list[str]]:
        async with bench(chain(("a", Ran().node("a")), ("node", node))) as one:
            result = Result()
            attempt = await one.begin(asked({"log": []}, **({"modes": modes} if modes else {})), result.put)
            work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
            await begun.wait()
            await attempt.cancelled(work, reason, result)
            state = await one.state()
            assert state.next == ("node",)
            return result, state.values["log"]

    return play(scenario)


def test_a_cancelled_run_says_why_and_how_far_the_model_had_come() -> None:
    begun = asyncio.Event()

    class Slow(Speaker):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                if chunk.text == "two":
                    begun.set()
                    await asyncio.Event().wait()

    async def talk(state: Steps) -> Steps:
        return {"messages": [await Slow(words=["one ", "two", "three"], message_id="m").ainvoke("x")]}

    result, log = stopped(talk, "user", begun)
    assert result.last == {"event": "cancelled", "reason": "user", "partial": {"m": "one two"}, "usage": None}
    assert result.ending is not None
    assert (result.ending.status, result.ending.thread_status) == ("cancelled", "idle")
    assert log == ["a"]


class SlowWriter:
    """Is slow with one of its commits: it says so, and takes a while for it."""

    def __init__(self, writer: Writer, slow: int) -> None:
        self._writer = writer
        self._left = slow
        self.slowing = asyncio.Event()

    async def submit(self, operation: Callable[[Any], T]) -> T:
        self._left -= 1
        if self._left == 0:
            self.slowing.set()
            for _ in range(20):
                await asyncio.sleep(0)
        return await self._writer.submit(operation)

    async def reclaim(self) -> bool:
        return await self._writer.reclaim()

    async def aclose(self) -> None:
        await self._writer.aclose()


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("make", [in_a_row, in_parallel, with_a_child])
def test_a_run_that_is_stopped_while_it_saves_ends_as_cancelled_and_leaves_an_idle_thread(
    make: Callable[[Ran], Any], durability: Any, tmp_path: Path
) -> None:
    async def stop_in(commit: int) -> bool:
        writers = list[SlowWriter]()

        def slow(writer: Writer) -> Writer:
            writers.append(SlowWriter(writer, commit))
            return writers[0]

        async with bench(make(Ran()), path=tmp_path / f"{commit}.sqlite", wrap=slow) as one:
            result = Result()
            attempt = await one.begin(asked({"log": []}, durability=durability), result.put)
            work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
            slowing = asyncio.create_task(writers[0].slowing.wait())  # noqa: TID251
            await asyncio.wait({work, slowing}, return_when=asyncio.FIRST_COMPLETED)
            if not slowing.done():
                slowing.cancel()
                return False
            await attempt.cancelled(work, "user", result, keep_partial=True)
            assert result.last["event"] == "cancelled"
            assert (await one.state()).next == ()
            return True

    async def scenario() -> int:
        commit = 1
        while await stop_in(commit):
            commit += 1
        return commit

    assert play(scenario) > 4


@pytest.mark.parametrize(
    ("reason", "code"), [("timeout", "timeout"), ("idle_timeout", "idle_timeout"), ("shutdown", "server_shutdown")]
)
def test_a_run_that_a_clock_or_the_server_stopped_ends_with_an_error(reason: CancelReason, code: str) -> None:
    begun = asyncio.Event()

    async def waits(state: Steps) -> Steps:
        begun.set()
        await asyncio.Event().wait()
        return {}

    result, _ = stopped(waits, reason, begun)
    assert (result.last["event"], result.last["code"], result.last["retryable"]) == ("error", code, True)


def test_usage_of_the_calls_before_is_in_the_end_of_a_cancelled_run() -> None:
    begun = asyncio.Event()

    async def talk(state: Steps) -> Steps:
        await Speaker(words=["a", "b"]).ainvoke("x")
        begun.set()
        await asyncio.Event().wait()
        return {}

    result, _ = stopped(talk, "user", begun, modes=["updates"])
    assert result.last["usage"] == {"speaker": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}


def test_a_drained_run_stops_between_two_steps() -> None:
    ran = Ran()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(state: Steps) -> Steps:
        begun.set()
        await go_on.wait()
        return {"log": ["waits"]}

    async def scenario() -> None:
        async with bench(chain(("waits", waits), ("after", ran.node("after")))) as one:
            result = Result()
            attempt = await one.begin(asked({"log": []}), result.put)
            work = asyncio.create_task(attempt.execution.work())  # noqa: TID251 as the executor does
            await begun.wait()
            attempt.execution.drain()
            go_on.set()
            with pytest.raises(Drained):
                await work
            assert result.nodes == ["waits"]
            assert (await one.state()).next == ("after",)

    play(scenario)
    assert ran.names == []
