"""Custom events for the start and the end of a node, a tool, or whatever else runs inside a node."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from langgraph.errors import GraphBubbleUp

from app.streaming.node import Node, wrapped, writer


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEvent:
    """What happened to a call: it started, ended, or raised.

    `input` is its first argument, for a node the state; `seconds` what it took so far. Neither these nor what it
    returned or raised is sent unless a transformer says so: they may hold what no client is to see.
    """

    event: Literal["start", "end", "error"]
    name: str
    input: Any
    output: Any = None
    error: Exception | None = None
    seconds: float = 0.0


Filter = Callable[[CallEvent], bool]
Transformer = Callable[[CallEvent], Any]


def plain(event: CallEvent) -> dict[str, Any]:
    """What is sent of an event unless there is a transformer."""
    return {"event": event.event, "name": event.name}


def stream_events(
    *, name: str | None = None, filter: Filter | None = None, transformer: Transformer = plain
) -> Callable[[Node], Node]:
    """Decorate a node, a tool's function or any other: its start, and its end or failure, are `custom` events.

    `filter` chooses the events that are sent, `transformer` makes their data, by default `{event, name}`. A call that
    `interrupt()` stops has not ended: it will start again. Outside of a running graph it does nothing.
    """

    def decorate(node: Node) -> Node:
        own_name = name or str(getattr(node, "__name__", type(node).__name__))

        @contextmanager
        def around(args: tuple[Any, ...]) -> Iterator[Callable[[Any], None]]:
            write, began = writer(), time.monotonic()
            given = args[0] if args else None

            def tell(
                event: Literal["start", "end", "error"], output: Any = None, error: Exception | None = None
            ) -> None:
                if write is None:
                    return
                seconds = time.monotonic() - began
                happened = CallEvent(
                    event=event, name=own_name, input=given, output=output, error=error, seconds=seconds
                )
                if filter is None or filter(happened):
                    write(transformer(happened))

            tell("start")
            try:
                yield lambda output: tell("end", output)
            except GraphBubbleUp:
                raise
            except Exception as error:
                tell("error", error=error)
                raise

        return wrapped(node, around)

    return decorate
