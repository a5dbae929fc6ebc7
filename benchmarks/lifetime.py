"""K, D: a process that begins, and one that was killed and comes back."""

import time
from pathlib import Path
from typing import Any, Final

from benchmarks.client import Connection, connect, exchange, get, post, read
from benchmarks.contender import Contender, scratch, serving
from benchmarks.frames import check_end, check_seqs, frames_of, require, spoken
from benchmarks.readers import MEGABYTE, is_whole
from benchmarks.scenario import Figure, Own, Row, Scale, Target
from benchmarks.streams import question

SETTLE_SECONDS: Final = 1.0
INTERRUPTED: Final = 200
PACE_MS: Final = 100


def cold_start(contender: Contender, scale: Scale) -> Row:
    with scratch() as data_dir, serving(contender, data_dir) as server:
        time.sleep(SETTLE_SECONDS)
        idle = server.resident_bytes()
        exchange(server.port, [post(question(10))])
        used = server.resident_bytes()
    return {
        "ready s": server.start_seconds,
        "CPU s until ready": server.start_cpu_seconds,
        "idle MB": idle / MEGABYTE,
        "after a run MB": used / MEGABYTE,
    }


def recovery(contender: Contender, scale: Scale) -> Row:
    """Runs are killed in the middle of their words; all readers come back and stay to the ends."""
    runs, words = scale.of(INTERRUPTED, least=10), scale.of(60, least=30)
    with scratch() as data_dir:
        seen = killed(contender, data_dir, runs, words)
        begun = time.monotonic()
        with serving(contender, data_dir) as server:
            paths = [f"/runs/{frames[0]['run_id']}/stream?after={frames[-1]['seq']}" for frames in seen]
            connections = connect(server.port, [get(path) for path in paths])
            going_on: dict[Connection, float] = {}
            read(connections, lambda connection: goes_on(connection, going_on))
            cpu = server.cpu_seconds()
            read(connections, is_whole)
            for before, connection in zip(seen, connections, strict=True):
                check_again(before, frames_of(connection.answer), words)
                connection.close()
    return {
        "ready s": server.start_seconds,
        "all going on s": max(going_on.values()) - begun,
        "CPU s until all go on": cpu,
        "half going on s": sorted(going_on.values())[runs // 2] - begun,
    }


def killed(contender: Contender, data_dir: Path, runs: int, words: int) -> list[list[dict[str, Any]]]:
    """What was seen of each run when the process was killed."""
    with serving(contender, data_dir) as server:
        connections = connect(server.port, [post(question(words, PACE_MS))] * runs)
        read(connections, lambda connection: b'"w5@' in connection.answer.raw)
        seen = [frames_of(connection.answer) for connection in connections]
        server.kill()
    for connection in connections:
        connection.close()
    for frames in seen:
        require(frames[-1]["event"] == "token", f"a run has ended before it was killed: {frames[-1]}")
    return seen


def goes_on(connection: Connection, going_on: dict[Connection, float]) -> bool:
    if b'"token"' not in connection.answer.raw.partition(b'"restart"')[2]:
        return False
    going_on[connection] = connection.answer.arrived_at[-1]
    return True


def check_again(before: list[dict[str, Any]], after: list[dict[str, Any]], words: int) -> None:
    """Raise unless the second part follows the first, says once that it begins again, and then all of it."""
    check_seqs([*before, *after])
    begins = [number for number, frame in enumerate(after) if frame["event"] == "restart"]
    require(len(begins) == 1, f"{len(begins)} restarts")
    require(spoken(after[begins[0] :]) == [f"w{index}" for index in range(words)], "the text is not whole")
    check_end(after)


SCENARIOS: Final = (
    Own(
        key="K",
        title="cold start",
        figures=(
            Figure(name="ready s", better="less", target=Target(value=1.5)),
            Figure(name="CPU s until ready", better="less"),
            Figure(name="idle MB", better="less", target=Target(value=110)),
            Figure(name="after a run MB", better="less"),
        ),
        contenders=("runstream", "bare loop"),
        measure=cold_start,
    ),
    Own(
        key="D",
        title=f"{INTERRUPTED} runs after kill -9",
        figures=(
            Figure(name="ready s", better="less"),
            Figure(name="all going on s", better="less", target=Target(value=3)),
            Figure(name="CPU s until all go on", better="less"),
            Figure(name="half going on s", better="less"),
        ),
        contenders=("runstream",),
        measure=recovery,
        is_in_quick=False,
    ),
)
