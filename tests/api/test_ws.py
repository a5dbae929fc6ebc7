"""/ws over real sockets (wire contract, section 7)."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from app.api.ws import MAX_RUBBISH, MAX_SUBSCRIPTIONS
from tests.server import ROOT, RunningServer, frames_of, run, running, spoken, wait_until

SECONDS = 20.0
ALLOWED_ORIGIN = "https://shop.example"
ENDS = ("complete", "interrupt", "cancelled", "error")
TALK = {"graph": "talk", "message": "hi"}

Message = dict[str, Any]


class Client:
    """One end of a socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, kind: str, **payload: Any) -> None:
        self.send(json.dumps({"type": kind, "payload": payload}))

    def send(self, message: str | bytes) -> None:
        self.connection.send(message)

    def hear(self) -> Message:
        message: Message = json.loads(self.hear_text())
        return message

    def hear_text(self) -> str:
        text = self.connection.recv(timeout=SECONDS)
        assert isinstance(text, str)
        return text

    def hear_to(self, event: str) -> list[Message]:
        """What comes, as far as a frame of this kind."""
        heard = [self.hear()]
        while heard[-1]["payload"].get("event") != event:
            assert heard[-1]["payload"].get("event") not in ENDS, heard[-1]
            heard.append(self.hear())
        return heard

    def hear_to_pong(self) -> list[Message]:
        """What comes before the answer to a ping that is sent now."""
        self.say("ping")
        heard = [self.hear()]
        while heard[-1]["type"] != "pong":
            heard.append(self.hear())
        return heard[:-1]

    def start(self, **body: Any) -> str:
        """Start a run; its id."""
        self.say("start_run", **body)
        ack = self.hear()
        assert ack["type"] == "ack", ack
        run_id: str = ack["executionId"]
        return run_id

    def close_code(self) -> int | None:
        """Read on until the server has closed the socket."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.hear()
        return self.connection.close_code


@contextlib.contextmanager
def opened(server: RunningServer, **options: Any) -> Iterator[Client]:
    with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None, **options) as connection:
        yield Client(connection)


@pytest.fixture
def ws(server: RunningServer) -> Iterator[Client]:
    with opened(server) as client:
        yield client


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A run at which nobody looks is cancelled at once; pages of one other origin may call."""
    env = {"RUNSTREAM_DISCONNECT_GRACE_SECONDS": "0", "RUNSTREAM_CORS_ORIGINS": ALLOWED_ORIGIN}
    with running(tmp_path_factory.mktemp("strict") / "data", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def strict_client(strict_server: RunningServer) -> Iterator[httpx.Client]:
    with strict_server.client() as client:
        yield client


def new_gate() -> str:
    return f"g{uuid.uuid4().hex}"


def gated(gate: str, **more: Any) -> dict[str, Any]:
    return {"graph": "gated", "input": {"gate": gate}, **more}


def seqs(heard: Sequence[Message]) -> list[int]:
    return [message["payload"]["seq"] for message in heard]


def frames(heard: Sequence[Message]) -> list[Any]:
    return [message["payload"] for message in heard]


def kinds(heard: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message["type"], message["payload"]["event"]) for message in heard]


def log_texts(client: httpx.Client, run_id: str) -> list[str]:
    """The frames of a run as SSE has them, each as its text."""
    blocks = client.get(f"/runs/{run_id}/stream").text.split("\n\n")
    return [block.removeprefix("data: ") for block in blocks if block and block != ": ping"]


