"""A reader that does not read, beside one that does (wire contract, section 4, Tokens)."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.raw_client import RawExchange, data_of, frames_of, get, post, run_id_of
from tests.server import RunningServer, wait_until
from tests.streaming.serving import serving

TOKENS = 100_000
TEXT = "".join(f"w{number} " for number in range(TOKENS))
STALLED = 10  # together, since one is lost in what the allocator keeps: two runs without any differ by 40 MB
GROWTH_BYTES = 8 * 1024 * 1024
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("slow") / "data") as server:
        yield server


def resident_bytes(server: RunningServer) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def tokens_of(body: bytes) -> list[str]:
    frames = [data_of(frame) for frame in frames_of(body)]
    return [frame["data"]["content"] for frame in frames if frame["event"] == "token"]


class Drain(threading.Thread):
    """Reads a stream to its end, beside the test."""

    def __init__(self, exchange: RawExchange) -> None:
        super().__init__(daemon=True)
        self.body = b""
        self._exchange = exchange
        self.start()

    def to_end(self) -> bytes:
        self.join(PATIENCE_SECONDS)
        return self.body

    def run(self) -> None:
        pieces = list[bytes]()
        while not (self._exchange.is_ended or self._exchange.is_dropped):
            pieces += self._exchange.chunks
            self._exchange.chunks.clear()
            self._exchange.read_until(bool)
        self.body = b"".join([*pieces, *self._exchange.chunks])


@dataclass(frozen=True)
class Burst:
    """What each stalled reader cost the process, what one beside them heard, and what one of them got as it woke."""

    growth_bytes: int
    heard: list[str]
    caught_up: list[str]


def start(server: RunningServer) -> RawExchange:
    body = {"graph": "burst", "message": str(TOKENS), "on_disconnect": "continue"}
    return RawExchange(server.port, "POST", "/runs/stream", json_body=body, receive_buffer_bytes=4096).read_frames(3)


def held_at_the_end(server: RunningServer, run_id: str) -> int:
    with server.client() as client:
        wait_until(lambda: client.get(f"/runs/{run_id}").json()["status"] == "success", "the run ends", 90)
    return resident_bytes(server)


def held_alone(server: RunningServer) -> int:
    with start(server) as alone:
        run_id = run_id_of(alone)
    return held_at_the_end(server, run_id)


@pytest.fixture(scope="module")
def stalled(server: RunningServer) -> Burst:
    before = max(held_alone(server) for _ in range(2))  # how much waits for the disk at most is a matter of luck
    with ExitStack() as stack:
        first = stack.enter_context(start(server))
        path = f"/runs/{run_id_of(first)}/stream"
        for _ in range(STALLED - 1):
            beside = RawExchange(server.port, "GET", path, receive_buffer_bytes=4096)
            stack.enter_context(beside.read_frames(3))
        with get(server, path) as reader:
            heard = Drain(reader).to_end()
        after = held_at_the_end(server, run_id_of(first))
        caught_up = Drain(first).to_end()
    return Burst((after - before) // STALLED, tokens_of(heard), tokens_of(caught_up))


def test_a_reader_that_keeps_up_is_sent_each_token_by_itself(server: RunningServer) -> None:
    with post(server, {"graph": "burst", "message": "2000"}) as exchange:
        assert tokens_of(Drain(exchange).to_end()) == [f"w{number} " for number in range(2000)]


def test_a_reader_that_stalls_costs_a_window_of_memory_and_misses_nothing(
    stalled: Burst, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        megabytes = stalled.growth_bytes / 2**20
        print(f"\na stalled reader of {TOKENS} tokens: {megabytes:+.1f} MB, {len(stalled.caught_up)} frames")  # noqa: T201 a measure
    assert stalled.growth_bytes < GROWTH_BYTES
    assert "".join(stalled.caught_up) == TEXT


def test_a_reader_beside_those_that_stall_has_the_whole_run_before_any_of_them_wakes(stalled: Burst) -> None:
    assert "".join(stalled.heard) == TEXT


def test_a_reader_that_wakes_gets_its_backlog_in_far_fewer_frames(stalled: Burst) -> None:
    assert "".join(stalled.caught_up) == TEXT
    # what the sockets took in before they were full are single tokens: some 4 MB
    assert len(stalled.caught_up) < TOKENS / 2
