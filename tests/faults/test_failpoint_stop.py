"""A process that is told to stop at any step between accepting a run and its end leaves it to the next one."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.faults.death import chosen, play_all, steps
from tests.faults.nursery import IS_LONG, Nursery
from tests.faults.script import SCRIPTS

# of each kind of graph one
STOPPED_SCRIPTS: Final = (
    "linear",
    "linear, async",
    "parallel",
    "subgraph",
    "retrying",
    "fan-out",
    "nodes in threads",
    "question",
    "questions below",
    "functional",
)


@pytest.mark.timeout(0 if IS_LONG else 240)
@pytest.mark.parametrize("name", SCRIPTS if IS_LONG else STOPPED_SCRIPTS)
def test_whenever_a_process_is_told_to_stop_the_next_one_ends_its_runs_as_if_it_had_not(
    name: str, children: Nursery, tmp_path: Path
) -> None:
    script = SCRIPTS[name]
    whole = children.play(script, tmp_path / "whole")
    points = [replace(point, ending="stop") for point in chosen(steps(whole), f"{name}, stopped")]
    for outcome in play_all(children, script, tmp_path, [[(point, 0)] for point in points]):
        outcome.check()
        outcome.check_against(whole)
        assert {frame["reason"] for run in outcome.runs.values() for frame in run.frames if "reason" in frame} <= {
            "deploy",
            "retry",
        }
