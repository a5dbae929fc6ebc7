"""A process that is told to stop (SIGTERM) leaves in time, whatever its runs do, and the next one goes on with them."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.check import read_runs
from tests.faults.nursery import Served
from tests.faults.site import Site, client, read, start
from tests.raw_client import EVENTSOURCE, RawExchange
from tests.server import Frame, events, frames_of, spoken, wait_until

IN_MEMORY = {"RUNSTREAM_DATABASE_URL": "memory:"}
LONG_GRACE = {"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "20", "RUNSTREAM_STOP_SECONDS": "20"}


def nodes(frames: list[Frame]) -> list[str]:
    return [frame["node"] for frame in frames if frame["event"] == "node"]


def restarts(frames: list[Frame]) -> list[tuple[int, str]]:
    return [(frame["attempt"], frame["reason"]) for frame in frames if frame["event"] == "restart"]


def test_a_step_that_ends_within_the_grace_is_kept_and_the_next_one_is_left_to_the_next_process(site: Site) -> None:
    with site.served(LONG_GRACE) as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.send(signal.SIGTERM)
        wait_until(lambda: "503" in ready(served.port), "it is not ready any more")
        site.open_gate()
        assert served.reap() == 0
    assert site.run_row(run_id) == ("running", 1, 0)
    with site.served() as served:
        frames = read(served, run_id)
    assert restarts(frames) == [(2, "deploy")]
    assert nodes(frames) == ["one", "hold", "three"]
    assert events(frames).index("restart") == events(frames).index("complete") - 2
    assert site.trace().count("hold holds") == 1
    assert "hold left" in site.trace()


def test_while_its_runs_come_to_an_edge_a_server_says_that_it_takes_no_more_and_breaks_streams_off(site: Site) -> None:
    with site.served(LONG_GRACE) as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.send(signal.SIGTERM)
        wait_until(lambda: "503" in ready(served.port), "it is not ready any more")
        with client(served) as http:
            assert http.get("/health").status_code == 200
            for path in ("/runs/stream", "/runs/invoke"):
                refused = http.post(path, json={"graph": "linear", "input": {"log": []}})
                assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
                assert int(refused.headers["retry-after"]) > 0
            assert http.get(f"/runs/{run_id}").json()["status"] == "running"
        # anything but a 200 that breaks off would make an EventSource give up for good
        with RawExchange(served.port, "GET", f"/runs/{run_id}/stream", headers=EVENTSOURCE) as exchange:
            exchange.read_all()
            assert (exchange.status, exchange.is_dropped, exchange.is_ended) == (200, True, False)
        site.open_gate()
        assert served.reap() == 0
    assert site.ask_database("SELECT count(*) FROM runs") == [(1,)]


@pytest.mark.parametrize("graph", ["held", "stubborn", "threaded"])
def test_a_step_that_outlasts_the_grace_is_left_to_the_next_process(site: Site, graph: str) -> None:
    with site.served() as served:
        run_id = start(served, graph)
        site.wait_for("hold holds")
        assert served.end(signal.SIGTERM) == 0
    assert site.run_row(run_id) == ("running", 1, 0)
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    assert restarts(frames) == [(2, "deploy")]
    assert nodes(frames) == ["one", "hold", "three"]
    assert events(frames)[-1] == "complete"


def test_a_deploy_is_no_crash_however_often_it_comes(site: Site) -> None:
    run_id = ""
    for attempt in range(1, 5):
        with site.served() as served:
            run_id = run_id or start(served, "held")
            site.wait_for("hold holds", attempt)
            assert served.end(signal.SIGTERM) == 0
        assert site.run_row(run_id) == ("running", attempt, 0)
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    assert restarts(frames) == [(attempt, "deploy") for attempt in range(2, 6)]
    assert events(frames)[-1] == "complete"


def test_words_that_a_deploy_cuts_off_are_void_and_said_again(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "talks")
        site.wait_for("talk half")
        assert served.end(signal.SIGTERM) == 0
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    void = next(frame["discard"] for frame in frames if frame["event"] == "restart")
    texts = spoken(frames)
    assert len(void) == 1
    assert texts.pop(void[0]).startswith("w0 ")
    assert list(texts.values()) == ["w0 w1 w2 w3 "]


def test_a_paused_thread_is_left_as_it_is(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "ask")
        assert events(read(served, run_id))[-1] == "interrupt"
        assert served.end(signal.SIGTERM) == 0
    assert site.thread_status() == "interrupted"
    with site.served() as served:
        again = start(served, "ask", resume="yes")
        assert events(read(served, again))[-1] == "complete"
    assert site.run_row(run_id) == ("interrupted", 1, 0)


def test_a_question_beside_a_node_that_goes_on_is_asked_by_the_next_process(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "asked_beside")
        site.wait_for("hold holds")
        assert served.end(signal.SIGTERM) == 0
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
        assert [question["value"] for question in frames[-1]["interrupts"]] == ["now?"]
        assert nodes(frames) == ["hold"]
        again = start(served, "asked_beside", resume="yes")
        assert events(read(served, again))[-1] == "complete"


def test_a_process_that_is_told_to_stop_while_it_takes_runs_up_leaves_them_to_the_next_one(site: Site) -> None:
    with site.served() as served:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        served.end(signal.SIGKILL)
    with site.served() as served:
        assert served.end(signal.SIGTERM) == 0
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    assert restarts(frames)[0] == (2, "crash")
    assert nodes(frames) == ["one", "hold", "three"]
    assert events(frames)[-1] == "complete"


def test_a_client_that_looks_on_while_servers_change_gets_all_there_is(site: Site) -> None:
    seen: list[bytes] = []
    with ThreadPoolExecutor(1) as pool:
        with site.served() as served:
            run_id = start(served, "held")
            site.wait_for("hold holds")
            looking = pool.submit(listen, served.port, run_id, seen)
            wait_until(lambda: len(seen) > 2, "a client sees the first node")
            assert served.end(signal.SIGTERM) == 0
            assert looking.result(), "the stream was ended, not broken off"
        site.open_gate()
        with site.served() as served:
            assert not listen(served.port, run_id, seen)
            record = read_runs(served.how.data_dir / "runstream.db", "t")[run_id]
    assert seen == list(record.texts)


def listen(port: int, run_id: str, seen: list[bytes]) -> bool:
    """Add what comes after what was seen; whether the stream was broken off."""
    rest = b""
    try:
        with httpx.stream(
            "GET", f"http://127.0.0.1:{port}/runs/{run_id}/stream?after={len(seen)}", timeout=30
        ) as answer:
            for piece in answer.iter_bytes():
                *blocks, rest = (rest + piece).split(b"\n\n")
                seen.extend(block.removeprefix(b"data: ") for block in blocks if block != b": ping")
    except httpx.TransportError:
        return True
    return False


def test_whoever_waits_for_an_end_is_told_where_it_will_be(site: Site) -> None:
    with site.served() as served, ThreadPoolExecutor(2) as pool, client(served) as http:
        waiting = pool.submit(http.post, "/runs/invoke", json={"graph": "held", "input": {"log": []}, "thread_id": "t"})
        site.wait_for("hold holds")
        ((run_id,),) = site.ask_database("SELECT run_id FROM runs")
        polling = pool.submit(http.get, f"/runs/{run_id}/events?after=50&wait_seconds=30")
        assert polling.result().status_code == 409
        wait_until(lambda: "node" in events(page(http, run_id)), "the first node is in the log")
        polling = pool.submit(http.get, f"/runs/{run_id}/events?after={len(page(http, run_id))}&wait_seconds=30")
        began = time.monotonic()
        assert served.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 15, "it waited for a client"
        answer = waiting.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
    assert answer.headers["location"] == f"/runs/{run_id}/stream"
    assert "retry-after" in answer.headers


def page(http: httpx.Client, run_id: str) -> list[Frame]:
    found: list[Frame] = http.get(f"/runs/{run_id}/events").json()["events"]
    return found


def test_a_second_signal_ends_it_at_once(site: Site) -> None:
    with site.served(LONG_GRACE) as served:
        run_id = start(served, "stubborn")
        site.wait_for("hold holds")
        served.send(signal.SIGTERM)
        wait_until(lambda: "503" in ready(served.port), "it is not ready any more")
        assert served.end(signal.SIGTERM) == 128 + signal.SIGTERM
    site.open_gate()
    with site.served() as served:
        frames = read(served, run_id)
    assert restarts(frames) == [(2, "crash")]
    assert events(frames)[-1] == "complete"


def test_readers_are_told_that_what_was_held_in_memory_is_gone(site: Site) -> None:
    with site.served(IN_MEMORY) as served, ThreadPoolExecutor(2) as pool:
        run_id = start(served, "held")
        site.wait_for("hold holds")
        readings = [pool.submit(read, served, run_id), pool.submit(wait_in_line, served)]
        wait_until(lambda: open_streams(served.port, 2), "readers are there")
        assert served.end(signal.SIGTERM) == 0
        frames, waited = [reading.result() for reading in readings]
    assert (events(frames)[-1], nodes(frames)) == ("error", ["one"])
    assert events(waited) == ["start", "error"]
    assert [(end["code"], end["retryable"]) for end in (frames[-1], waited[-1])] == [("server_shutdown", True)] * 2


def test_a_run_in_memory_that_ends_within_the_grace_tells_its_end(site: Site) -> None:
    with site.served({**LONG_GRACE, **IN_MEMORY}) as served, ThreadPoolExecutor(1) as pool:
        run_id = start(served, "holds_last")
        site.wait_for("hold holds")
        reading = pool.submit(read, served, run_id)
        wait_until(lambda: open_streams(served.port), "a reader is there")
        served.send(signal.SIGTERM)
        wait_until(lambda: "503" in ready(served.port), "it is not ready any more")
        site.open_gate()
        assert served.reap() == 0
        frames = reading.result()
    assert nodes(frames) == ["one", "hold"]
    assert events(frames)[-1] == "complete"


def wait_in_line(served: Served) -> list[Frame]:
    body = {"graph": "held", "thread_id": "t", "input": {"log": []}, "multitask_strategy": "enqueue"}
    with client(served) as http:
        return frames_of(http.post("/runs/stream", json=body).text)


def open_streams(port: int, count: int = 1) -> bool:
    return f"runstream_open_streams {count}.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def ready(port: int) -> str:
    return str(httpx.get(f"http://127.0.0.1:{port}/ready").status_code)
