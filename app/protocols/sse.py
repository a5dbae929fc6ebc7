"""Server-Sent Events, in the two dialects of the wire contract (section 3).

The format is WHATWG HTML, section 9.2.6. Both dialects: LF only, one `data:` line a frame, no `event:` line.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal

from app.runs.event import Event

Dialect = Literal["plain", "eventsource"]

MEDIA_TYPE: Final = "text/event-stream"
RETRY_MILLISECONDS: Final = 1000
RETRY: Final = b"retry: %d\n" % RETRY_MILLISECONDS
NO_WEIGHT: Final = re.compile(r"q=0(\.0*)?")

# `: ping` without a blank line: with one, some clients see a message without data (fact 28)
HEARTBEATS: Final[dict[Dialect, bytes]] = {"plain": b": ping\n\n", "eventsource": b": ping\n"}


def dialect_of(accept: str) -> Dialect:
    """The dialect for an `Accept` header: whoever names `text/event-stream` speaks SSE in full."""
    return "eventsource" if any(names_sse(part) for part in accept.split(",")) else "plain"


def names_sse(media_range: str) -> bool:
    """Whether a part of an `Accept` header takes SSE; a weight of 0 says "not acceptable" (RFC 9110, 12.4.2)."""
    kind, *parameters = (piece.strip().lower() for piece in media_range.split(";"))
    return kind == MEDIA_TYPE and not any(NO_WEIGHT.fullmatch(parameter) for parameter in parameters)


def encode(events: Sequence[Event], run_id: str, dialect: Dialect) -> bytes:
    """The frames of some events, as one piece of bytes.

    In the full dialect `data:` comes before `id:`: a client that stored an id before the data had come would, at a cut
    between the two, never get that frame.
    """
    if dialect == "plain":
        return b"data: %b\n\n" % b"\n\ndata: ".join([event.text for event in events]) if events else b""
    name = run_id.encode()
    # a start is the first event of its log
    return b"".join([b"data: %b\nid: %b.%d\n%b\n" % (e.text, name, e.seq, b"" if e.seq > 1 else RETRY) for e in events])
