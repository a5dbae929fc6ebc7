"""A process that dies at any step between accepting a run and its end loses nothing and does nothing twice.

The suite dies at a few steps of each script; with RUNSTREAM_LONG_TESTS=1 it dies at all of them.
"""

import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

import pytest

from tests.faults.check import Outcome
from tests.faults.failpoint import Failpoint, Operation, Phase
from tests.faults.nursery import Nursery, nursery
from tests.faults.script import SCRIPTS, Script

IS_LONG: Final = os.environ.get("RUNSTREAM_LONG_TESTS") == "1"
MOTHERS: Final = 2
SAMPLE: Final = 2
PHASES: Final[Sequence[Phase]] = ("before", "after")

# where a process may die that takes up what another one left; there is one claim, and at the most one end
RECOVERY: Final[Sequence[tuple[Operation, int]]] = [
    ("claim", 1),
    ("append", 1),
    ("append", 2),
    ("save", 1),
    ("save", 2),
    ("save", 3),
    ("finish", 1),
]


@pytest.fixture(scope="module")
def children() -> Iterator[Nursery]:
    with nursery(MOTHERS) as found:
        yield found


def steps(outcome: Outcome) -> list[Failpoint]:
    """Before and after each call that was made when the script was played without a crash."""
    counts: dict[Operation, int] = json.loads((outcome.folder / "counts").read_text())
    return [
        Failpoint(operation=operation, number=number, phase=phase)
        for operation, count in counts.items()
        for number in range(1, count + 1)
        for phase in PHASES
    ]


def chosen(found: Sequence[Failpoint], name: str) -> Sequence[Failpoint]:
    return found if IS_LONG else random.Random(name).sample(found, SAMPLE)


def deaths_in_recovery(name: str, count: int) -> Sequence[Failpoint]:
    choice = random.Random(name)
    drawn = [(*choice.choice(RECOVERY), choice.choice(PHASES)) for _ in range(count)]
    return [Failpoint(operation=operation, number=number, phase=phase) for operation, number, phase in drawn]


def play_all(
    children: Nursery, script: Script, folder: Path, deaths: Sequence[Sequence[tuple[Failpoint, int]]]
) -> Sequence[Outcome]:
    def one(number: int) -> Outcome:
        return children.play(script, folder / f"death-{number}", *deaths[number])

    with ThreadPoolExecutor(MOTHERS) as pool:
        return list(pool.map(one, range(len(deaths))))


@pytest.mark.timeout(0 if IS_LONG else 120)
@pytest.mark.parametrize("name", SCRIPTS)
def test_whenever_a_process_dies_the_next_one_ends_its_runs_as_if_it_had_not(
    name: str, children: Nursery, tmp_path: Path
) -> None:
    script = SCRIPTS[name]
    whole = children.play(script, tmp_path / "whole")
    whole.check()
    points = chosen(steps(whole), name)
    again = deaths_in_recovery(name, len(points))
    once = [[(point, 0)] for point in points]
    twice = [[(point, 0), (other, -1)] for point, other in zip(points, again, strict=True)]
    outcomes = play_all(children, script, tmp_path, once + (twice if IS_LONG else twice[:1]))
    for outcome in outcomes:
        outcome.check()
        outcome.check_against(whole)
    assert any(outcome.crashes for outcome in outcomes)


@pytest.mark.parametrize("operation", ["accept", "append", "finish", "save"])
def test_a_process_dies_where_it_is_told_to(operation: str, children: Nursery, tmp_path: Path) -> None:
    failpoints = [Failpoint(operation=cast(Operation, operation), number=1, phase=phase) for phase in PHASES]
    deaths = [[(failpoint, 0)] for failpoint in failpoints]
    outcomes = play_all(children, SCRIPTS["linear"], tmp_path, deaths)
    assert [outcome.crashes for outcome in outcomes] == [1, 1]
