"""Graphs of every shape that a crash may hit. Each node tells what it did to the file that FAULTS_TRACE names.

All have a `log` that only grows: an input, an answer or a node's result that is applied twice is seen there.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

from langchain_core.messages import BaseMessage
from langgraph.config import get_config, get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, RetryPolicy, Send, interrupt
from typing_extensions import TypedDict

from tests.project.graphs import Speaker

PIECE_SECONDS = 0.001


def plus(old: list[str], new: list[str]) -> list[str]:
    return [*old, *new]


class State(TypedDict, total=False):
    log: Annotated[list[str], plus]
    messages: Annotated[list[BaseMessage], add_messages]


class Node(Protocol):
    async def __call__(self, state: State) -> State: ...


def trace(what: str = "ran") -> None:
    path = os.environ.get("FAULTS_TRACE")
    if path:
        config = get_config()
        node, _, task_id = config["configurable"]["checkpoint_ns"].rpartition("|")[2].partition(":")
        place = {"process": os.environ.get("FAULTS_PROCESS"), "run_id": config["metadata"]["runstream_run_id"]}
        line = {**place, "node": node, "task_id": task_id, "what": what, "at": time.monotonic_ns()}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


def node(name: str, turns: int = 1) -> Node:
    async def run(state: State) -> State:
        trace()
        for _ in range(turns):
            await asyncio.sleep(PIECE_SECONDS)
        return {"log": [name]}

    return run


def speaker(name: str) -> Node:
    """Says a few words, and shows a custom event between."""

    async def run(state: State) -> State:
        trace()
        words = [f"{name}{index} " for index in range(4)]
        said = await Speaker(words=words, delay_seconds=PIECE_SECONDS).ainvoke("go")
        get_stream_writer()({"from": name})
        await asyncio.sleep(PIECE_SECONDS)
        return {"log": [name], "messages": [said]}

    return run


def asker(name: str, count: int = 1) -> Node:
    """Asks so many questions, one after the other; does its work only when all are answered."""

    async def run(state: State) -> State:
        trace("asks")
        answers = [interrupt(f"{name}{number}?") for number in range(count)]
        trace("acts")
        return {"log": [f"{name}{number}={answer}" for number, answer in enumerate(answers)]}

    return run


def chain(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    before = START
    for name, run in nodes.items():
        builder.add_node(name, run)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def abreast(**nodes: Any) -> StateGraph[Any, Any, Any, Any]:
    """All nodes at once, then `join`."""
    builder = StateGraph(State).add_node("join", node("join"))
    for name, run in nodes.items():
        builder.add_node(name, run).add_edge(START, name)
    return builder.add_edge(list(nodes), "join").add_edge("join", END)


linear = chain(one=node("one"), two=speaker("two"), three=node("three")).compile()
parallel = abreast(a=node("a"), b=speaker("b"), c=node("c", turns=6)).compile()

inner = chain(x=node("x"), y=speaker("y"))
below = chain(one=node("one"), child=inner.compile(), three=node("three")).compile()
own = chain(one=node("one"), child=inner.compile(checkpointer=True), three=node("three")).compile()
apart = chain(one=node("one"), child=inner.compile(checkpointer=False), three=node("three")).compile()

ask = chain(before=node("before"), question=asker("q"), after=node("after")).compile()
ask_often = chain(before=node("before"), question=asker("q", 3), after=node("after")).compile()
ask_both = abreast(left=asker("l"), right=asker("r"), slow=node("slow", turns=4)).compile()
ask_two = abreast(left=asker("l"), right=asker("r")).compile()
ask_below = chain(
    before=node("before"), child=chain(x=node("x"), question=asker("q", 2)).compile(), after=node("after")
).compile()
ask_apart = chain(
    before=node("before"),
    child=chain(x=node("x"), question=asker("q")).compile(checkpointer=False),
    after=node("after"),
).compile()
pause_below = chain(
    before=node("before"),
    child=chain(x=node("x"), y=node("y")).compile(interrupt_before=["y"]),
    after=node("after"),
).compile()


class Flaky:
    """Fails the first time that a process runs a task."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    async def __call__(self, state: State) -> State:
        place = get_config()["configurable"]["checkpoint_ns"]
        is_first = place not in self._seen
        self._seen.add(place)
        trace("fails" if is_first else "ran")
        words = ["a ", "b ", "c "]
        model = Speaker(words=words, delay_seconds=PIECE_SECONDS, fails_after=2 if is_first else None)
        return {"log": ["flaky"], "messages": [await model.ainvoke("go")]}


flaky = (
    chain(before=node("before"))
    .add_node(
        "flaky",
        Flaky().__call__,
        retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False, retry_on=ConnectionError),
    )
    .add_edge("before", "flaky")
    .compile()
)


