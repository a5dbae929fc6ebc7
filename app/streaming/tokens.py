"""How what a node's models say is sent to readers who ask for nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypedDict

from app.pattern import Pattern
from app.streaming.node import Node, wrapped

# where the policy stands in the function that the decorator gives
POLICY: Final = "__stream_tokens__"


class Count(TypedDict):
    count: int


class Milliseconds(TypedDict):
    ms: int


def stream_tokens(
    *,
    flush: Literal["each"] | Count | Milliseconds = "each",
    tags: Sequence[str] | None = None,
    exclude_tags: Sequence[str] = (),
    min_length: int = 0,
    exclude_whitespace: bool = False,
    pattern: str | None = None,
    format: Literal["text", "structured"] = "text",
) -> Callable[[Node], Node]:
    """Decorate a node: how its token frames are sent, unless a client's `tokens` say otherwise, field by field.

    The fields are those of `tokens` (wire contract, section 4). `format="structured"` is for a model that writes JSON:
    its frames, and those of tool calls, also carry what the text says so far. The log has every token whatever is said
    here. Raises ValueError for a policy that is none.
    """
    check(flush, min_length, pattern)
    policy: dict[str, Any] = {"flush": flush, "min_length": min_length, "exclude_whitespace": exclude_whitespace}
    policy |= {"exclude_tags": list(exclude_tags), "parsed": format == "structured"}
    policy |= {} if tags is None else {"tags": list(tags)}
    policy |= {} if pattern is None else {"pattern": pattern}

    def decorate(node: Node) -> Node:
        call = wrapped(node, nothing)
        setattr(call, POLICY, policy)
        return call

    return decorate


def policy_of(node: object) -> Mapping[str, Any] | None:
    """The policy that a function was decorated with, as the fields of `tokens`."""
    return getattr(node, POLICY, None)


@contextmanager
def nothing(_: tuple[Any, ...]) -> Iterator[Callable[[Any], None]]:
    yield lambda _: None


def check(flush: Any, min_length: int, pattern: str | None) -> None:
    match flush:
        case "each":
            pass
        case {"count": int(count), **rest} if not rest and 1 <= count <= 10_000:
            pass
        case {"ms": int(ms), **rest} if not rest and 1 <= ms <= 60_000:
            pass
        case _:
            raise ValueError('flush is "each", {"count": 1 to 10000} or {"ms": 1 to 60000}')
    if not 0 <= min_length <= 1_000_000:
        raise ValueError("min_length is a number from 0 to 1000000")
    if pattern is not None:
        Pattern(pattern)
