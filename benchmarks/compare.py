"""Runs the server, the bare loop and LangGraph alone in turn, several times, and prints medians and ratios."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import alone, lifetime, provider, readers, streams, turns
from benchmarks.client import exchange
from benchmarks.contender import (
    ALL,
    BARE_LOOP,
    ROOT,
    RUNSTREAM,
    SAVING_LOOP,
    Contender,
    langgraph_dev,
    on_core,
    scratch,
    serving,
)
from benchmarks.endpoint import endpoint
from benchmarks.report import Measured, as_json, markdown
from benchmarks.scenario import ALONE, Own, Scale, Scenario, Shared
from benchmarks.streams import question

SCENARIOS: Final[Sequence[Shared | Own]] = (
    *streams.SCENARIOS,
    *turns.SCENARIOS,
    *readers.SCENARIOS,
    *provider.SCENARIOS,
    *lifetime.SCENARIOS,
)
QUICK_FACTOR: Final = 0.2
REPEATS: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    scenarios: Sequence[Shared | Own]
    contenders: Sequence[Contender]
    scale: Scale


def measure(plan: Plan, measured: Measured) -> None:
    """Everything once, one contender after the other."""
    for contender in plan.contenders:
        mine = [scenario for scenario in plan.scenarios if contender.name in scenario.contenders]
        measure_shared(contender, [s for s in mine if isinstance(s, Shared)], plan.scale, measured)
        for scenario in mine:
            if isinstance(scenario, Own):
                with measured.noting(scenario.key, contender.name):
                    measured.add(scenario, contender.name, scenario.measure(contender, plan.scale))
    measure_alone([s for s in plan.scenarios if s.key in alone.MEASURES], plan.scale, measured)


def measure_shared(contender: Contender, scenarios: Sequence[Shared], scale: Scale, measured: Measured) -> None:
    if not scenarios:
        return
    starting = measured.noting("start", contender.name)
    with starting, scratch() as data_dir, serving(contender, data_dir, ALL) as server:
        for _ in range(3):
            exchange(server.port, [server.post(question(10))])
        for scenario in scenarios:
            with measured.noting(scenario.key, contender.name):
                measured.add(scenario, contender.name, scenario.measure(server, scale))


def measure_alone(scenarios: Sequence[Scenario], scale: Scale, measured: Measured) -> None:
    if not scenarios:
        return
    command = [sys.executable, "-m", "benchmarks.alone", ",".join(s.key for s in scenarios), str(scale.factor)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with scratch() as path:
        done = subprocess.run(
            command, cwd=path, env=environment, preexec_fn=on_core(0), stdout=subprocess.PIPE, check=True
        )
    rows = json.loads(done.stdout)
    for scenario in scenarios:
        measured.add(scenario, ALONE, rows[scenario.key])


def main() -> int:
    options = parser().parse_args()
    scenarios = chosen(options.scenarios, is_quick=options.quick)
    scale = Scale(factor=options.scale or (QUICK_FACTOR if options.quick else 1.0))
    plan = Plan(scenarios=scenarios, contenders=contenders(options.langgraph_dev, is_quick=options.quick), scale=scale)
    measured = Measured(scenarios)
    readers.allow_many_files()
    with ExitStack() as stack:
        if any(scenario.key == "C" for scenario in scenarios):
            stack.enter_context(endpoint())
        if pin := on_core(1):
            pin()
        for number in range(options.repeats or (1 if options.quick else REPEATS)):
            sys.stderr.write(f"repeat {number + 1}\n")
            measure(plan, measured)
    sys.stdout.write(markdown(measured))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(as_json(measured), indent=2))
    return 1 if measured.failures else 0


def contenders(command: Path | None, *, is_quick: bool) -> Sequence[Contender]:
    by_hand = [BARE_LOOP] if is_quick else [BARE_LOOP, SAVING_LOOP]
    return (*by_hand, RUNSTREAM, *([langgraph_dev(command)] if command else []))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    options.add_argument("--scenarios", help="some of " + ",".join(scenario.key for scenario in SCENARIOS))
    options.add_argument("--repeats", type=int, help=f"how often everything is measured ({REPEATS}; quick: 1)")
    options.add_argument("--langgraph-dev", type=Path, help="a `langgraph` command, whose `dev` is measured, too")
    options.add_argument("--json", type=Path, help="write every repeat's figures here, too")
    options.add_argument("--quick", action="store_true", help="the quick scenarios, small")
    options.add_argument("--scale", type=float, help=f"how often or long, by a factor (1; quick: {QUICK_FACTOR})")
    return options


def chosen(keys: str | None, *, is_quick: bool) -> Sequence[Shared | Own]:
    """The scenarios that are named; without names all, or the quick ones. Raises SystemExit for an unknown name."""
    if keys is None:
        return [scenario for scenario in SCENARIOS if scenario.is_in_quick or not is_quick]
    named = keys.upper().split(",")
    if unknown := set(named) - {scenario.key for scenario in SCENARIOS}:
        raise SystemExit(f"There is no scenario {', '.join(sorted(unknown))}.")
    return [scenario for scenario in SCENARIOS if scenario.key in named]


if __name__ == "__main__":
    raise SystemExit(main())