def to_workers(state: State) -> list[Send]:
    return [Send("worker", {"log": [str(number)]}) for number in range(3)]


async def worker(state: State) -> State:
    number = state["log"][0]
    return await (speaker if number == "1" else node)(f"worker{number}")(state)


fan = (
    StateGraph(State)
    .add_node("scatter", node("scatter"))
    .add_node("worker", worker)
    .add_node("gather", node("gather"))
    .add_edge(START, "scatter")
    .add_conditional_edges("scatter", to_workers, ["worker"])
    .add_edge("worker", "gather")
    .add_edge("gather", END)
    .compile()
)


def to_children(state: State) -> list[Send]:
    return [Send("child", {"log": [str(number)]}) for number in range(3)]


family = (
    StateGraph(State)
    .add_node("scatter", node("scatter"))
    .add_node("child", inner.compile())
    .add_node("gather", node("gather"))
    .add_edge(START, "scatter")
    .add_conditional_edges("scatter", to_children, ["child"])
    .add_edge("child", "gather")
    .add_edge("gather", END)
    .compile()
)


async def leave(state: State) -> Command[Any]:
    """Goes on in the graph round it."""
    trace()
    return Command(graph=Command.PARENT, goto="three", update={"log": ["left"]})


handoff = (
    StateGraph(State)
    .add_node("child", chain(x=node("x"), leave=leave).compile(), destinations=("three",))
    .add_node("three", node("three"))
    .add_edge(START, "child")
    .add_edge("three", END)
    .compile()
)


def in_thread(state: State) -> State:
    trace()
    get_stream_writer()({"from": "thread"})
    return {"log": ["thread"]}


threads = abreast(a=in_thread, b=in_thread, c=node("c")).compile()


@task
async def fetch(name: str) -> str:
    trace()
    await asyncio.sleep(PIECE_SECONDS)
    return name


@entrypoint()
async def function(value: dict[str, Any]) -> dict[str, Any]:
    parts = [await fetch(name) for name in ("a", "b")]
    answer = interrupt("go on?")
    return {"log": [*value["log"], *parts, str(answer), await fetch("c")]}


async def die(state: State) -> State:
    """Takes its process with it."""
    trace("dies")
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(30)
    return {}


deadly = chain(one=speaker("one"), die=die).compile()


async def hold(state: State) -> State:
    """Works on until the test lets it go, by a file."""
    trace("holds")
    try:
        await pass_gate()
    finally:
        trace("left")
    return {"log": ["held"]}


async def pass_gate() -> None:
    gate = Path(os.environ["FAULTS_TRACE"] + ".gate")
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 another process opens it
        await asyncio.sleep(0.002)


async def pass_gate_only() -> None:
    """No cancelling helps."""
    while True:
        try:
            return await pass_gate()
        except asyncio.CancelledError:
            trace("ignores")


async def hold_tight(state: State) -> State:
    """The same, and does not let itself be stopped."""
    trace("holds")
    await pass_gate_only()
    return {"log": ["held"]}


def hold_thread(state: State) -> State:
    """The same in a thread, which nothing stops."""
    trace("holds")
    gate = Path(os.environ["FAULTS_TRACE"] + ".gate")
    while not gate.exists():
        threading.Event().wait(0.01)
    return {"log": ["held"]}


async def ask_at_last(state: State) -> State:
    trace("holds")
    await pass_gate_only()
    answer = interrupt("q?")
    trace("acts")
    return {"log": [str(answer)]}


async def await_answer(state: State) -> State:
    """Asks, beside a node that goes on."""
    return {"log": [str(interrupt("now?"))]}


def talker(pause: Callable[[], Awaitable[None]]) -> Node:
    """Says half of its words, waits, and says the rest."""

    async def run(state: State) -> State:
        model = Speaker(words=[f"w{index} " for index in range(4)], delay_seconds=PIECE_SECONDS)
        pieces = []
        async for piece in model.astream("go"):
            pieces.append(piece)
            if len(pieces) == 2:
                trace("half")
                await pause()
        said = pieces[0]
        for piece in pieces[1:]:
            said += piece
        return {"messages": [said]}

    return run


held = chain(one=speaker("one"), hold=hold, three=node("three")).compile()
stubborn = chain(one=speaker("one"), hold=hold_tight, three=node("three")).compile()
threaded = chain(one=speaker("one"), hold=hold_thread, three=node("three")).compile()
asked_beside = abreast(ask=await_answer, hold=hold).compile()
talks = chain(talk=talker(pass_gate)).compile()
talks_on = chain(one=node("one"), talk=talker(pass_gate_only)).compile()
ask_late = chain(before=node("before"), question=ask_at_last).compile()
holds_last = chain(one=speaker("one"), hold=hold).compile()
