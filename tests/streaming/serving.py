"""A server with the graphs of tests/streaming/project."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.server import ROOT, RunningServer, running

STREAMING_PROJECT = ROOT / "tests" / "streaming" / "project" / "langgraph.json"
ALL_MODES = ["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug", "state"]


def serving(data_dir: Path, **options: Any) -> AbstractContextManager[RunningServer]:
    return running(data_dir, config=STREAMING_PROJECT, **options)
