"""From many updates of a task the few that show something (docs/streaming.md, progress)."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest

from app.engine.progress import SMOOTHING, ProgressMeter
from app.streaming import ProgressUpdate
from app.streaming.progress import ProgressPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Task:
    """A task that reports, and what was shown of it. Each update comes `step` seconds after the one before."""

    def __init__(self, *, step: float = 0.0, **policy: Any) -> None:
        self._clock, self._step = Clock(), step
        self._policy = ProgressPolicy(**policy)
        self._meter = ProgressMeter(self._clock)
        self.shown: list[Mapping[str, Any]] = []

    def report(self, current: float, total: float | None = None, message: str | None = None) -> None:
        data = self._meter.update(ProgressUpdate(current, total, message, self._policy))
        self.shown += [] if data is None else [data]
        self._clock.now += self._step

    def end(self) -> None:
        data = self._meter.rest()
        self.shown += [] if data is None else [data]

    def column(self, name: str) -> Sequence[Any]:
        return [data[name] for data in self.shown]


def test_a_hundred_thousand_updates_of_a_tight_loop_are_some_tens_of_frames_the_first_and_the_last_among_them() -> None:
    task = Task(step=2.0 / 100_000)
    for number in range(100_001):
        task.report(number, 100_000)
    task.end()
    assert 15 <= len(task.shown) <= 30
    assert (task.column("current")[0], task.column("current")[-1]) == (0, 100_000)
    assert task.column("percent") == sorted(task.column("percent"))


def test_slow_updates_are_all_shown() -> None:
    task = Task(step=0.2)
    for number in range(5):
        task.report(number, 4, "step")
    assert task.column("current") == [0, 1, 2, 3, 4]
    assert set(task.column("message")) == {"step"}
    assert task.column("percent") == [0.0, 25.0, 50.0, 75.0, 100.0]


def test_without_a_total_there_is_no_percent_and_the_last_one_is_shown_when_the_node_has_ended() -> None:
    task = Task(step=0.001)
    for number in range(50):
        task.report(number)
    assert task.column("current") == [0]
    task.end()
    assert task.column("current") == [0, 49]
    assert set(task.column("percent")) == set(task.column("eta_seconds")) == {None}
    task.end()
    assert len(task.shown) == 2


def test_milestones_are_shown_whatever_the_interval_once_each_and_the_highest_that_was_passed() -> None:
    task = Task(interval_seconds=60, milestones=(25, 50, 75))
    for number in [0, 10, 24, 25, 26, 80, 90, 100]:
        task.report(number, 100)
    assert list(zip(task.column("current"), task.column("milestone"), strict=True)) == [
        (0, None),
        (25, 25),
        (80, 75),
        (100, None),
    ]


def test_updates_beyond_a_total_that_was_too_low_are_held_back_like_others() -> None:
    task = Task(step=0.00001)
    for number in range(1, 10_001):
        task.report(number, 100)
    task.end()
    assert len(task.shown) <= 5
    assert (task.column("current")[0], task.column("current")[-1]) == (1, 10_000)
    assert 100 in task.column("current")


def test_a_second_loop_in_the_same_node_has_milestones_a_last_one_and_a_rate_of_its_own() -> None:
    task = Task(interval_seconds=60, milestones=(50,))
    for _ in range(2):
        for number in range(11):
            task.report(number, 10)
    assert task.column("current") == [0, 5, 10, 5, 10]
    assert task.column("milestone") == [None, 50, None, 50, None]


def test_two_loops_that_report_in_turns_do_not_flood() -> None:
    task = Task(step=0.00001, milestones=(25, 50, 75))
    for number in range(5_000):
        task.report(number, 5_000, "left")
        task.report(max(0, number - 1_000), 5_000, "right")
    task.end()
    assert len(task.shown) < 20


def test_a_calculator_gives_the_percent_where_the_quotient_is_not_it() -> None:
    task = Task(step=1, calculator=lambda current, total: 100 * (current / (total or 1)) ** 2, milestones=(25,))
    for number in [0, 5, 10]:
        task.report(number, 10)
    assert task.column("percent") == [0.0, 25.0, 100.0]
    assert task.column("milestone") == [None, 25, None]
    unknown = Task(calculator=lambda current, total: None)
    unknown.report(5, 10)
    assert unknown.column("percent") == [None]


def test_rate_and_time_left_are_measured_on_the_clock_and_smoothed() -> None:
    task = Task(step=1)
    for current in [0, 10, 20, 60]:
        task.report(current, 100)
    smoothed = SMOOTHING * 40 + (1 - SMOOTHING) * 10
    assert task.column("rate") == [None, 10, 10, round(smoothed, 3)]
    assert task.column("eta_seconds") == [None, 9.0, 8.0, round(40 / smoothed, 1)]


def test_what_goes_back_or_does_not_move_breaks_neither_rate_nor_time_left() -> None:
    task = Task(step=1)
    for current in [5, 10, 7, 7, 12]:
        task.report(current, 10)
    assert all(rate is None or rate >= 0 for rate in task.column("rate"))
    assert all(left is None or left >= 0 for left in task.column("eta_seconds"))
    still = Task(step=1)
    for _ in range(3):
        still.report(0, 10)
    assert still.column("eta_seconds") == [None, None, None]


@pytest.mark.parametrize("total", [0, 0.0])
def test_a_total_of_nothing_has_no_percent(total: float) -> None:
    task = Task()
    task.report(0, total)
    assert (task.column("percent"), task.column("eta_seconds")) == ([None], [None])


@pytest.mark.parametrize("number", [Decimal, Fraction, numpy.int64, numpy.float32])
def test_what_counts_as_a_number_is_counted(number: Any) -> None:
    task = Task(step=1.0, interval_seconds=1.0)
    task.report(number(1), number(4))
    task.report(number(2), number(4))
    assert task.shown[-1]["current"] == 2
    assert [task.shown[-1][key] for key in ("percent", "rate", "eta_seconds")] == [50.0, 1.0, 2.0]
    assert all(type(task.shown[-1][key]) is float for key in ("percent", "rate", "eta_seconds"))
