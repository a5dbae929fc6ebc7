"""Runs the server, the bare loop and LangGraph alone in turn, several times, and prints medians.

S: one stream of 2,000 tokens in a burst. B: 50 streams of 200 at once. F: the first frame of a one-token run, idle.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import stream

ROOT = Path(__file__).parent.parent
Row = dict[str, float]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the server does not listen")


def pinned(core: int) -> Callable[[], None] | None:
    """The contenders on one core and the client on another, where there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (lambda: os.sched_setaffinity(0, {cores[core]})) if len(cores) > 1 else None


def measure(command: list[str], port: int, repeats: int) -> Row:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pin = pinned(0)
    with subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=pin, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            stream(port, 10, 1)
            single = [stream(port, 2000, 1) for _ in range(repeats)]
            burst = [stream(port, 200, 50) for _ in range(repeats)]
            first = [stream(port, 1, 1).first_seconds[0] for _ in range(20 * repeats)]
        finally:
            process.terminate()
    return {
        "S tokens/s": statistics.median(2000 / m.seconds for m in single),
        "S bytes/token": statistics.median(m.bytes / 2000 for m in single),
        "B seconds": statistics.median(m.seconds for m in burst),
        "B first frame p95 ms": 1000 * statistics.median(m.first_seconds[int(0.95 * 50)] for m in burst),
        "F first frame ms": 1000 * statistics.median(first),
    }


def measure_alone(repeats: int) -> Row:
    """LangGraph without HTTP: what nobody can be faster than."""
    from benchmarks.graph import graph

    async def run(tokens: int) -> None:
        question = {"messages": [("user", str(tokens))]}
        async for _ in graph.astream(question, stream_mode=["updates", "messages"]):
            pass

    async def timed(tokens: int, runs: int) -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(run(tokens) for _ in range(runs)))
        return time.perf_counter() - begun

    async def all_of_it() -> Row:
        await timed(10, 1)
        return {
            "S tokens/s": statistics.median([2000 / await timed(2000, 1) for _ in range(repeats)]),
            "B seconds": statistics.median([await timed(200, 50) for _ in range(repeats)]),
        }

    return asyncio.run(all_of_it())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as data_dir:
        for name in ("bare loop", "runstream"):
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.bare", str(port)]
            if name == "runstream":
                serve = [sys.executable, "-m", "app", "serve", "--port", str(port), "--log-level", "warning"]
                command = [*serve, "--config", "benchmarks/langgraph.json", "--data-dir", data_dir]
            rows[name] = measure(command, port, options.repeats)
    rows["LangGraph alone"] = measure_alone(options.repeats)
    report(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": platform.platform(), "rows": rows}, indent=2))


def report(rows: dict[str, Row]) -> None:
    columns = list(rows["runstream"])
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{row[c]:,.1f}' if c in row else '' for c in columns)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
