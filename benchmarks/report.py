"""What was measured, as a table in Markdown and as JSON, with the machine."""

import importlib.metadata
import os
import platform
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.scenario import ALONE, Figure, Row, Scenario, median

PACKAGES: Final = ("langgraph", "langchain-core", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "orjson")


class Measured:
    """The rows of all repeats, and what failed."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self.scenarios = scenarios
        self.rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
        self.failures: list[str] = []

    def add(self, scenario: Scenario, contender: str, row: Row) -> None:
        self.rows[scenario.key, contender].append(row)

    @contextmanager
    def noting(self, what: str, contender: str) -> Iterator[None]:
        """What fails within the block is noted, and the rest goes on."""
        sys.stderr.write(f"  {what} {contender}\n")
        try:
            yield
        except (AssertionError, OSError) as error:
            self.failures.append(f"{what}, {contender}: {type(error).__name__}: {error}")
            sys.stderr.write(f"    failed: {error}\n")

    def contenders(self) -> list[str]:
        names = dict.fromkeys(name for _, name in self.rows)
        return sorted(names, key=lambda name: (name != "runstream", name != "bare loop", name))

    def median(self, key: str, contender: str, figure: str) -> float | None:
        values = [row[figure] for row in self.rows[key, contender] if figure in row]
        return median(values) if values else None


def markdown(measured: Measured) -> str:
    names = measured.contenders()
    head = ["scenario", "figure", *names, "to the bare loop", "to LangGraph alone", "target", "met"]
    lines = [row_of(head), row_of(["---"] * 2 + ["--:"] * (len(names) + 2) + ["---"] * 2)]
    for scenario in measured.scenarios:
        title = f"**{scenario.key}** {scenario.title}"
        for figure in scenario.figures:
            lines.append(row_of([title, *cells(measured, scenario, figure, names)]))
            title = ""
    failures = [f"FAILED {failure}" for failure in measured.failures]
    return "\n".join(["", f"{machine_line()}", "", *lines, "", *failures]) + "\n"


def row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cells(measured: Measured, scenario: Scenario, figure: Figure, names: Sequence[str]) -> list[str]:
    values = {name: measured.median(scenario.key, name, figure.name) for name in names}
    ours = values.get("runstream")
    to_bare, to_alone = ratio(ours, values.get("bare loop")), ratio(ours, values.get(ALONE))
    target, met = "", ""
    if figure.target is not None and ours is not None:
        sign = "≥" if figure.better == "more" else "≤"
        target = f"{sign} {figure.target.value:,g}" + (f" × {figure.target.of}" if figure.target.of else "")
        met = verdict(figure, ours, values.get(figure.target.of) if figure.target.of else 1.0)
    shown = [number(values[name]) for name in names]
    return [figure.name, *shown, times(to_bare), times(to_alone), target, met]


def verdict(figure: Figure, ours: float, unit: float | None) -> str:
    if figure.target is None or unit is None:
        return ""
    bound = figure.target.value * unit
    return "yes" if (ours >= bound if figure.better == "more" else ours <= bound) else "**no**"


def ratio(ours: float | None, other: float | None) -> float | None:
    return None if ours is None or not other else ours / other


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(measured: Measured) -> dict[str, Any]:
    rows = [
        {"scenario": key, "contender": contender, "repeats": repeats}
        for (key, contender), repeats in measured.rows.items()
        if repeats
    ]
    return {"machine": machine(), "rows": rows, "failures": measured.failures}


def machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.+)", read_or_empty("/proc/cpuinfo"))
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def machine_line() -> str:
    about = machine()
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    load = ", ".join(f"{average:.1f}" for average in about["load"])
    return (
        f"{about['cpu']}, {about['cores']} cores, load {load} at the end; {about['platform']}; "
        f"Python {about['python']}, SQLite {about['sqlite']}, {packages}."
    )


def read_or_empty(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
