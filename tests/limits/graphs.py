"""Graphs that take more than their share."""

import asyncio
import gc
import logging
import os
import threading
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from opentelemetry.trace import get_current_span
from typing_extensions import TypedDict

from app.engine.node_threads import THREAD_NAME


class Flood(TypedDict, total=False):
    count: int
    objects: int
    spared: int
    tasks: int
    size: int
    done: bool


def trace(line: str) -> None:
    with open(os.environ["RUNSTREAM_TEST_TRACE"], "a") as file:
        file.write(line + "\n")


def pour(state: Flood) -> dict[str, Any]:
    """Says so much without a pause."""
    write = get_stream_writer()
    text = "x" * state.get("size", 10)
    for number in range(state["count"]):
        try:
            write({"number": number, "text": text})
        except Exception as error:
            trace(f"{type(error).__name__} at {number}")
            raise
    return {"done": True}


async def pour_in_the_loop(state: Flood) -> dict[str, Any]:
    return pour(state)


async def drip(state: Flood) -> dict[str, Any]:
    """Says as much, and lets others have a turn after each word."""
    write = get_stream_writer()
    for number in range(state["count"]):
        write({"number": number, "text": "x" * state.get("size", 10)})
        await asyncio.sleep(0)
    return {"done": True}


async def pour_and_wait(state: Flood) -> dict[str, Any]:
    """Blocks the loop until a thread of its own has said everything, which no node should do."""
    return await asyncio.to_thread(lambda: {}) or pool(state)


def pool(state: Flood) -> dict[str, Any]:
    import contextvars

    context = contextvars.copy_context()
    worker = threading.Thread(target=lambda: context.run(pour, state), name=THREAD_NAME)
    worker.start()
    worker.join()
    return {"done": True}


async def rest(state: Flood) -> dict[str, Any]:
    return {"done": True}


def says(state: Flood) -> dict[str, Any]:
    logging.getLogger("my.graph").warning("hello from %s", "says_in_a_thread")
    return {"done": True}


async def says_here(state: Flood) -> dict[str, Any]:
    logging.getLogger("my.graph").warning("hello from %s", "says_in_the_loop")
    return {"done": True}


async def breaks_down(state: Flood) -> dict[str, Any]:
    return {"count": state["count"] // 0}


async def weigh(state: Flood) -> dict[str, Any]:
    """Tells how many objects and tasks the process has, and how many objects no collection looks at."""
    gc.collect()
    spared = gc.get_freeze_count() if gc.isenabled() else 0
    return {"objects": len(gc.get_objects()), "tasks": len(asyncio.all_tasks()), "spared": spared}


def tell_span(state: Flood) -> dict[str, Any]:
    trace(f"span {get_current_span().get_span_context().span_id:016x}")
    return {"done": True}


async def tell_span_here(state: Flood) -> dict[str, Any]:
    return tell_span(state)


def graph(name: str, node: Any) -> Any:
    return StateGraph(Flood).add_node(name, node).add_edge(START, name).add_edge(name, END).compile()


sync_flood = graph("pour", pour)
async_flood = graph("pour", pour_in_the_loop)
drips = graph("drip", drip)
joins = graph("join", pour_and_wait)
quiet = graph("rest", rest)
says_in_a_thread = graph("says", says)
says_in_the_loop = graph("says", says_here)
breaks = graph("breaks", breaks_down)
weighs = graph("weigh", weigh)
spans_in_a_thread = graph("spans", tell_span)
spans_in_the_loop = graph("spans", tell_span_here)
