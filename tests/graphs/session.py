"""A graph on a thread of its own, with checkpoints in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt

Graph = CompiledStateGraph[Any, None, Any, Any]

CONFIG: RunnableConfig = {"configurable": {"thread_id": "thread"}}


@dataclass(frozen=True)
class Session:
    plain: Graph
    saver: InMemorySaver = field(default_factory=InMemorySaver)

    @property
    def graph(self) -> Graph:
        return self.plain.copy(update={"checkpointer": self.saver})

    def say(self, text: str, **options: Any) -> list[dict[str, Any]]:
        return self.go({"messages": [{"role": "user", "content": text}]}, **options)

    def answer(self, *answers: Any) -> list[dict[str, Any]]:
        """Answers the pending interrupts, in their order."""
        pending = [interrupt.id for interrupt in self.interrupts()]
        return self.go(Command(resume=dict(zip(pending, answers, strict=False))))

    def go(self, given: Any, **options: Any) -> list[dict[str, Any]]:
        """Runs until the graph ends or pauses, and gives the parts it streamed."""

        async def parts() -> list[dict[str, Any]]:
            stream: AsyncIterator[Any] = self.graph.astream(
                given, CONFIG, stream_mode=["updates", "messages", "custom"], version="v2", **options
            )
            return [part async for part in stream]

        return asyncio.run(parts())

    def interrupts(self) -> tuple[Interrupt, ...]:
        return self.graph.get_state(CONFIG).interrupts

    def questions(self) -> list[str]:
        return sorted(interrupt.value["question"] for interrupt in self.interrupts())

    def values(self) -> dict[str, Any]:
        return dict(self.graph.get_state(CONFIG).values)

    def next(self) -> tuple[str, ...]:
        return self.graph.get_state(CONFIG).next

    def last_text(self) -> str:
        message: BaseMessage = self.values()["messages"][-1]
        return message.text


def nodes(parts: list[dict[str, Any]]) -> list[str]:
    """The nodes that ended, in their order."""
    updates = [part["data"] for part in parts if part["type"] == "updates"]
    return [name for update in updates for name in update if name != "__interrupt__"]


def streamed(parts: list[dict[str, Any]]) -> dict[str, str]:
    """The text of each streamed message, joined, by the message's id."""
    texts: dict[str, str] = {}
    for part in parts:
        if part["type"] == "messages":
            message, _ = part["data"]
            texts[message.id] = texts.get(message.id, "") + message.text
    return texts


def speakers(parts: list[dict[str, Any]]) -> list[str]:
    """The node of each streamed chunk."""
    return [part["data"][1]["langgraph_node"] for part in parts if part["type"] == "messages"]
