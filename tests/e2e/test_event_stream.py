"""The decoder that judges the server, itself judged by the examples of WHATWG HTML, section 9.2.6."""

import pytest

from tests.e2e.event_stream import EventStreamDecoder

EXAMPLES = {
    "two lines of data": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("YHOO\n+2\n10", "")]),
    "a comment, an id, and an id that is taken back": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [("first event", "1"), ("second event", "")],
    ),
    "no data, empty data, and data without an end": (b"data\n\ndata\ndata\n\ndata:", [("", ""), ("\n", "")]),
    "one space after the colon is not data": (b"data:test\n\ndata: test\n\n", [("test", ""), ("test", "")]),
    "every kind of line end": (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("a", ""), ("b", ""), ("c", "")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("a", "")]),
    "no other separator ends a line": ("data: a\u2028b\u0085c\n\n".encode(), [("a\u2028b\u0085c", "")]),
}


@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_event_stream_is_understood_as_the_specification_says(name: str, size: int) -> None:
    stream, expected = EXAMPLES[name]
    decoder = EventStreamDecoder()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    messages = [message for piece in pieces for message in decoder.feed(piece)]

    assert [(message.data, message.last_event_id) for message in messages] == expected


def test_names_and_times_to_wait_are_taken_and_nonsense_is_left_alone() -> None:
    decoder = EventStreamDecoder()
    (message,) = decoder.feed(b"retry: 250\nretry: soon\nevent: add\nnonsense: 1\nid: a\0b\ndata: x\n\n")

    assert (message.type, decoder.retry, message.last_event_id) == ("add", 250, "")