def row(client: httpx.Client, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/runs/{run_id}").json()
    return found


def wait_for_status(client: httpx.Client, run_id: str, status: str) -> None:
    wait_until(lambda: row(client, run_id)["status"] == status, f"the run is {status}")


# -- one log ----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_started_is_acknowledged_and_then_streamed_to_its_end(ws: Client) -> None:
    ws.say("start_run", **TALK)
    ack, *heard = ws.hear_to("complete")
    start = heard[0]["payload"]
    assert ack["type"] == "ack"
    assert ack["payload"] == {"executionId": start["run_id"], "threadId": start["thread_id"]}
    assert {message["executionId"] for message in [ack, *heard]} == {start["run_id"]}
    assert kinds(heard) == [
        ("status", "start"),
        *[("token", "token")] * 10,
        ("event", "node"),
        ("status", "complete"),
    ]
    assert seqs(heard) == list(range(1, 14))


def test_a_frame_is_the_same_text_as_over_http(ws: Client, client: httpx.Client) -> None:
    run_id = ws.start(**TALK)
    heard = [ws.hear_text()]
    while '"event":"complete"' not in heard[-1]:
        heard.append(ws.hear_text())
    texts = log_texts(client, run_id)
    assert len(heard) == len(texts)
    for message, text in zip(heard, texts, strict=True):
        kind = json.loads(message)["type"]
        assert message == f'{{"type":"{kind}","executionId":"{run_id}","payload":{text}}}'


def test_many_runs_share_a_socket_and_each_comes_whole_and_in_order(ws: Client, server: RunningServer) -> None:
    gates = {str(uuid.uuid4()): new_gate() for _ in range(3)}
    for run_id, gate in gates.items():
        ws.say("start_run", **gated(gate, run_id=run_id))
    heard: list[Message] = []
    for level in range(1, 7):
        for gate in gates.values():
            server.open_gate(gate, level)
            # this run's next piece comes before the next gate is opened: the runs interleave
            while not heard or heard[-1]["payload"].get("data", {}).get("piece") != level - 1:
                heard.append(ws.hear())
    while sum(message["payload"].get("event") == "complete" for message in heard) < len(gates):
        heard.append(ws.hear())
    for run_id in gates:
        own = [message for message in heard if message["executionId"] == run_id]
        assert own[0]["type"] == "ack"
        assert seqs(own[1:]) == list(range(1, 10))


def test_a_subscription_gets_what_comes_after_its_seq_and_then_what_is_new(
    ws: Client, server: RunningServer, client: httpx.Client
) -> None:
    gate = new_gate()
    with opened(server) as other:
        run_id = other.start(**gated(gate))
        server.open_gate(gate, 3)
        wait_until(lambda: row(client, run_id)["last_seq"] == 4, "three pieces are in the log")
        ws.say("subscribe_execution", executionId=run_id, after=2)
        assert seqs([ws.hear(), ws.hear()]) == [3, 4]
        server.open_gate(gate, 6)
        assert seqs(ws.hear_to("complete")) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("after", [0, 1, 7, 12])
def test_a_run_that_is_over_is_replayed_from_any_place(ws: Client, client: httpx.Client, after: int) -> None:
    whole = run(client, **TALK)
    ws.say("subscribe_execution", executionId=whole[0]["run_id"], after=after)
    assert frames(ws.hear_to("complete")) == whole[after:]


def test_a_subscription_that_has_everything_already_says_nothing(ws: Client, client: httpx.Client) -> None:
    whole = run(client, **TALK)
    ws.say("subscribe_execution", executionId=whole[0]["run_id"], after=len(whole))
    assert ws.hear_to_pong() == []


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        (["token"], ["token"] * 10),
        (["event"], ["node"]),
        (["status"], ["start", "complete"]),
        (["event", "status"], ["start", "node", "complete"]),
        (["progress"], []),
        ([], []),
    ],
)
def test_a_subscription_is_about_what_it_names(
    ws: Client, client: httpx.Client, topics: list[str], expected: list[str]
) -> None:
    run_id = run(client, **TALK)[0]["run_id"]
    ws.say("subscribe_execution", executionId=run_id, events=topics)
    # a second one to another run tells when the first has had its say
    ws.say("subscribe_execution", executionId=run(client, graph="steps", input={})[0]["run_id"], events=["status"])
    heard: list[Message] = []
    while sum(message["executionId"] != run_id for message in heard) < 2 or len(heard) < 2 + len(expected):
        heard.append(ws.hear())
    own = [message for message in [*heard, *ws.hear_to_pong()] if message["executionId"] == run_id]
    assert [message["payload"]["event"] for message in own] == expected
    assert {message["type"] for message in own} <= set(topics)


def test_the_progress_of_a_run_has_a_type_of_its_own(ws: Client) -> None:
    ws.start(graph="reports", input={})
    heard = ws.hear_to("complete")
    assert "progress" in {kind for kind, _ in kinds(heard)}
    assert {event for kind, event in kinds(heard) if kind == "progress"} == {"progress"}


def test_tokens_are_joined_as_the_run_was_asked_to(ws: Client) -> None:
    ws.start(**TALK, tokens={"flush": {"count": 4}})
    tokens = [frame for frame in frames(ws.hear_to("complete")) if frame["event"] == "token"]
    assert [frame["seq"] for frame in tokens] == [5, 9, 11]
    assert [frame["data"]["content"] for frame in tokens] == ["Hello, wide ", "world\u2028\u0085“ü”", "\nend."]


