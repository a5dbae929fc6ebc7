"""The same where a thread is paused, edited, and gone back on, by several runs."""

from pathlib import Path

import pytest

from tests.faults.death import check_deaths
from tests.faults.nursery import IS_LONG, Nursery
from tests.faults.script import SCRIPTS

NAMES = [name for name, script in SCRIPTS.items() if len(script.acts) > 1]


@pytest.mark.timeout(0 if IS_LONG else 240)
@pytest.mark.parametrize("name", NAMES)
def test_whenever_a_process_dies_the_next_one_ends_its_runs_as_if_it_had_not(
    name: str, children: Nursery, tmp_path: Path
) -> None:
    check_deaths(children, SCRIPTS[name], name, tmp_path)
