"""The graphs that every contender runs: a model that costs nothing and says as many words as it is asked."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

QUESTION: Final = re.compile(r"(\d+)(?:@(\d+))?(?:#(\d+))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """`2000`, or `200@20` (a word every 20 ms), or `2000#4711` (when the port 4711 of loopback has been heard)."""

    words: int
    pace_seconds: float = 0.0
    gate_port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        match = QUESTION.fullmatch(text)
        if match is None:
            raise ValueError(f"not a question: {text}")
        words, pace, gate = match.groups()
        return cls(words=int(words), pace_seconds=int(pace or 0) / 1000, gate_port=int(gate) if gate else None)


class Counting(BaseChatModel):
    """Says `w0 w1 w2 ...`, as many words as the last message asks for; the loop has a turn after each.

    A paced word is `w7@D/S`: when it was due and when it was said, in microseconds of the machine's monotonic clock.
    A model elsewhere does not wait for a loop that is late, so the words after a late one are due at their own times.
    """

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("it only streams")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        question = Question.parse(str(messages[-1].content))
        if question.gate_port is not None:
            await heard(question.gate_port)
        begun = time.monotonic()
        message_id = f"m{len(messages)}"
        for index in range(question.words):
            due = begun + index * question.pace_seconds
            await asyncio.sleep(max(due - time.monotonic(), 0) if question.pace_seconds else 0)
            stamp = f"@{due * 1e6:.0f}/{time.monotonic() * 1e6:.0f}" if question.pace_seconds else ""
            position = "last" if index == question.words - 1 else None
            message = AIMessageChunk(content=f"w{index}{stamp} ", id=message_id, chunk_position=position)
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


async def heard(port: int) -> None:
    """Return when whoever listens there has closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.read()
    writer.close()


class State(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


async def model(state: State) -> State:
    return {"messages": [await Counting().ainvoke(state["messages"])]}


async def ask(state: State) -> State:
    return {"messages": [AIMessage(f"You said {interrupt('What?')}")]}


def one_node(node: Any) -> Any:
    return StateGraph(State).add_node("model", node).add_edge(START, "model").add_edge("model", END)


graph: Any = one_node(model).compile()
asking: Any = one_node(ask).compile()
