"""A graph for runs that meet on a thread: it tells what it did, asks when it is told to, and waits at a gate."""

import asyncio
import operator
import time
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from tests.project.graphs import gate_level, pass_gate, trace


class Line(TypedDict, total=False):
    name: str
    gate: str
    asks: bool
    sync: bool
    messages: list[dict[str, Any]]
    log: Annotated[list[str], operator.add]


async def begin(state: Line) -> dict[str, Any]:
    trace(f"{state['name']} begins")
    return {"log": [f"{state['name']} began"]}


async def ask_left(state: Line) -> dict[str, Any]:
    return {"log": [f"left: {interrupt('left?')}"]} if state.get("asks") else {}


async def ask_right(state: Line) -> dict[str, Any]:
    return {"log": [f"right: {interrupt('right?')}"]} if state.get("asks") else {}


async def held(state: Line) -> dict[str, Any]:
    trace(f"{state['name']} waits")
    if state.get("sync"):
        await asyncio.to_thread(hold_fast, state)
    elif state.get("gate"):
        await pass_gate(state["gate"], 1)
    return {"log": [f"{state['name']} held"]}


def hold_fast(state: Line) -> None:
    """A thread does not stop when its run is stopped."""
    while gate_level(state["gate"]) < 1:
        time.sleep(0.002)


async def end(state: Line) -> dict[str, Any]:
    return {"log": [f"{state['name']} ended"]}


inner = StateGraph(Line).add_node("held", held).add_edge(START, "held").add_edge("held", END).compile()


async def hold(state: Line) -> dict[str, Any]:
    """A graph within a node: it has checkpoints of its own."""
    made = await inner.ainvoke({**state, "log": []})
    return {"log": made["log"]}


line = (
    StateGraph(Line)
    .add_node("begin", begin)
    .add_node("left", ask_left)
    .add_node("right", ask_right)
    .add_node("hold", hold)
    .add_node("end", end)
    .add_edge(START, "begin")
    .add_edge("begin", "left")
    .add_edge("begin", "right")
    .add_edge(["left", "right"], "hold")
    .add_edge("hold", "end")
    .add_edge("end", END)
    .compile()
)
