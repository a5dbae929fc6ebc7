"""An event: an entry of a run's log, held as the JSON text that is stored and sent (wire contract, section 2)."""

from typing import Final, Literal, NamedTuple

EventKind = Literal[
    "start",
    "node",
    "token",
    "tool_call",
    "tool_result",
    "tool_call_delta",
    "custom",
    "progress",
    "node_start",
    "values",
    "checkpoint",
    "debug",
    "state",
    "restart",
    "discard",
    "complete",
    "interrupt",
    "cancelled",
    "error",
]

TERMINAL: Final = frozenset[EventKind]({"complete", "interrupt", "cancelled", "error"})

# which stream mode an event belongs to; the ones not named are sent whatever the modes
MODES: Final[dict[str, str]] = {
    "node": "updates",
    "token": "messages",
    "tool_call": "messages",
    "tool_call_delta": "messages",
    "tool_result": "messages",
    "custom": "custom",
    "progress": "custom",
    "node_start": "tasks",
    "values": "values",
    "checkpoint": "checkpoints",
    "debug": "debug",
    "state": "state",
}

_PREFIX: Final = b'{"event":"'


# tuples, since one of each is made for every token: a frozen dataclass takes three times as long
class NewEvent(NamedTuple):
    """An event before its append.

    `text` is a JSON object that begins with its `event` key, then its `ns` where it has one, and has no `seq` yet.
    """

    kind: EventKind
    text: bytes

    @property
    def is_terminal(self) -> bool:
        return self.kind in TERMINAL


class Event(NamedTuple):
    """An event of the log: `text` is what is stored and what every reader gets, `seq` included as its last key."""

    seq: int
    text: bytes

    @property
    def kind(self) -> str:
        start = len(_PREFIX)
        return self.text[start : self.text.index(b'"', start)].decode()

    @property
    def is_terminal(self) -> bool:
        return self.kind in TERMINAL

    @property
    def is_nested(self) -> bool:
        """Whether it comes from a subgraph: `ns` stands right behind `event` then."""
        end = self.text.index(b'"', len(_PREFIX)) + 1
        return self.text.startswith(b',"ns":', end)


def with_seq(text: bytes, seq: int) -> bytes:
    """The text of an event at its place in the log.

    >>> with_seq(b'{"event":"start"}', 1)
    b'{"event":"start","seq":1}'
    """
    return b'%b,"seq":%d}' % (text[:-1], seq)
