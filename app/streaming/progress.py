"""Progress of long work. Call it as often as you like: the server shows what a person can see."""

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from app.streaming.node import Node, wrapped, writer

T = TypeVar("T")
Calculator = Callable[[float, float | None], float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressPolicy:
    """How a node's progress is shown: seconds between frames, percents that are always shown, an own percent."""

    interval_seconds: float = 0.1
    milestones: Sequence[float] = ()
    calculator: Calculator | None = None


_policy: contextvars.ContextVar[ProgressPolicy] = contextvars.ContextVar("progress_policy")


class ProgressUpdate(dict[str, Any]):
    """`{current, total, message}` as it goes through the node's stream writer; elsewhere it is a plain dict."""

    def __init__(self, current: float, total: float | None, message: str | None, policy: ProgressPolicy) -> None:
        super().__init__(current=current, total=total, message=message)
        self.policy = policy


def progress(current: float, total: float | None = None, *, message: str | None = None) -> None:
    """Say how far the work of this node is: `current` of `total` (None: not known), in any unit.

    Outside of a running graph it does nothing.
    """
    write = writer()
    if write is not None:
        write(ProgressUpdate(current, total, message, _policy.get(ProgressPolicy())))


def track(iterable: Iterable[T], total: float | None = None, *, message: str | None = None) -> Iterator[T]:
    """The items of an iterable, with a progress for each that is done. The total is its length, if it has one."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    progress(0, total, message=message)
    for number, item in enumerate(iterable, 1):
        yield item
        progress(number, total, message=message)


def stream_progress(
    *, interval_seconds: float = 0.1, milestones: Sequence[float] = (), calculator: Calculator | None = None
) -> Callable[[Node], Node]:
    """Decorate a node: how the progress that it reports is shown.

    `interval_seconds` is the least time between two frames; the first, the last and the `milestones` (percents) are
    shown whatever it is. `calculator(current, total)` gives the percent where the quotient is not it.
    """
    policy = ProgressPolicy(interval_seconds=interval_seconds, milestones=tuple(milestones), calculator=calculator)

    @contextmanager
    def around(_: tuple[Any, ...]) -> Iterator[Callable[[Any], None]]:
        token = _policy.set(policy)
        try:
            yield lambda _: None
        finally:
            _policy.reset(token)

    return lambda node: wrapped(node, around)