def test_tokens_that_are_held_back_for_a_time_come_without_a_further_event(ws: Client, server: RunningServer) -> None:
    gate = new_gate()
    ws.start(graph="halts", input={"gate": gate, "count": 6}, tokens={"flush": {"ms": 20}})
    server.open_gate(gate, 2)
    # nothing else happens before the test opens the gate further
    heard = [ws.hear()]
    while "".join(spoken(frames(heard)).values()) != "w0 w1 ":
        heard.append(ws.hear())
    server.open_gate(gate, 6)
    assert "".join(spoken(frames([*heard, *ws.hear_to("complete")])).values()) == "w0 w1 w2 w3 w4 w5 "


# -- starting and stopping --------------------------------------------------------------------------------------------


def test_the_same_start_again_executes_nothing_over_http_too(
    ws: Client, server: RunningServer, client: httpx.Client
) -> None:
    mark = len(server.trace())
    body = {"graph": "steps", "input": {}, "run_id": str(uuid.uuid4())}
    ws.start(**body)
    first = ws.hear_to("complete")
    assert ws.start(**body) == body["run_id"]
    assert ws.hear_to("complete") == first
    assert frames_of(client.post("/runs/stream", json=body).text) == frames(first)
    assert server.trace()[mark:] == ["one", "two", "three"]


def test_an_answer_to_an_interrupt_goes_over_the_same_socket(ws: Client) -> None:
    ws.say("start_run", graph="ask", input={})
    ack, *_, interrupt = ws.hear_to("interrupt")
    assert (interrupt["type"], interrupt["payload"]["interrupts"][0]["value"]) == ("status", {"question": "May I?"})
    ws.start(thread_id=ack["payload"]["threadId"], resume="yes")
    assert [frame["event"] for frame in frames(ws.hear_to("complete"))] == ["start", "node", "node", "complete"]


def test_a_run_is_cancelled_over_the_socket(ws: Client, server: RunningServer) -> None:
    run_id = ws.start(graph="slow", input={})
    ws.hear_to("node")
    ws.say("cancel_run", executionId=run_id)
    end = ws.hear_to("cancelled")[-1]
    assert (end["type"], end["payload"]["reason"]) == ("status", "user")
    ws.say("cancel_run", executionId=run_id)
    assert ws.hear_to_pong() == []


def test_what_was_said_so_far_is_kept_when_a_cancel_over_the_socket_says_so(ws: Client, client: httpx.Client) -> None:
    run_id = ws.start(graph="slow_talk", message="hi")
    thread_id = ws.hear_to("token")[0]["payload"]["thread_id"]
    ws.say("cancel_run", executionId=run_id, keep_partial=True)
    end = ws.hear_to("cancelled")[-1]["payload"]
    message = client.get(f"/threads/{thread_id}/state").json()["values"]["messages"][-1]
    assert {message["id"]: message["content"]} == end["partial"]
    assert client.get(f"/threads/{thread_id}").json()["status"] == "idle"


def test_a_ping_is_answered_and_so_is_an_authentication(ws: Client) -> None:
    ws.say("ping")
    ws.send('{"type":"ping"}')
    ws.say("authenticate", token="anything")
    assert [ws.hear() for _ in range(3)] == [
        {"type": "pong", "payload": {}},
        {"type": "pong", "payload": {}},
        {"type": "ack", "payload": {}},
    ]


# -- subscriptions ----------------------------------------------------------------------------------------------------


def test_after_the_end_of_a_subscription_nothing_comes_of_its_run(ws: Client, server: RunningServer) -> None:
    gate = new_gate()
    run_id = ws.start(**gated(gate, on_disconnect="continue"))
    server.open_gate(gate, 2)
    assert seqs([ws.hear(), ws.hear(), ws.hear()]) == [1, 2, 3]
    ws.say("unsubscribe_execution", executionId=run_id.upper())
    assert ws.hear_to_pong() == []
    with opened(server) as other:
        other.say("subscribe_execution", executionId=run_id, events=["status"], after=3)
        server.open_gate(gate, 6)
        other.hear_to("complete")
    assert ws.hear_to_pong() == []
    ws.say("subscribe_execution", executionId=run_id, after=3)
    assert seqs(ws.hear_to("complete")) == [4, 5, 6, 7, 8, 9]


