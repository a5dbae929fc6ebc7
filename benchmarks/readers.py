"""I, F, R, W: idle streams, many readers of one run, a finished run read again, and a reader that has stopped."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.client import Answer, Connection, connect, converse, exchange, get, post, read
from benchmarks.contender import RUNSTREAM, Contender, Server, scratch, serving
from benchmarks.frames import check, check_seqs, frames_of, require, spoken
from benchmarks.scenario import Cost, Figure, Own, Row, Scale, Shared, Target, median
from benchmarks.streams import question

OWN_RUNS: Final = 1000
STREAMS: Final = 5000
FOR_EVER_MS: Final = 600_000
READERS: Final = 500
STALLED_RECEIVE_BYTES: Final = 4096
QUIET_SECONDS: Final = 0.5
MEGABYTE: Final = 1024 * 1024


class Gate:
    """A port that a graph listens to, and goes on when it is opened."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def open(self) -> None:
        """Let the one run go on that waits, or will."""
        connection, _ = self._listener.accept()
        connection.close()

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def gate() -> Iterator[Gate]:
    opened = Gate()
    try:
        yield opened
    finally:
        opened.close()


def allow_many_files() -> None:
    """As many open files as this process may have; those it starts inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def has_first_frame(connection: Connection) -> bool:
    return connection.answer.first_frame_at is not None


def has_first_word(connection: Connection) -> bool:
    return b'"w0@' in connection.answer.raw


def is_whole(connection: Connection) -> bool:
    return connection.answer.is_whole


def first_frame(answer: Answer) -> dict[str, Any]:
    return frames_of(answer)[0]


def idle_streams(contender: Contender, scale: Scale) -> Row:
    """A run says one word and falls silent. Beyond the runs there may be, the server's streams read them again."""
    own, streams = scale.of(OWN_RUNS, least=20), scale.of(STREAMS, least=100)
    with scratch() as data_dir, serving(contender, data_dir) as server, contextlib.ExitStack() as stack:
        exchange(server.port, [post(question(10))] * 20)
        memory = [server.private_bytes()]
        start = post(question(2, FOR_EVER_MS))
        opened = opened_streams(server, [start] * own, stack)
        memory.append(server.private_bytes())
        more = [start] * (streams - own)
        if contender is RUNSTREAM:
            run_ids = [first_frame(connection.answer)["run_id"] for connection in opened]
            more = [get(f"/runs/{run_ids[n % own]}/stream") for n in range(streams - own)]
        opened += opened_streams(server, more, stack)
        memory.append(server.private_bytes())
        cost, seconds = Cost(server), scale.of(10, least=3)
        with cost.counted():
            time.sleep(seconds)
        for connection in opened:
            check_seqs(frames_of(connection.answer))
        server.kill()
    return {
        "KB a run and its stream": (memory[1] - memory[0]) / own / 1024,
        "KB a further stream": (memory[2] - memory[1]) / (streams - own) / 1024,
        "CPU %, all idle": 100 * cost.seconds / seconds,
    }


def opened_streams(server: Server, requests: list[bytes], stack: contextlib.ExitStack) -> list[Connection]:
    connections = connect(server.port, requests)
    for connection in connections:
        stack.callback(connection.close)
    read(connections, has_first_word)
    return connections


def many_readers(server: Server, scale: Scale) -> Row:
    words = 2000  # whatever the scale: with fewer, what each reader costs at its end would be most of it
    with gate() as opening, contextlib.ExitStack() as stack:
        (starter,) = connect(server.port, [post({**question(words), "message": f"{words}#{opening.port}"})])
        stack.callback(starter.close)
        read([starter], has_first_frame)
        path = f"/runs/{first_frame(starter.answer)['run_id']}/stream"
        readers = connect(server.port, [get(path)] * READERS)
        for reader in readers:
            stack.callback(reader.close)
        read(readers, has_first_frame)
        cost, begun = Cost(server), time.monotonic()
        with cost.counted():
            opening.open()
            read([starter, *readers], is_whole)
        seconds = time.monotonic() - begun
    frames, bodies = 0, dict[bytes, int]()
    for reader in readers:
        body = reader.answer.body
        if body not in bodies:
            bodies[body] = len(check(reader.answer, words))
        frames += bodies[body]
    return {
        "frames/s": frames / seconds,
        "tokens/s": words * READERS / seconds,
        "CPU µs a token": cost.seconds / words / READERS * 1e6,
    }


