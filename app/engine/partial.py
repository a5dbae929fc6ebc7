"""Stopping kindly: what a model had said so far stays in the thread, and nothing is left dangling.

A model refuses a conversation in which a tool call has no result, so open calls are closed with one that says that the
run was stopped (wire contract, section 4, `keep_partial`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.graph import END

from app.engine.describe import has_messages_key
from app.engine.state import Graph, thread_config

# in the message's additional_kwargs: it is not the model's whole answer
PARTIAL: Final = {"partial": True}
STOPPED: Final = "The run was stopped before this call had a result."


async def keep_partial(graph: Graph, thread_id: str, partial: Mapping[str, str]) -> None:
    """Write the partial messages into the thread, close its open tool calls, and leave it idle.

    `partial` is text by message id. A graph without a `messages` key is only made idle.
    """
    config = thread_config(thread_id)
    snapshot = await graph.aget_state(config)
    if snapshot.created_at is None or not snapshot.next:
        return
    if has_messages_key(graph):
        said = [AIMessage(text, id=id, additional_kwargs=dict(PARTIAL)) for id, text in partial.items()]
        update = [*closing(snapshot.values.get("messages") or []), *said]
        if update:
            await graph.aupdate_state(config, {"messages": update}, as_node=snapshot.next[0])
    await graph.aupdate_state(config, None, as_node=END)


def closing(messages: Sequence[Any]) -> Sequence[BaseMessage]:
    """A result for each tool call that has none."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return [
        ToolMessage(STOPPED, name=call["name"], tool_call_id=call["id"], status="error")
        for call in calls
        if call["id"] not in answered
    ]
