"""An agent with two tools, as a subgraph of a graph that sums up what it found."""

from typing import Annotated

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from typing_extensions import TypedDict

from graphs.arithmetic import calculate
from graphs.model import chat_model


class Conversation(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


@tool
async def calculator(expression: str) -> str:
    """Work out an arithmetic expression, such as (2 + 3) * 4."""
    return str(calculate(expression))


@tool
async def count_words(text: str) -> str:
    """Count the words of a text."""
    return str(len(text.split()))


TOOLS = (calculator, count_words)


async def model(state: Conversation) -> dict[str, list[BaseMessage]]:
    return {"messages": [await chat_model().bind_tools(TOOLS).ainvoke(state["messages"])]}


def tool_problem(error: ValueError | ArithmeticError) -> str:
    return f"{error}."


async def summary(state: Conversation) -> dict[str, list[BaseMessage]]:
    used = [
        call["name"] for message in state["messages"] if isinstance(message, AIMessage) for call in message.tool_calls
    ]
    return {"messages": [AIMessage(f"Tools used so far: {', '.join(used) or 'none'}.")]}


agent = StateGraph(Conversation)
agent.add_node("model", model)
agent.add_node("tools", ToolNode(TOOLS, handle_tool_errors=tool_problem))
agent.add_edge(START, "model")
agent.add_conditional_edges("model", tools_condition)
agent.add_edge("tools", "model")

builder = StateGraph(Conversation)
builder.add_node("agent", agent.compile())
builder.add_node("summary", summary)
builder.add_edge(START, "agent")
builder.add_edge("agent", "summary")
builder.add_edge("summary", END)
graph = builder.compile()
