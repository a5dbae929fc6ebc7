"""The Python in the documents runs, and does what the text round it says."""

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from tests.docs.document import Block, blocks, documents, name_of
from tests.server import RunningServer

SNIPPETS = [(path, block) for path in documents() for block in blocks(path, "python")]
ADDRESS = re.compile(r"(localhost|127\.0\.0\.1):8000")


def executed(path: Path, source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(source, name_of(path), "exec"), names)
    return names


@pytest.mark.parametrize(("path", "block"), SNIPPETS, ids=[name_of(path) for path, _ in SNIPPETS])
def test_a_python_snippet_runs_as_it_is(path: Path, block: Block, examples: RunningServer) -> None:
    assert executed(path, ADDRESS.sub(examples.url.removeprefix("http://"), block.text))


def test_the_graph_of_the_guide_asks_and_goes_on_when_it_is_answered() -> None:
    (snippet,) = ((path, block) for path, block in SNIPPETS if path.name == "human-in-the-loop.md")
    graph = executed(snippet[0], snippet[1].text)["graph"].copy(update={"checkpointer": InMemorySaver()})
    config: RunnableConfig = {"configurable": {"thread_id": "one"}}

    asked = graph.invoke({"item": "a boat"}, config)
    done = graph.invoke(Command(resume=True), config)

    assert [interrupt.value for interrupt in asked["__interrupt__"]] == [{"question": "Buy a boat?"}]
    assert done == {"item": "a boat", "approved": True}
