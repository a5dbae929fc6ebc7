"""A run's frames over real sockets, byte by byte (wire contract, section 3), and readers that are slow."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.raw_client import (
    DIALECTS,
    EVENTSOURCE,
    PLAIN,
    RawExchange,
    data_of,
    ended_run,
    frames_of,
    get,
    id_of,
    new_gate,
    open_streams,
    post,
    run_count,
    run_id_of,
    uncut,
)
from tests.server import RunningServer, problem_of, running, wait_until

# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", "/runs/stream", {"graph": "talk", "message": "hi"}, PLAIN),
        ("POST", "/runs/stream", {"graph": "talk", "message": "hi"}, EVENTSOURCE),
        ("GET", "/runs/stream?graph=talk&message=hi", None, EVENTSOURCE),
    ],
)
def test_a_stream_has_the_contracts_headers_and_ends_with_the_closing_chunk(
    server: RunningServer, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    with RawExchange(server.port, method, path, json_body=body, headers=headers) as exchange:
        exchange.read_all()
    start = data_of(frames_of(exchange.body)[0])
    assert exchange.status == 200
    assert exchange.headers["content-type"] == "text/event-stream"
    assert exchange.headers["cache-control"] == "no-cache, no-transform"
    assert exchange.headers["x-accel-buffering"] == "no"
    assert exchange.headers["location"] == f"/runs/{start['run_id']}/stream"
    assert exchange.headers["content-location"] == f"/threads/{start['thread_id']}/runs/{start['run_id']}"
    assert "content-length" not in exchange.headers
    assert exchange.is_ended


def test_a_plain_stream_is_data_lines_and_blank_lines_and_nothing_else(server: RunningServer) -> None:
    with post(server, {"graph": "talk", "message": "hi"}) as exchange:
        body = exchange.read_all().body
    assert re.fullmatch(rb"(data: \{[^\r\n]+\}\n\n)+", body)
    assert [data_of(frame)["seq"] for frame in frames_of(body)] == list(range(1, len(frames_of(body)) + 1))


def test_an_event_source_gets_data_then_id_and_retry_on_the_start_frame_only(server: RunningServer) -> None:
    with post(server, {"graph": "talk", "message": "hi"}, EVENTSOURCE) as exchange:
        body = exchange.read_all().body
    run_id = run_id_of(exchange)
    frames = frames_of(body)
    first = rb'data: \{"event":"start"[^\r\n]+\}\nid: %b\.1\nretry: 1000\n\n' % run_id.encode()
    other = rb"data: \{[^\r\n]+\}\nid: %b\.[0-9]+\n\n" % run_id.encode()
    assert re.fullmatch(first + rb"(" + other + rb")+", body)
    assert [id_of(frame) for frame in frames] == [f"{run_id}.{data_of(frame)['seq']}" for frame in frames]
    assert [data_of(frame)["seq"] for frame in frames] == list(range(1, len(frames) + 1))


@pytest.mark.parametrize("headers", DIALECTS.values(), ids=DIALECTS)
def test_line_separators_of_other_alphabets_are_escaped_on_the_wire(
    server: RunningServer, headers: dict[str, str]
) -> None:
    with post(server, {"graph": "talk", "message": "hi"}, headers) as exchange:
        body = exchange.read_all().body
    lines = body.decode().splitlines()
    assert lines == body.decode().split("\n")[:-1]
    assert "\\u2028" in body.decode()


@pytest.mark.parametrize("headers", DIALECTS.values(), ids=DIALECTS)
def test_every_chunk_holds_whole_frames(server: RunningServer, headers: dict[str, str]) -> None:
    with post(server, {"graph": "flood", "input": {"gate": "none", "count": 300}}, headers) as exchange:
        chunks = exchange.read_all().chunks
    assert len(chunks) > 1
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert [data_of(frame)["seq"] for frame in frames_of(exchange.body)] == list(range(1, 300 + 4))


def test_both_dialects_and_the_pull_model_tell_the_same_json(server: RunningServer) -> None:
    run_id = ended_run(server, graph="talk", message="hi")
    plain = [frame[len(b"data: ") : -2] for frame in frames_of(uncut(server, run_id, PLAIN))]
    full = [frame[len(b"data: ") :].split(b"\n")[0] for frame in frames_of(uncut(server, run_id, EVENTSOURCE))]
    with get(server, f"/runs/{run_id}/events") as exchange:
        pulled = exchange.read_all().body
    assert plain == full
    assert pulled == b'{"events":[%b],"next_after":%d,"closed":true}' % (b",".join(plain), len(plain))


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/runs/stream", PLAIN),
        ("POST", "/runs/stream", EVENTSOURCE),
        ("GET", "/runs/stream?graph=blocks&message={gate}", EVENTSOURCE),
    ],
)
def test_headers_and_the_start_frame_arrive_before_the_graph_has_done_anything(
    server: RunningServer, method: str, path: str, headers: dict[str, str]
) -> None:
    gate, mark = new_gate(server), len(server.trace())
    body = {"graph": "blocks", "input": {"gate": gate}} if method == "POST" else None
    with RawExchange(server.port, method, path.format(gate=gate), json_body=body, headers=headers) as exchange:
        # the node holds the whole process up until it is released
        exchange.read_frames(1)
        assert data_of(frames_of(exchange.body)[0])["event"] == "start"
        assert server.trace()[mark:] == []
        server.open_gate(gate, 1)
        exchange.read_all()
    assert server.trace()[mark:] == ["released"]
    assert data_of(frames_of(exchange.body)[-1])["event"] == "complete"


# -- heartbeats -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Heartbeats every half second."""
    with running(tmp_path_factory.mktemp("quick") / "data", env={"RUNSTREAM_HEARTBEAT_SECONDS": "0.5"}) as server:
        yield server


