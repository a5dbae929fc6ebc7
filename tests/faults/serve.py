"""A server in a process that its mother forks (tests/faults/child.py)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.cli import main
from tests.forked import redirect

PROJECT: Final = Path(__file__).parent / "langgraph.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How to serve: `output` is the file for what the server prints."""

    data_dir: Path
    trace: Path
    output: Path
    process: int
    config: Path = PROJECT
    env: Mapping[str, str] = field(default_factory=dict)


def serve(serving: Serving) -> None:
    """In the forked process, which ends here, as any Python process does."""
    redirect(str(serving.output))
    os.environ.update(serving.env)
    os.environ |= {"FAULTS_TRACE": str(serving.trace), "FAULTS_PROCESS": str(serving.process)}
    arguments = ["serve", "--config", str(serving.config), "--port", "0", "--data-dir", str(serving.data_dir)]
    raise SystemExit(main(arguments))
