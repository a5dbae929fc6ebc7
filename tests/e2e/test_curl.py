"""curl, as the README shows it."""

import json
import subprocess
from typing import Any

from tests.e2e.event_stream import EventStreamDecoder
from tests.e2e.proof import ODD_TEXT, assert_whole, parsed, runs_of
from tests.server import RunningServer, events, frames_of, spoken, wait_until

SECONDS = 30


def post(curl: str, server: RunningServer, *options: str, **body: Any) -> list[str]:
    header = ["-H", "Content-Type: application/json"]
    return [curl, "-sS", "-N", *options, *header, "-d", json.dumps(body), f"{server.url}/runs/stream"]


def said_by(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts_of(output: bytes) -> list[str]:
    return [block.removeprefix("data: ") for block in output.decode().split("\n\n")[:-1]]


def test_plain_curl_shows_blocks_that_are_each_one_frame_and_nothing_else(server: RunningServer, curl: str) -> None:
    output = said_by(post(curl, server, graph="talk", message="hi"))

    assert b"\r" not in output
    assert b"id:" not in output
    assert b"retry:" not in output
    frames = assert_whole(server, texts_of(output))
    assert frames == frames_of(output.decode())
    assert list(spoken(frames).values()) == [ODD_TEXT]


def test_curl_that_accepts_an_event_stream_is_shown_ids_and_the_time_to_wait(server: RunningServer, curl: str) -> None:
    output = said_by(post(curl, server, "-H", "Accept: text/event-stream", graph="talk", message="hi"))

    assert b"\r" not in output
    decoder = EventStreamDecoder()
    messages = list(decoder.feed(output))
    frames = assert_whole(server, [message.data for message in messages])
    run_id = frames[0]["run_id"]
    assert [message.last_event_id for message in messages] == [f"{run_id}.{frame['seq']}" for frame in frames]
    blocks = output.decode().split("\n\n")[:-1]
    fields = [[line.partition(":")[0] for line in block.split("\n")] for block in blocks]
    assert fields == [["data", "id", "retry"]] + [["data", "id"]] * (len(blocks) - 1)
    assert decoder.retry == 1000


def test_curl_shows_the_words_while_the_model_still_speaks(server: RunningServer, curl: str) -> None:
    command = post(curl, server, graph="slow_talk", message="hi")
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        seen = b""
        while b'"token"' not in seen:
            seen += process.stdout.read(65536)
        run_id = frames_of(seen.decode().rpartition("\n\n")[0])[0]["run_id"]
        with server.client() as client:
            assert client.get(f"/runs/{run_id}").json()["status"] == "running"
            client.post(f"/runs/{run_id}/cancel").raise_for_status()
        seen += process.stdout.read()

        assert process.wait(SECONDS) == 0
    assert assert_whole(server, texts_of(seen))[-1]["reason"] == "user"


def test_curl_is_shown_heartbeats_as_blocks_of_their_own(beating_server: RunningServer, curl: str) -> None:
    blocks = said_by(post(curl, beating_server, graph="slow_sync", input={})).decode().split("\n\n")[:-1]

    assert ": ping" in blocks
    texts = [block.removeprefix("data: ") for block in blocks if block != ": ping"]
    assert events(assert_whole(beating_server, texts)) == ["start", "node", "complete"]


def test_a_client_of_http_1_0_sees_the_whole_run(server: RunningServer, curl: str) -> None:
    output = said_by(post(curl, server, "--http1.0", graph="talk", message="hi"))

    assert list(spoken(assert_whole(server, texts_of(output))).values()) == [ODD_TEXT]


def test_curl_that_is_killed_leaves_the_run_to_be_read_on_from_its_last_seq(server: RunningServer, curl: str) -> None:
    command = post(curl, server, graph="paced", message="hi", thread_id="curl-killed")
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        seen = b""
        while seen.count(b'"token"') < 3:
            seen += process.stdout.read(65536)
        process.kill()
    texts = texts_of(seen)
    first = parsed(texts)
    rest = said_by([curl, "-sS", "-N", f"{server.url}/runs/{first[0]['run_id']}/stream?after={first[-1]['seq']}"])

    assert_whole(server, texts + texts_of(rest))
    wait_until(lambda: runs_of(server, "curl-killed")[0]["status"] == "success", "the run's end")
    assert len(runs_of(server, "curl-killed")) == 1