def test_a_second_subscription_to_a_run_takes_the_place_of_the_first(ws: Client, server: RunningServer) -> None:
    gate = new_gate()
    run_id = ws.start(**gated(gate))
    server.open_gate(gate, 2)
    assert seqs([ws.hear(), ws.hear(), ws.hear()]) == [1, 2, 3]
    ws.say("subscribe_execution", executionId=run_id, after=1, events=["event"])
    assert seqs([ws.hear(), ws.hear()]) == [2, 3]
    ws.say("subscribe_execution", executionId=run_id, after=99)
    assert ws.hear()["payload"]["code"] == "event_id_ahead"
    server.open_gate(gate, 6)
    assert seqs([ws.hear() for _ in range(5)]) == [4, 5, 6, 7, 8]
    assert ws.hear_to_pong() == []


def test_the_end_of_a_subscription_that_nobody_made_is_no_mistake(ws: Client) -> None:
    ws.say("unsubscribe_execution", executionId=str(uuid.uuid4()))
    assert ws.hear_to_pong() == []


def test_a_socket_follows_so_many_runs_and_starts_no_further_one(ws: Client, client: httpx.Client) -> None:
    ids = [str(uuid.uuid4()) for _ in range(MAX_SUBSCRIPTIONS)]
    one_more = str(uuid.uuid4())
    for run_id in ids:
        ws.say("start_run", graph="opening", input={}, run_id=run_id)
    heard = [ws.hear() for _ in range(2 * MAX_SUBSCRIPTIONS)]
    assert {message["executionId"] for message in heard if message["type"] == "ack"} == set(ids)
    assert {message["executionId"] for message in heard if message["type"] == "status"} == set(ids)
    ws.say("start_run", graph="steps", input={}, run_id=one_more)
    refused = ws.hear()
    assert (refused["executionId"], refused["payload"]["code"]) == (one_more, "too_many_subscriptions")
    assert client.get(f"/runs/{one_more}").status_code == 404
    ws.say("subscribe_execution", executionId=ids[0], events=["status"], after=1)
    assert ws.hear_to_pong() == []
    ws.say("cancel_run", executionId=ids[0])
    ws.hear_to("cancelled")
    ws.start(graph="steps", input={}, run_id=one_more)
    ws.hear_to("complete")
    for run_id in ids[1:]:
        ws.say("cancel_run", executionId=run_id)
    assert {ws.hear()["executionId"] for _ in ids[1:]} == set(ids[1:])


# -- errors -----------------------------------------------------------------------------------------------------------


def test_what_is_refused_is_an_error_with_its_problems_fields_and_does_not_count_as_rubbish(
    ws: Client, client: httpx.Client
) -> None:
    taken, thread_id, unknown = str(uuid.uuid4()), f"t-{uuid.uuid4()}", str(uuid.uuid4())
    whole = run(client, **TALK, run_id=taken)
    busy = ws.start(graph="slow", input={}, thread_id=thread_id)
    ws.hear_to("node")
    refusals: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("subscribe_execution", {"executionId": unknown}, {"code": "run_not_found", "executionId": unknown}),
        (
            "subscribe_execution",
            {"executionId": taken, "after": len(whole) + 1},
            {"code": "event_id_ahead", "last_seq": len(whole), "executionId": taken},
        ),
        ("cancel_run", {"executionId": unknown}, {"code": "run_not_found", "executionId": unknown}),
        (
            "start_run",
            {"graph": "steps", "thread_id": thread_id, "input": {}},
            {"code": "graph_mismatch", "graph": "slow", "threadId": thread_id},
        ),
        (
            "start_run",
            {"graph": "slow", "thread_id": thread_id, "input": {}},
            {"code": "thread_busy", "run_id": busy, "threadId": thread_id},
        ),
        ("start_run", {"graph": "nope"}, {"code": "graph_not_found"}),
        ("start_run", {"run_id": taken, "graph": "steps"}, {"code": "idempotency_conflict", "run_id": taken}),
        ("start_run", {"graph": "steps", "mesage": "hi"}, {"code": "invalid_request"}),
        ("start_run", {"graph": "steps", "assistant_id": "x"}, {"code": "not_supported"}),
        ("start_run", {"graph": "steps", "tokens": {"flush": "often"}}, {"code": "invalid_request"}),
    ]
    for kind, payload, expected in refusals:
        ws.say(kind, **payload)
        message = ws.hear()
        assert message["type"] == "error"
        assert expected.items() <= message["payload"].items(), message
        assert message.get("executionId") == message["payload"].get("executionId")
        assert message["payload"]["detail"]
    ws.say("start_run", graph="steps", mesage="hi")
    assert ws.hear()["payload"]["errors"][0]["loc"] == ["body", "mesage"]
    ws.say("cancel_run", executionId=busy)
    ws.hear_to("cancelled")


