"""Server-Sent Events (WHATWG HTML, section 9.2.6), from bytes in pieces of any size."""

import codecs
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# not str.splitlines: that also splits where JSON text may have U+2028 and U+0085
LINE_END: Final = re.compile(r"\r\n|\n|\r(?!\Z)")  # a CR at the end may be the first half of a CRLF


class Message(NamedTuple):
    data: str
    id: str


class EventStreamDecoder:
    """Gives messages that are whole; a torn one is never given."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, piece: bytes) -> Iterator[Message]:
        *lines, self._rest = LINE_END.split(self._rest + self._text.decode(piece))
        for line in lines:
            if line:
                self._field(line)
                continue
            data, self._data = self._data, []
            if data:
                yield Message("\n".join(data), self._id)

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
