"""The graph that every contender runs: one node, one model that costs nothing and says as many words as it is asked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict


class Counting(BaseChatModel):
    """Says `w0 w1 w2 ...`, as many words as the last message asks for; the loop has a turn after each."""

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
        count = int(str(messages[-1].content))
        for index in range(count):
            position = "last" if index == count - 1 else None
            message = AIMessageChunk(content=f"w{index} ", id="m", chunk_position=position)
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            await asyncio.sleep(0)
            yield chunk


class State(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


async def model(state: State) -> State:
    return {"messages": [await Counting().ainvoke(state["messages"])]}


graph: Any = StateGraph(State).add_node("model", model).add_edge(START, "model").add_edge("model", END).compile()
