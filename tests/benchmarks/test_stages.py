"""What is counted is what a token goes through: each stage does its work, and the counts are told apart."""

import asyncio

import pytest

from benchmarks.instructions import counted, own
from benchmarks.stages import STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_does_its_work(stage: str) -> None:
    asyncio.run(STAGES[stage](100))


def test_what_a_start_costs_is_not_counted() -> None:
    prices = {"chunks": 3, "translate": 10}

    found = counted(lambda command: 1_000_000 + prices[command[-2]] * int(command[-1]), list(prices))

    assert found == prices


def test_a_stage_inside_another_is_taken_out_of_it() -> None:
    assert own({"chunks": 3.0, "translate": 10.0, "encode": 1.0}) == {"chunks": 3.0, "translate": 7.0, "encode": 1.0}
