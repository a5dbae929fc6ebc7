"""Patches of the mirror, applied by the libraries that a page would take: fast-json-patch, and immer."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.mirror import StateMirror
from tests.e2e import machine
from tests.engine.test_mirror import STATES, plain

NODE_DIR = Path(__file__).parent / "node"
NODE_SECONDS = 60


def random_sequences() -> list[list[dict[str, Any]]]:
    """Mirrors of random states: each frame's data, with what the state is then."""
    sequences: list[list[dict[str, Any]]] = []

    @settings(max_examples=300, database=None)
    @given(st.lists(STATES, min_size=2, max_size=5))
    def collect(states: list[Any]) -> None:
        sequence: list[dict[str, Any]] = []

        def take(data: Mapping[str, Any]) -> None:
            sequence.append({"data": data, "expected": now})

        mirror = StateMirror(take, in_state=False, later=lambda seconds, action: None)
        for now in map(plain, states):
            mirror.values(now)
        sequences.append(sequence)

    collect()
    return sequences


def test_random_updates_are_followed_step_by_step(tmp_path: Path) -> None:
    node, folder = machine.find_node(), machine.install_node_packages(NODE_DIR)
    sequences = random_sequences()
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": sequences}))
    command = [node, "apply.mjs", str(path)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NODE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {"count": 2 * sum(map(len, sequences)), "wrong": []}
    assert seen["count"] > 1000
