"""httpx: line by line, and with a decoder written from the specification of event streams."""

import json

import httpx
import pytest

from tests.e2e.event_stream import EventStreamDecoder, Message
from tests.e2e.proof import ODD_TEXT, PACED_TEXT, assert_whole, runs_of
from tests.e2e.proxy import Cut, CuttingProxy
from tests.server import RunningServer, events, refuse_constant, spoken

EVENT_STREAM = {"Accept": "text/event-stream"}


def messages_of(response: httpx.Response, decoder: EventStreamDecoder, size: int | None = None) -> list[Message]:
    return [message for piece in response.iter_bytes(size) for message in decoder.feed(piece)]


@pytest.mark.parametrize("headers", [{}, EVENT_STREAM], ids=["plain", "event stream"])
def test_iter_lines_gives_each_frame_in_one_line_whatever_separators_the_tokens_hold(
    server: RunningServer, headers: dict[str, str]
) -> None:
    with (
        server.client(headers=headers) as client,
        client.stream("POST", "/runs/stream", json={"graph": "talk", "message": "hi"}) as response,
    ):
        lines = list(response.iter_lines())

    texts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert all(line == "" or line.startswith(("data: ", "id: ", "retry: ")) for line in lines)
    frames = assert_whole(server, texts)
    assert list(spoken(frames).values()) == [ODD_TEXT]


@pytest.mark.parametrize("size", [1, 7, None], ids=["byte by byte", "by sevens", "as it comes"])
def test_a_decoder_by_the_specification_sees_every_frame_with_its_id(server: RunningServer, size: int | None) -> None:
    decoder = EventStreamDecoder()
    with (
        server.client(headers=EVENT_STREAM) as client,
        client.stream("POST", "/runs/stream", json={"graph": "talk", "message": "hi"}) as response,
    ):
        messages = messages_of(response, decoder, size)

    frames = assert_whole(server, [message.data for message in messages])
    assert {message.type for message in messages} == {"message"}
    run_id = frames[0]["run_id"]
    assert [message.last_event_id for message in messages] == [f"{run_id}.{frame['seq']}" for frame in frames]
    assert (decoder.retry, decoder.comments) == (1000, [])


def test_heartbeats_are_comments_that_make_no_message(beating_server: RunningServer) -> None:
    decoder = EventStreamDecoder()
    with (
        beating_server.client(headers=EVENT_STREAM) as client,
        client.stream("POST", "/runs/stream", json={"graph": "slow_sync", "input": {}}) as response,
    ):
        messages = messages_of(response, decoder)

    assert events(assert_whole(beating_server, [message.data for message in messages])) == ["start", "node", "complete"]
    assert set(decoder.comments) == {" ping"}


def test_heartbeats_keep_a_client_whose_timeout_is_shorter_than_the_silence(
    beating_server: RunningServer,
) -> None:
    """The server beats more often than this client waits; the graph is silent for longer than that."""
    with (
        httpx.Client(base_url=beating_server.url, timeout=1.0) as client,
        client.stream("POST", "/runs/stream", json={"graph": "slow_sync", "input": {}}) as response,
    ):
        lines = list(response.iter_lines())

    assert json.loads(lines[-2].removeprefix("data: "), parse_constant=refuse_constant)["event"] == "complete"


@pytest.mark.parametrize(
    ("graph", "cut"),
    [
        ("talk", Cut(frames=5)),
        ("talk", Cut(frames=5, torn_bytes=9)),
        ("paced", Cut(frames=5, torn_bytes=60, how="reset")),
    ],
    ids=["between two frames", "in a frame", "in a frame, while the run goes on"],
)
def test_a_post_that_is_cut_off_goes_on_when_it_is_repeated_with_the_last_id(
    server: RunningServer, graph: str, cut: Cut
) -> None:
    thread_id = f"httpx-{cut.torn_bytes}"
    body = {"graph": graph, "message": "hi", "thread_id": thread_id}
    seen: list[Message] = []
    with CuttingProxy(server.port, [cut]) as proxy, httpx.Client(base_url=proxy.url, timeout=30) as client:
        with (
            client.stream("POST", "/runs/stream", json=body, headers=EVENT_STREAM) as response,
            pytest.raises(httpx.TransportError),
        ):
            take(response, seen)
        headers = EVENT_STREAM | {"Last-Event-ID": seen[-1].last_event_id}
        with client.stream("POST", "/runs/stream", json=body, headers=headers) as response:
            take(response, seen)

    frames = assert_whole(server, [message.data for message in seen])
    assert list(spoken(frames).values()) == [PACED_TEXT if graph == "paced" else ODD_TEXT]
    assert len(runs_of(server, thread_id)) == 1


def take(response: httpx.Response, seen: list[Message]) -> None:
    decoder = EventStreamDecoder()
    for piece in response.iter_bytes():
        seen.extend(decoder.feed(piece))
