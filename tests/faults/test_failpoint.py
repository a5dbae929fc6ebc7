"""A process that dies at any step between accepting a run and its end loses nothing and does nothing twice."""

from pathlib import Path
from typing import cast

import pytest

from tests.faults.death import PHASES, check_deaths, play_all
from tests.faults.failpoint import Failpoint, Operation
from tests.faults.nursery import IS_LONG, Nursery
from tests.faults.script import SCRIPTS

NAMES = [name for name, script in SCRIPTS.items() if len(script.acts) == 1]


@pytest.mark.timeout(0 if IS_LONG else 240)
@pytest.mark.parametrize("name", NAMES)
def test_whenever_a_process_dies_the_next_one_ends_its_runs_as_if_it_had_not(
    name: str, children: Nursery, tmp_path: Path
) -> None:
    check_deaths(children, SCRIPTS[name], name, tmp_path)


@pytest.mark.parametrize("operation", ["accept", "append", "finish", "save"])
def test_a_process_dies_where_it_is_told_to(operation: str, children: Nursery, tmp_path: Path) -> None:
    failpoints = [Failpoint(operation=cast(Operation, operation), number=1, phase=phase) for phase in PHASES]
    deaths = [[(failpoint, 0)] for failpoint in failpoints]
    outcomes = play_all(children, SCRIPTS["linear"], tmp_path, deaths)
    assert [outcome.crashes for outcome in outcomes] == [1, 1]