@pytest.mark.parametrize(("headers", "ping"), [(PLAIN, b": ping\n\n"), (EVENTSOURCE, b": ping\n")], ids=list(DIALECTS))
def test_in_silence_heartbeats_come_between_frames_in_the_dialects_own_form(
    quick_server: RunningServer, headers: dict[str, str], ping: bytes
) -> None:
    gate = new_gate(quick_server)
    with post(quick_server, {"graph": "gated", "input": {"gate": gate, "count": 2}}, headers) as exchange:
        exchange.read_until(lambda body: body.count(b": ping") >= 2)
        quick_server.open_gate(gate, 1)
        exchange.read_until(lambda body: body.count(b": ping") >= 3)
        quick_server.open_gate(gate, 2)
        exchange.read_all()
    frames = frames_of(uncut(quick_server, run_id_of(exchange), headers))
    start, first, *rest = frames
    pings = exchange.body.count(b": ping")
    before = exchange.body.index(first) - len(start)
    assert exchange.body[: len(start)] == start
    assert exchange.body[len(start) :].startswith(ping * 2)
    assert before == len(ping) * (before // len(ping))
    assert exchange.body == start + ping * (before // len(ping)) + first + ping * (
        pings - before // len(ping)
    ) + b"".join(rest)


def test_there_are_no_heartbeats_while_a_model_speaks(quick_server: RunningServer) -> None:
    with post(quick_server, {"graph": "slow_talk", "message": "hi"}) as exchange:
        # a word each tenth of a second: clocked heartbeats would be four by then
        exchange.read_frames(21)
        exchange.cut("RST")
    assert exchange.body.count(b": ping") <= 1
    with quick_server.client() as client:
        client.post(f"/runs/{run_id_of(exchange)}/cancel", params={"wait": True})


def test_events_that_a_reader_left_out_are_silence_to_it(quick_server: RunningServer) -> None:
    with post(quick_server, {"graph": "slow_custom", "input": {}}) as first:
        run_id = run_id_of(first.read_frames(2))
        with get(quick_server, f"/runs/{run_id}/stream?stream_mode=updates") as second:
            second.read_until(lambda body: body.count(b": ping\n\n") >= 2)
        assert second.body.count(b"data: ") == 1
        with quick_server.client() as client:
            client.post(f"/runs/{run_id}/cancel", params={"wait": True})


# -- GET /runs/stream -------------------------------------------------------------------------------------------------


def test_a_get_starts_a_run_with_the_fields_that_fit_a_query(server: RunningServer, client: httpx.Client) -> None:
    thread_id, run_id = f"t-{uuid.uuid4()}", str(uuid.uuid4())
    query = (
        f"graph=below&message=hi&thread_id={thread_id}&run_id={run_id}&stream_mode=messages,custom&stream_mode=tasks"
        "&subgraphs=true&on_disconnect=continue&utm_source=unknown"
    )
    with get(server, f"/runs/stream?{query}", EVENTSOURCE) as exchange:
        frames = [data_of(frame) for frame in frames_of(exchange.read_all().body)]
    row = client.get(f"/runs/{run_id}").json()
    assert (row["thread_id"], row["graph"], row["status"]) == (thread_id, "below", "success")
    assert {frame["event"] for frame in frames} == {"start", "node_start", "token", "complete"}
    assert any("ns" in frame for frame in frames)
    with get(server, "/runs/stream?graph=agent&message=hi&use_hitl=true", EVENTSOURCE) as exchange:
        paused = data_of(frames_of(exchange.read_all().body)[-1])
    assert (paused["event"], paused["next"]) == ("interrupt", ["tools"])


def test_a_get_starts_a_run_only_for_a_client_that_accepts_event_streams(
    server: RunningServer, client: httpx.Client
) -> None:
    runs = run_count(server)
    problem_of(client.get("/runs/stream?graph=steps", headers={"Accept": "*/*"}), 406, "not_acceptable")
    assert run_count(server) == runs


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_get_from_another_sites_page_starts_nothing(server: RunningServer, client: httpx.Client, origin: str) -> None:
    runs = run_count(server)
    headers = {**EVENTSOURCE, "Origin": origin}
    problem_of(client.get("/runs/stream?graph=talk&message=hi", headers=headers), 403, "origin_not_allowed")
    assert run_count(server) == runs


def test_a_get_from_our_own_page_starts_a_run(server: RunningServer) -> None:
    with get(server, "/runs/stream?graph=talk&message=hi", {**EVENTSOURCE, "Origin": server.url}) as exchange:
        assert exchange.read_all().status == 200


# -- slow readers -----------------------------------------------------------------------------------------------------


def resident_bytes(server: RunningServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def test_stuck_readers_hold_up_neither_the_run_nor_others_and_cost_only_a_window_of_memory(
    server: RunningServer, client: httpx.Client
) -> None:
    count = 2000  # 20 MB
    warm = ended_run(server, graph="flood", input={"gate": "none", "count": count})
    uncut(server, warm, PLAIN)
    before = resident_bytes(server)
    body = {"graph": "flood", "input": {"gate": "none", "count": count}}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body, receive_buffer_bytes=4096) as first:
        run_id = run_id_of(first.read_head())
        path = f"/runs/{run_id}/stream"
        stuck = [first] + [
            RawExchange(server.port, "GET", path, receive_buffer_bytes=4096).read_head() for _ in range(19)
        ]
        with get(server, path) as quick:
            everything = quick.read_all().body
        assert client.get(f"/runs/{run_id}").json()["status"] == "success"
        assert everything.count(b"\n\n") == count + 3
        grown = resident_bytes(server) - before
        # twenty readers that were buffered for would cost 400 MB
        assert grown < 120_000_000, f"twenty stuck readers of {len(everything)} bytes cost {grown} bytes"
        # the stuck ones have lost nothing
        assert stuck[1].read_all().body == everything
        assert first.read_all().body == everything
        for reader in stuck:
            reader.cut("RST")
    wait_until(lambda: open_streams(client) == 0, "it is noticed that the stuck readers have left")


# -- the process stops ------------------------------------------------------------------------------------------------


def test_a_process_that_is_told_to_stop_breaks_streams_off_without_the_closing_chunk(tmp_path: Path) -> None:
    with running(tmp_path / "data", env={"RUNSTREAM_SHUTDOWN_GRACE_SECONDS": "0.2"}) as server:
        plain = post(server, {"graph": "slow", "input": {}}).read_frames(2)
        run_id = run_id_of(plain)
        full = get(server, f"/runs/{run_id}/stream", EVENTSOURCE).read_frames(2)
        waiting = RawExchange(server.port, "POST", "/runs/invoke", json_body={"graph": "slow", "input": {}})
        wait_until(lambda: server.trace().count("tick") > 2, "both runs are at work")
        poll = get(server, f"/runs/{run_id}/events?after=2&wait_seconds=30")
        idle = server.client()
        assert idle.get("/health").status_code == 200
        server.process.terminate()
        for exchange in (plain, full):
            exchange.read_all()
            assert exchange.is_dropped
            assert not exchange.is_ended
            assert len(frames_of(exchange.body)) == 2
        waiting.read_all()
        assert waiting.status == 503
        assert waiting.headers["content-type"] == "application/problem+json"
        assert waiting.headers["retry-after"]
        assert b'"code":"shutting_down"' in waiting.body
        poll.read_all()
        assert (poll.status, poll.body) == (200, b'{"events":[],"next_after":2,"closed":false}')
        assert server.ended(seconds=15) == 0
        for exchange in (plain, full, waiting, poll):
            exchange.cut("FIN")
        idle.close()
        assert "Traceback" not in server.log
