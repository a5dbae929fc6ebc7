"""LangGraph without HTTP, in a process of its own: what nobody can be faster than.

`python -m benchmarks.alone S,B [factor]` prints the rows as JSON. Where a checkpointer is needed it is LangGraph's
own, on a file in the working directory.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from benchmarks.chat import chat
from benchmarks.graph import asking
from benchmarks.graph import graph as counting
from benchmarks.scenario import Row, Scale, median, percentile
from benchmarks.turns import CALLERS, COMPARED, TURN_WORDS, TURNS, growth

MODES: Final = ["updates", "messages"]


@dataclass(slots=True)
class Run:
    """When a run began and each of its words came. Seconds of `time.monotonic`."""

    begun: float
    words: list[str] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    def delays(self, which: int) -> list[float]:
        """Of each paced word, since it was due (0) or said (1)."""
        stamps = (word.partition("@")[2].split("/")[which] for word in self.words)
        return [at - int(stamp) / 1e6 for at, stamp in zip(self.heard, stamps, strict=True)]


async def run(given: Any, *, of: Any = None, thread_id: str | None = None) -> Run:
    config = {"configurable": {"thread_id": thread_id}} if thread_id else None
    durability = {"durability": "sync"} if thread_id else {}
    it = Run(time.monotonic())
    async for mode, data in (of or counting).astream(given, config, stream_mode=MODES, **durability):
        if mode == "messages" and data[0].content:
            it.words.append(data[0].content)
            it.heard.append(time.monotonic())
    it.ended = time.monotonic()
    return it


def asked(message: str) -> dict[str, Any]:
    return {"messages": [("user", message)]}


async def one_stream(scale: Scale) -> Row:
    rounds, cpu = scale.of(3), time.process_time()
    runs = [await run(asked("2000")) for _ in range(rounds)]
    return {
        "tokens/s": 2000 / median([it.seconds for it in runs]),
        "CPU µs a token": (time.process_time() - cpu) / rounds / 2000 * 1e6,
    }


async def burst(scale: Scale) -> Row:
    streams, cpu, begun = scale.of(50), time.process_time(), time.monotonic()
    runs = await asyncio.gather(*(run(asked("200")) for _ in range(streams)))
    return {
        "tokens/s": 200 * streams / (time.monotonic() - begun),
        "first frame ms, 95th": 1000 * percentile([it.heard[0] - begun for it in runs], 95),
        "CPU µs a token": (time.process_time() - cpu) / streams / 200 * 1e6,
    }


async def paced(streams: int, words: int, pace_ms: int) -> Row:
    cpu, begun = time.process_time(), time.monotonic()
    runs = await asyncio.gather(*(run(asked(f"{words}@{pace_ms}")) for _ in range(streams)))
    said = [delay for it in runs for delay in it.delays(1)]
    return {
        "first token ms, 95th": 1000 * percentile([it.heard[0] - begun for it in runs], 95),
        "delay ms, median": 1000 * median(said),
        "delay ms, 99th": 1000 * percentile(said, 99),
        "behind its time ms, 99th": 1000 * percentile([delay for it in runs for delay in it.delays(0)], 99),
        "CPU µs a token": (time.process_time() - cpu) / streams / words * 1e6,
    }


async def short_runs(scale: Scale) -> Row:
    runs, cpu, begun = scale.of(100), time.process_time(), time.monotonic()

    async def caller() -> None:
        for _ in range(runs):
            await run(asked("1"))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return {
        "runs/s": runs * CALLERS / (time.monotonic() - begun),
        "CPU ms a run": (time.process_time() - cpu) / runs / CALLERS * 1000,
    }


def saved() -> AbstractAsyncContextManager[AsyncSqliteSaver]:
    return AsyncSqliteSaver.from_conn_string("checkpoints.sqlite")  # in the working directory


async def pauses(scale: Scale) -> Row:
    pairs, cpu, begun = scale.of(40), time.process_time(), time.monotonic()

    async def caller(graph: Any) -> None:
        for _ in range(pairs):
            thread_id = str(uuid.uuid4())
            await run(asked("ask me"), of=graph, thread_id=thread_id)
            await run(Command(resume="yes"), of=graph, thread_id=thread_id)

    async with saved() as saver:
        graph = asking.copy(update={"checkpointer": saver})
        await asyncio.gather(*(caller(graph) for _ in range(CALLERS)))
    return {
        "pairs/s": pairs * CALLERS / (time.monotonic() - begun),
        "CPU ms a pair": (time.process_time() - cpu) / pairs / CALLERS * 1000,
    }


async def growing_thread(scale: Scale) -> Row:
    first, last, cpu = list[float](), list[float](), [0.0, 0.0]
    threads = scale.of(5)
    async with saved() as saver:
        graph = counting.copy(update={"checkpointer": saver})
        for _ in range(threads):
            thread_id = str(uuid.uuid4())
            for turn in range(TURNS):
                before = time.process_time()
                it = await run(asked(str(TURN_WORDS)), of=graph, thread_id=thread_id)
                used = time.process_time() - before
                if turn < COMPARED:
                    first.append(it.seconds)
                    cpu[0] += used
                elif turn >= TURNS - COMPARED:
                    last.append(it.seconds)
                    cpu[1] += used
    return growth(first, last, cpu[0], cpu[1], turns=threads * COMPARED)


async def provider(scale: Scale) -> Row:
    await run(asked("10"), of=chat)
    rounds, cpu = scale.of(3), time.process_time()
    runs = [await run(asked("2000"), of=chat) for _ in range(rounds)]
    for it in runs:
        assert len(it.words) == 2000, len(it.words)
    return {
        "tokens/s": 2000 / median([it.seconds for it in runs]),
        "CPU µs a token": (time.process_time() - cpu) / rounds / 2000 * 1e6,
    }


MEASURES: Final[Mapping[str, Callable[[Scale], Awaitable[Row]]]] = {
    "S": one_stream,
    "B": burst,
    "P": lambda scale: paced(50, scale.of(200, least=20), 20),
    "Q": lambda scale: paced(200, scale.of(100, least=10), 50),
    "T": short_runs,
    "H": pauses,
    "G": growing_thread,
    "C": provider,
}


async def measure(keys: list[str], scale: Scale) -> dict[str, Row]:
    for _ in range(3):
        await run(asked("10"))
    return {key: await MEASURES[key](scale) for key in keys}


def main() -> None:
    keys, factor = sys.argv[1].split(","), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    rows = asyncio.run(measure(keys, Scale(factor=factor)))
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
