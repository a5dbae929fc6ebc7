"""A decoder of event streams as WHATWG HTML, section 9.2.6 "Interpreting an event stream" describes it.

Written from the specification, not from the server: it knows nothing of Runstream.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What `onmessage` would be given."""

    type: str
    data: str
    last_event_id: str


class EventStreamDecoder:
    """Takes bytes in pieces of any size and gives messages. `retry` is the reconnection time in milliseconds."""

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._after_cr = False
        self._clear()

    def _clear(self) -> None:
        self._data: list[str] = []
        self._type = ""

    def feed(self, piece: bytes) -> Iterator[Message]:
        for character in self._text.decode(piece):
            if character == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = character == "\r"
            if character not in "\r\n":
                self._line += character
                continue
            line, self._line = self._line, ""
            yield from self._take(line)

    def _take(self, line: str) -> Iterator[Message]:
        if line == "":
            yield from self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            field, _, value = line.partition(":")
            self._field(field, value.removeprefix(" "))

    def _field(self, field: str, value: str) -> None:
        match field:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_event_id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = int(value)

    def _dispatch(self) -> Iterator[Message]:
        data, kind = self._data, self._type
        self._clear()
        if data:
            yield Message(type=kind or "message", data="\n".join(data), last_event_id=self.last_event_id)
