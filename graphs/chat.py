"""A conversation: the whole of it goes to the model, and its answer is added."""

from typing import Annotated

from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from graphs.model import chat_model


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


async def chat(state: Chat) -> dict[str, list[BaseMessage]]:
    return {"messages": [await chat_model().ainvoke(state["messages"])]}


builder = StateGraph(Chat)
builder.add_node("chat", chat)
builder.add_edge(START, "chat")
builder.add_edge("chat", END)
graph = builder.compile()
