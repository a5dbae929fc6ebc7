"""Ends of a process at the steps between accepting a run and its end; see the tests of failpoints.

The suite ends at a step of each script; with RUNSTREAM_LONG_TESTS=1 it ends at all of them.
"""

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.faults.check import Outcome
from tests.faults.failpoint import Failpoint, Operation, Phase
from tests.faults.nursery import IS_LONG, MOTHERS, Nursery
from tests.faults.script import Script

SAMPLE: Final = 1
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
        return play_until_it_dies(children, script, folder / f"death-{number}", deaths[number])

    with ThreadPoolExecutor(MOTHERS) as pool:
        return list(pool.map(one, range(len(deaths))))


def play_until_it_dies(
    children: Nursery, script: Script, folder: Path, failpoints: Sequence[tuple[Failpoint, int]]
) -> Outcome:
    """Where the first failpoint was not reached, an earlier one: how many appends there are depends on what gathers."""
    (point, armed), *others = failpoints
    while True:
        outcome = children.play(script, folder / str(point), (point, armed), *others)
        if outcome.crashes or point.operation == "finish":
            return outcome
        earlier = replace(point, number=point.number // 2)
        point = earlier if earlier.number else replace(point, operation="finish", number=1, phase="before")


def check_deaths(children: Nursery, script: Script, name: str, folder: Path) -> None:
    """Die at a step and be taken up; die again while that is done. All is as if it had not been."""
    whole = children.play(script, folder / "whole")
    whole.check()
    points = chosen(steps(whole), name)
    again = deaths_in_recovery(name, len(points))
    once = [[(point, 0)] for point in points]
    twice = [[(point, 0), (other, -1)] for point, other in zip(points, again, strict=True)]
    outcomes = play_all(children, script, folder, once + twice)
    for outcome in outcomes:
        outcome.check()
        outcome.check_against(whole)
    assert all(outcome.crashes for outcome in outcomes)