def test_a_body_that_is_nested_too_deeply_is_refused_as_over_http(ws: Client) -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    ws.say("start_run", graph="steps", input={"x": nested})
    assert ws.hear()["payload"]["code"] == "invalid_request"
    ws.say("ping")
    assert ws.hear()["type"] == "pong"


RUBBISH: list[tuple[str | bytes, str]] = [
    ("hello", "invalid_request"),
    (b'{"type":"ping"}', "invalid_request"),
    ('{"type":"pong"}', "invalid_request"),
    ('{"type":"subscribe_execution","payload":{"executionId":"r","events":["all"]}}', "invalid_request"),
    ('{"type":"start_run","payload":"%s"}' % ("x" * 1024 * 1024), "body_too_large"),
]


@pytest.mark.parametrize(("rubbish", "code"), RUBBISH, ids=["text", "bytes", "type", "payload", "size"])
def test_what_is_not_understood_is_an_error_and_the_fourth_time_the_end(
    server: RunningServer, rubbish: str | bytes, code: str
) -> None:
    with opened(server) as ws:
        for _ in range(MAX_RUBBISH):
            ws.send(rubbish)
            message = ws.hear()
            assert (message["type"], message["payload"]["code"]) == ("error", code)
            ws.say("ping")
            assert ws.hear()["type"] == "pong"
        ws.send(rubbish)
        assert ws.close_code() == 1008


def test_nothing_that_was_said_after_the_fourth_piece_of_rubbish_is_done(
    server: RunningServer, client: httpx.Client
) -> None:
    run_id = str(uuid.uuid4())
    with opened(server) as ws:
        for _ in range(MAX_RUBBISH + 1):
            ws.send("rubbish")
        with contextlib.suppress(ConnectionClosed):
            ws.say("start_run", graph="steps", input={}, run_id=run_id)
        assert ws.close_code() == 1008
    assert client.get(f"/runs/{run_id}").status_code == 404


def test_an_error_about_a_run_says_which_one_though_the_rest_is_wrong(ws: Client) -> None:
    ws.say("subscribe_execution", executionId="r", after="2")
    message = ws.hear()
    assert message["executionId"] == "r"
    assert message["payload"]["errors"] == [{"loc": ["payload", "after"], "msg": "after is the seq of a frame, or 0."}]


# -- the socket -------------------------------------------------------------------------------------------------------


def test_messages_are_compressed_for_a_client_that_can(ws: Client) -> None:
    response = ws.connection.response
    assert response is not None
    assert "permessage-deflate" in response.headers["Sec-WebSocket-Extensions"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_is_refused_before_the_handshake_is_over(
    strict_server: RunningServer, origin: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(strict_server, origin=Origin(origin)):
        pass
    response = refused.value.response
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == "origin_not_allowed"


def test_pages_of_this_server_and_of_allowed_origins_may_open_a_socket(strict_server: RunningServer) -> None:
    for origin in (f"http://127.0.0.1:{strict_server.port}", ALLOWED_ORIGIN):
        with opened(strict_server, origin=Origin(origin)) as ws:
            assert ws.hear_to_pong() == []


def test_a_run_goes_on_while_a_subscription_looks_at_it_and_ends_when_its_client_leaves(
    strict_server: RunningServer, strict_client: httpx.Client
) -> None:
    mark = len(strict_server.trace())
    with opened(strict_server) as ws:
        run_id = ws.start(graph="slow", input={})
        # an answer that takes the place of another leaves no moment in which nobody looks
        ws.say("subscribe_execution", executionId=run_id)
        wait_until(lambda: strict_server.trace()[mark:].count("tick") >= 3, "the node is at work")
        assert row(strict_client, run_id)["status"] == "running"
    wait_for_status(strict_client, run_id, "cancelled")
    assert frames_of(strict_client.get(f"/runs/{run_id}/stream").text)[-1]["reason"] == "disconnect"


def test_the_end_of_the_last_subscription_is_a_reader_that_leaves(
    strict_server: RunningServer, strict_client: httpx.Client
) -> None:
    with opened(strict_server) as ws:
        run_id = ws.start(graph="slow", input={})
        ws.hear_to("node")
        ws.say("unsubscribe_execution", executionId=run_id)
        wait_for_status(strict_client, run_id, "cancelled")
        assert ws.hear_to_pong() == []


def test_a_client_that_drops_leaves_no_stream_behind(server: RunningServer, client: httpx.Client) -> None:
    def open_streams() -> float:
        lines = client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("runstream_open_streams "))

    before = open_streams()
    with opened(server) as ws:
        run_id = ws.start(graph="slow_talk", message="hi")
        ws.hear_to("token")
        assert open_streams() == before + 1
        ws.connection.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: open_streams() == before, "the stream is closed")
    client.post(f"/runs/{run_id}/cancel")
    assert "Traceback" not in server.log


