"""A server that starts as fast as a fork: its mother has everything imported."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.cli import main

PROJECT: Final = Path(__file__).parent / "langgraph.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How to serve: `output` is the file for what the server prints."""

    data_dir: Path
    trace: Path
    output: Path
    process: int
    env: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        paths = {"data_dir": str(self.data_dir), "trace": str(self.trace), "output": str(self.output)}
        return {**paths, "process": self.process, "env": dict(self.env)}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Serving":
        paths = {name: Path(fields[name]) for name in ("data_dir", "trace", "output")}
        return cls(**paths, process=fields["process"], env=fields["env"])


def serve(serving: Serving) -> None:
    """In the forked process, which ends here, as any Python process does."""
    redirect(serving.output)
    os.environ.update(serving.env)
    os.environ |= {"FAULTS_TRACE": str(serving.trace), "FAULTS_PROCESS": str(serving.process)}
    arguments = ["serve", "--config", str(PROJECT), "--port", "0", "--data-dir", str(serving.data_dir)]
    raise SystemExit(main(arguments))


def redirect(path: Path) -> None:
    """What this process prints goes to a file."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
