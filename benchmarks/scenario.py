"""What a scenario is: what it measures, of whom, and what it should be."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from benchmarks.contender import Contender, ContenderName, Server

Row = Mapping[str, float]  # figures by name
Better = Literal["more", "less"]
ALONE = "LangGraph alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """How good the server should be: so many times what `of` is, or, without it, so much."""

    value: float
    of: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    name: str
    better: Better
    target: Target | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Factor on how often or how long something is done: 1 is the scenario as it is described."""

    factor: float

    def of(self, count: int, *, least: int = 1) -> int:
        return max(round(count * self.factor), least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One of the table. It raises AssertionError when what came is not whole."""

    key: str
    title: str
    figures: Sequence[Figure]
    contenders: Sequence[ContenderName]
    is_in_quick: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared(Scenario):
    """Measured on a server that others are measured on, too."""

    measure: Callable[[Server, Scale], Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Own(Scenario):
    """Measured on processes of its own."""

    measure: Callable[[Contender, Scale], Row]


class Cost:
    """The CPU that a server used within a block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = self._server.cpu_seconds()
        yield
        self.seconds += self._server.cpu_seconds() - before


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
