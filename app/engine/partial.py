"""Stopping kindly: what a model had said so far stays in the thread, and nothing is left dangling.

A model refuses a conversation in which a tool call has no result, so open calls are closed with one that says that the
run was stopped (wire contract, section 4, `keep_partial`).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import LastValue
from langgraph.graph import END
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from app.engine.describe import has_messages_key
from app.engine.state import Graph, read_state, thread_config

logger = logging.getLogger(__name__)

# in the message's additional_kwargs: it is not the model's whole answer
PARTIAL: Final = {"partial": True}
STOPPED: Final = "The run was stopped before this call had a result."


async def keep_partial(graph: Graph, thread_id: str, partial: Mapping[str, str]) -> None:
    """Write the partial messages into the thread, close its open tool calls, and leave it idle.

    `partial` is text by message id. A graph without a `messages` key is only made idle.
    """
    config = thread_config(thread_id)
    snapshot = await read_state(graph, config)
    if snapshot.created_at is None or not snapshot.next:
        return
    messages = snapshot.values.get("messages", []) if has_messages_key(graph) else None
    if isinstance(messages, list):
        said = [AIMessage(text, id=id, additional_kwargs=dict(PARTIAL)) for id, text in partial.items()]
        if update := [*closing(messages), *said]:
            # without a reducer an update is the whole list
            is_whole = isinstance(graph.channels["messages"], LastValue)
            await add(graph, config, [*messages, *update] if is_whole else update, snapshot)
    await graph.aupdate_state(config, None, as_node=END)


async def add(graph: Graph, config: RunnableConfig, messages: Sequence[Any], snapshot: StateSnapshot) -> None:
    """Write messages into the state as if a node had returned them, so far as the graph takes them.

    LangGraph then asks the node's own edges where to go. Those that are functions may need what the node has not
    written, so a node without them goes first; where there is none, and its edges raise, the stop goes before the text.
    """
    branches = graph.builder.branches if isinstance(graph, CompiledStateGraph) else {}
    nodes = [*snapshot.next, *(name for name in graph.nodes if name != "__start__")]
    node = next((name for name in nodes if not branches.get(name)), nodes[0])
    try:
        await graph.aupdate_state(config, {"messages": messages}, as_node=node)
    except Exception:
        logger.exception("a partial message could not be written into its thread")


def closing(messages: Sequence[Any]) -> Sequence[BaseMessage]:
    """A result for each tool call that has none."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return [
        ToolMessage(STOPPED, name=call["name"], tool_call_id=call["id"], status="error")
        for call in calls
        if call["id"] not in answered
    ]