def replay(server: Server, scale: Scale) -> Row:
    events, rounds = 20_000, scale.of(5)
    (live,) = exchange(server.port, [post(question(events))])
    path = f"/runs/{first_frame(live)['run_id']}/stream"
    cost = Cost(server)
    with cost.counted():
        (answers,) = converse(server.port, [[get(path)] * rounds])
    frames = check(answers[0], events)
    require(len(frames) == frames[-1]["seq"], "a replay has joined what nobody asked to be joined")
    require(len({answer.body for answer in answers}) == 1, "replays differ")
    require(spoken(frames_of(live)) == spoken(frames), "the replay says something else")
    return {
        "events/s": len(frames) / median([answer.seconds for answer in answers]),
        "CPU µs an event": cost.seconds / rounds / len(frames) * 1e6,
    }


def stalled_reader(contender: Contender, scale: Scale) -> Row:
    words = scale.of(100_000, least=5000)
    without, peak_without = memory_of_run(contender, words, is_stalled=False)
    stalled, peak_stalled = memory_of_run(contender, words, is_stalled=True)
    return {
        "growth MB": (stalled - without) / MEGABYTE,
        "growth of the peak MB": (peak_stalled - peak_without) / MEGABYTE,
        "run alone MB": without / MEGABYTE,
    }


def memory_of_run(contender: Contender, words: int, *, is_stalled: bool) -> tuple[int, int]:
    """How much the memory has grown when a run has ended, and how much its peak did.

    The bare loop has one reader, so it is that one which stalls; the server has another one that reads on.
    """
    with scratch() as data_dir, serving(contender, data_dir) as server, gate() as opening:
        exchange(server.port, [post(question(100))] * 10)
        begun, peak = server.private_bytes(), server.peak_bytes()
        request = post({**question(words), "message": f"{words}#{opening.port}"})
        reader = Connection(server.port)
        stalled = Connection(server.port, receive_bytes=STALLED_RECEIVE_BYTES)
        if contender is RUNSTREAM:
            reader.ask(request)
            read([reader], has_first_frame)
            if is_stalled:
                stalled.ask(get(f"/runs/{first_frame(reader.answer)['run_id']}/stream"))
        else:
            (stalled if is_stalled else reader).ask(request)
        opening.open()
        if contender is RUNSTREAM or not is_stalled:
            read([reader], is_whole)
            check(reader.answer, words)
        wait_until_quiet(server)
        grown = server.private_bytes() - begun, server.peak_bytes() - peak
        reader.close()
        stalled.close()
        server.kill()
    return grown


def wait_until_quiet(server: Server) -> None:
    used = server.cpu_seconds()
    while True:
        time.sleep(QUIET_SECONDS)
        before, used = used, server.cpu_seconds()
        if used - before < QUIET_SECONDS / 20:
            return


SCENARIOS: Final = (
    Own(
        key="I",
        title=f"{OWN_RUNS:,} idle runs with a stream each, and {STREAMS - OWN_RUNS:,} more streams",
        figures=(
            Figure(name="KB a run and its stream", better="less"),
            Figure(name="KB a further stream", better="less", target=Target(value=25)),
            Figure(name="CPU %, all idle", better="less"),
        ),
        contenders=("runstream", "bare loop"),
        measure=idle_streams,
        is_in_quick=False,
    ),
    Shared(
        key="F",
        title=f"one run of 2,000 tokens, {READERS} readers",
        figures=(
            Figure(name="frames/s", better="more", target=Target(value=500_000)),
            Figure(name="tokens/s", better="more"),
            Figure(name="CPU µs a token", better="less"),
        ),
        contenders=("runstream",),
        measure=many_readers,
    ),
    Shared(
        key="R",
        title="replay of 20,000 events",
        figures=(
            Figure(name="events/s", better="more", target=Target(value=300_000)),
            Figure(name="CPU µs an event", better="less"),
        ),
        contenders=("runstream",),
        measure=replay,
    ),
    Own(
        key="W",
        title="a reader that has stopped, in a run of 100,000 tokens",
        figures=(
            # what is held at the end is the allocator's luck: two runs without such a reader differ by 60 MB
            Figure(name="growth of the peak MB", better="less", target=Target(value=2)),
            Figure(name="growth MB", better="less"),
            Figure(name="run alone MB", better="less"),
        ),
        contenders=("runstream", "bare loop"),
        measure=stalled_reader,
        is_in_quick=False,
    ),
)
