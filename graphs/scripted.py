"""A chat model that needs neither a key nor a network, and streams as real ones do."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from graphs.choice import Choice, choices
from graphs.replies import Role, reply

ARGUMENT_PIECE_CHARACTERS = 8


class ScriptedChatModel(BaseChatModel):
    """Answers what its role would say to the messages: the same words to the same messages, only the ids differ.

    With tools bound it first calls those that fit the newest human message, then answers from their results. Usage
    counts words as tokens.
    """

    role: Role = "assistant"
    script: str | None = None  # says exactly this instead of what its role would
    delay_seconds: float = Field(default=0.03, ge=0)  # between two chunks; 0 never sleeps
    model_name: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A model that may call `tools`. `tool_choice` is taken as other models take it, but not followed."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for place, chunk in enumerate(self._chunks(messages, stop, kwargs.get("tools", []))):
            if place and self.delay_seconds:
                time.sleep(self.delay_seconds)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for place, chunk in enumerate(self._chunks(messages, stop, kwargs.get("tools", []))):
            if place and self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, tools: Sequence[dict[str, Any]]
    ) -> Iterator[ChatGenerationChunk]:
        message_id = f"scripted-{uuid4()}"
        calls = choices(messages, tools)
        text = "" if calls else until(self.script if self.script is not None else reply(self.role, messages), stop)
        pieces = [AIMessageChunk(content=word, id=message_id) for word in words(text)]
        pieces += [
            AIMessageChunk(content="", id=message_id, tool_call_chunks=[piece])
            for place, call in enumerate(calls)
            for piece in call_pieces(call, place)
        ]
        yield from (ChatGenerationChunk(message=piece) for piece in pieces)
        yield ChatGenerationChunk(message=self._last(message_id, calls, usage(messages, len(pieces))))

    def _last(self, message_id: str, calls: Sequence[Choice], usage: UsageMetadata) -> AIMessageChunk:
        # Only here: joining chunks joins the strings of their metadata too, so each may be said only once.
        about = {"model_name": self.model_name, "finish_reason": "tool_calls" if calls else "stop"}
        return AIMessageChunk(
            content="", id=message_id, chunk_position="last", usage_metadata=usage, response_metadata=about
        )


def words(text: str) -> list[str]:
    """The words of a text, each with the space that follows it: joined they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


def until(text: str, stop: list[str] | None) -> str:
    for end in stop or ():
        text = text.split(end, 1)[0]
    return text


def call_pieces(call: Choice, index: int) -> list[ToolCallChunk]:
    """A tool call as models stream it: the name and id first, then its arguments' JSON in pieces."""
    arguments = json.dumps(call.args, ensure_ascii=False)
    cuts = range(0, len(arguments), ARGUMENT_PIECE_CHARACTERS)
    return [
        tool_call_chunk(name=call.name, args="", id=f"call_{uuid4().hex}", index=index),
        *(tool_call_chunk(args=arguments[cut : cut + ARGUMENT_PIECE_CHARACTERS], index=index) for cut in cuts),
    ]


def usage(messages: Sequence[BaseMessage], output_tokens: int) -> UsageMetadata:
    input_tokens = sum(len(message.text.split()) for message in messages)
    return UsageMetadata(
        input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens
    )
