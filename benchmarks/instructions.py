"""How many instructions a token takes in each stage of its way: a figure that is the same on a machine that is busy.

Each stage runs twice in a process of its own, with few tokens and with more, and the difference is what the tokens
cost: the start and the imports are in both. The processor counts, where it lets itself be asked (`perf stat`), or
valgrind does.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.contender import ROOT
from benchmarks.stages import STAGES

FEW: Final = 500
MORE: Final = 2500
AT_ONCE: Final = 2

Counter = Callable[[Sequence[str]], int]


def by_perf(command: Sequence[str]) -> int:
    done = run(["perf", "stat", "-x", ",", "-e", "instructions:u", "--", *command])
    return int(done.stderr.splitlines()[-1].split(",")[0])


def by_valgrind(command: Sequence[str]) -> int:
    counting = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = run([*counting, *command])
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def find_counter() -> Counter:
    """Raises SystemExit where nothing counts."""
    if shutil.which("perf"):
        try:
            by_perf(["true"])
            return by_perf
        except (ValueError, subprocess.CalledProcessError):
            pass  # a virtual machine, most often: "<not supported>"
    if shutil.which("valgrind"):
        return by_valgrind
    raise SystemExit("Neither perf nor valgrind counts instructions here: install valgrind.")


def counted(count: Counter, stages: Sequence[str]) -> dict[str, float]:
    """Instructions a token, by stage."""

    def one(task: tuple[str, int]) -> int:
        stage, tokens = task
        return count([sys.executable, "-m", "benchmarks.stages", stage, str(tokens)])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        totals = list(pool.map(one, [(stage, tokens) for stage in stages for tokens in (FEW, MORE)]))
    few, more = totals[::2], totals[1::2]
    return {stage: (b - a) / (MORE - FEW) for stage, a, b in zip(stages, few, more, strict=True)}


def own(found: dict[str, float]) -> dict[str, float]:
    """What each stage takes itself: two of them have another one inside."""
    inside = {"translate": "chunks", "read": "append"}
    return {stage: value - found.get(inside.get(stage, ""), 0.0) for stage, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("stages", nargs="*", help=f"some of {', '.join(STAGES)}; all by default")
    named = parser.parse_args().stages or list(STAGES)
    if unknown := set(named) - set(STAGES):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}")
    lines = ["| stage | instructions a token |", "| --- | --: |"]
    for stage, value in own(counted(find_counter(), named)).items():
        lines.append(f"| {stage} | {value:,.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
