import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph.state import CompiledStateGraph

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = json.loads((ROOT / "langgraph.json").read_text())


def load(name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    file, attribute = CONFIG["graphs"][name]["path"].split(":")
    found = getattr(importlib.import_module(f"graphs.{(ROOT / file).stem}"), attribute)
    loaded = found if isinstance(found, CompiledStateGraph) else found()
    assert isinstance(loaded, CompiledStateGraph)
    return loaded


def test_chat_comes_first() -> None:
    assert list(CONFIG["graphs"]) == ["chat", "essay", "approval", "ideas", "tools"]


@pytest.mark.parametrize("name", CONFIG["graphs"])
def test_every_graph_is_compiled_without_a_checkpointer_and_can_tell_its_schemas(name: str) -> None:
    graph = load(name)

    assert graph.checkpointer is None
    assert "messages" in graph.get_input_jsonschema()["properties"]
    assert "messages" in graph.get_output_jsonschema()["properties"]


def test_pauses_are_registered_at_nodes_that_exist() -> None:
    pauses = CONFIG["graphs"]["essay"]["hitl"]["interrupt_after"]

    assert pauses == ["planner", "draft"]
    assert set(pauses) <= set(load("essay").nodes)
