"""The table of scenarios, its options, and its page."""

import re

import pytest

from benchmarks.alone import MEASURES
from benchmarks.compare import SCENARIOS, chosen
from benchmarks.report import Measured, markdown
from benchmarks.scenario import ALONE, Figure, Scenario, Target
from tests.server import ROOT

PAGE = ROOT / "docs" / "performance.md"
PRICE = Figure(name="price", better="less", target=Target(value=1.3, of="bare loop"))


def test_the_page_explains_every_scenario() -> None:
    explained = re.findall(r"^\| ([A-Z]) \|", PAGE.read_text(), re.MULTILINE)

    assert sorted(explained) == sorted(scenario.key for scenario in SCENARIOS)


def test_langgraph_alone_is_measured_in_scenarios_that_there_are() -> None:
    assert {scenario.key for scenario in SCENARIOS} > set(MEASURES)


def test_scenarios_are_chosen_by_name() -> None:
    assert [scenario.key for scenario in chosen("b,S", is_quick=True)] == ["S", "B"]


def test_an_unknown_scenario_is_a_sentence() -> None:
    with pytest.raises(SystemExit, match="no scenario X"):
        chosen("S,X", is_quick=False)


@pytest.mark.parametrize(("ours", "verdict"), [(2.6, "yes"), (2.7, "**no**")])
def test_the_table_has_the_median_the_ratio_and_whether_the_target_was_met(ours: float, verdict: str) -> None:
    scenario = Scenario(key="X", title="something", figures=[PRICE], contenders=())
    measured = Measured([scenario])
    for contender, values in (("runstream", [9.0, ours, 0.1]), ("bare loop", [2.0]), (ALONE, [1.0])):
        for value in values:
            measured.add(scenario, contender, {"price": value})

    row = f"| **X** something | price | {ours} | 2 | 1 | {ours / 2:.2f} | {ours:.2f} | ≤ 1.3 × bare loop | {verdict} |"
    assert row in markdown(measured)