def test_a_client_that_breaks_the_protocol_in_mid_stream_is_left_without_an_error_in_the_log(
    server: RunningServer, client: httpx.Client
) -> None:
    for _ in range(5):
        with opened(server) as ws:
            run_id = ws.start(graph="burst", message="3000", on_disconnect="continue")
            ws.hear_to("token")
            ws.connection.socket.sendall(b"\x83\x80\x00\x00\x00\x00")  # an opcode that is reserved
            assert ws.close_code() == 1002
        wait_for_status(client, run_id, "success")
    assert "Traceback" not in server.log


def test_a_process_that_stops_says_so_to_its_sockets(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, opened(server) as idle, opened(server) as busy:
        busy.start(graph="steps", input={})
        busy.hear_to("complete")
        assert idle.hear_to_pong() == []
        assert server.stop() == 0
        assert (idle.close_code(), busy.close_code()) == (1012, 1012)
        assert "Traceback" not in server.log


def test_a_slow_socket_holds_nobody_up_and_gets_its_backlog_joined(server: RunningServer) -> None:
    gate, count = new_gate(), 30_000
    text = "".join(f"w{index} " for index in range(count))
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", server.port))
    with opened(server, sock=narrow, compression=None, max_queue=1) as slow, opened(server) as fast:
        run_id = slow.start(graph="recites", input={"gate": gate, "count": count})
        fast.say("subscribe_execution", executionId=run_id)
        read = read_talk(fast)
        assert "".join(spoken(read).values()) == text
        joined = read_talk(slow)
        assert "".join(spoken(joined).values()) == text
        assert len(joined) < count - 5_000
        assert [frame["seq"] for frame in joined] == sorted({frame["seq"] for frame in joined})
        server.open_gate(gate, 1)
        assert frames(slow.hear_to("complete")) == frames(fast.hear_to("complete"))


def read_talk(client: Client) -> list[Any]:
    """The frames as far as the last token of a message."""
    found = [client.hear()["payload"]]
    while not found[-1].get("data", {}).get("last"):
        found.append(client.hear()["payload"])
    return found


# -- the documents ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The graphs that come with the server."""
    with running(tmp_path_factory.mktemp("example") / "data", config=ROOT / "langgraph.json") as server:
        yield server


def example(language: str) -> str:
    document = (ROOT / "docs" / "websocket.md").read_text()
    found: str = document.split(f"```{language}\n")[1].split("```")[0]
    return found


def test_the_python_example_of_the_document_runs(example_server: RunningServer) -> None:
    code = example("python")
    assert "127.0.0.1:8000" in code
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{example_server.port}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    with example_server.client() as client:
        runs = client.get("/runs").json()["runs"]
        for found in runs:
            text = "".join(spoken(frames_of(client.get(f"/runs/{found['run_id']}/stream").text)).values())
            assert text in done.stdout
    assert [found["status"] for found in runs] == ["success", "success"]


# what a browser has and this Node has not, and a page of the server's own
BROWSER = """
const said = [];
globalThis.location = {origin: process.argv[1]};
globalThis.document = {body: {append: text => said.push(text)}};
globalThis.crypto ??= require("node:crypto").webcrypto;
const end = setInterval(() => {
  if (!runs.size) { console.log(said.join("")); process.exit(0); }
}, 20);
setTimeout(() => process.exit(3), 20000);
"""


def test_the_browser_example_of_the_document_runs_in_node(example_server: RunningServer) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed.")
    command = [node, "--experimental-websocket", "-e", BROWSER + example("js"), example_server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with example_server.client() as client:
        newest = client.get("/runs").json()["runs"][0]
        assert newest["status"] == "success"
        text = "".join(spoken(frames_of(client.get(f"/runs/{newest['run_id']}/stream").text)).values())
    assert done.stdout == f"{text}\n"
