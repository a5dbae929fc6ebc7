"""Stopping kindly: what a model had said so far stays in the thread, and nothing is left dangling.

A model refuses a conversation in which a tool call has no result, so open calls are closed with one that says that the
run was stopped (wire contract, section 4, `keep_partial`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.channels import LastValue
from langgraph.graph import END

from app.engine.describe import has_messages_key
from app.engine.state import Graph, read_state, thread_config

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
    name = snapshot.next[0]
    while snapshot.next:
        # first, since an update of the values forgets what other nodes of the step have written; and more than once
        # where these lead on
        await graph.aupdate_state(config, None, as_node=END)
        snapshot = await read_state(graph, config)
    messages = snapshot.values.get("messages", []) if has_messages_key(graph) else None
    if not isinstance(messages, list):
        return
    said = [AIMessage(text, id=id, additional_kwargs=dict(PARTIAL)) for id, text in partial.items()]
    if update := [*closing(messages), *said]:
        # without a reducer an update is the whole list
        is_whole = isinstance(graph.channels["messages"], LastValue)
        values = {"messages": [*messages, *update] if is_whole else update}
        await without_edges(graph, name).aupdate_state(config, values, as_node=name)


def without_edges(graph: Graph, name: str) -> Graph:
    """The graph with a node whose writes lead nowhere: edges that are functions may need what it has not written."""
    node = graph.nodes[name]
    edgeless = graph.copy(update={"nodes": {**graph.nodes, name: node.copy({"writers": node.writers[:1]})}})
    edgeless._serde_allowlist = graph._serde_allowlist  # which `copy` forgets (fact 25)
    return edgeless


def closing(messages: Sequence[Any]) -> Sequence[BaseMessage]:
    """A result for each tool call that has none."""
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return [
        ToolMessage(STOPPED, name=call["name"], tool_call_id=call["id"], status="error")
        for call in calls
        if call["id"] not in answered
    ]
