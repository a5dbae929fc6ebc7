"""An essay: planned, researched, drafted, criticised and revised. Every step also says what it did in `messages`."""

from typing import Annotated, Any

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import TypedDict

from graphs.model import chat_model
from graphs.prompt import newest_question, prompt

MAX_REVISIONS = 2


class Essay(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    topic: str
    plan: str
    queries: list[str]
    draft: str
    critique: str
    revision: int  # 0 is the first draft


async def planner(state: Essay) -> dict[str, Any]:
    topic = topic_of(state)
    reply = await chat_model("planner").ainvoke(prompt("Plan a short essay: three points, one a line.", topic=topic))
    return {"topic": topic, "plan": reply.text, "critique": "", "revision": 0, "messages": [reply]}


def topic_of(state: Essay) -> str:
    """The newest human message when nothing has answered it yet; otherwise the `topic` that was given."""
    messages = state.get("messages", [])
    if messages and isinstance(messages[-1], HumanMessage):
        return newest_question(messages)
    return state.get("topic", "")


async def research(state: Essay) -> dict[str, Any]:
    request = prompt(
        "Name three search queries that help to write this essay, one a line, and nothing else.",
        topic=state.get("topic", ""),
        plan=state.get("plan", ""),
    )
    reply = await chat_model("researcher").ainvoke(request)
    queries = [line.strip(" -*") for line in reply.text.splitlines() if line.strip(" -*")]
    report = get_stream_writer()
    for query in queries:
        report({"searching": query})
    return {"queries": queries, "messages": [reply]}


async def draft(state: Essay) -> dict[str, Any]:
    revision = state.get("revision", 0)
    request = prompt(
        "Write the essay in two short paragraphs. Where there is a draft, revise it by the critique.",
        topic=state.get("topic", ""),
        plan=state.get("plan", ""),
        queries="\n".join(state.get("queries", [])),
        draft=state.get("draft", "") if revision else "",
        critique=state.get("critique", ""),
    )
    reply = await chat_model("writer").ainvoke(request)
    return {"draft": reply.text, "messages": [reply]}


async def reflection(state: Essay) -> dict[str, Any]:
    request = prompt(
        "Criticise the draft in two sentences: what would make it better?",
        topic=state.get("topic", ""),
        draft=state.get("draft", ""),
    )
    reply = await chat_model("critic").ainvoke(request)
    return {"critique": reply.text, "revision": state.get("revision", 0) + 1, "messages": [reply]}


def after_draft(state: Essay) -> str:
    return "reflection" if state.get("revision", 0) < MAX_REVISIONS else END


def make_graph() -> CompiledStateGraph[Essay, None, Essay, Essay]:
    builder = StateGraph(Essay)
    builder.add_node("planner", planner)
    builder.add_node("research", research)
    builder.add_node("draft", draft)
    builder.add_node("reflection", reflection)
    builder.add_edge(START, "planner")
    builder.add_edge("planner", "research")
    builder.add_edge("research", "draft")
    builder.add_conditional_edges("draft", after_draft, ["reflection", END])
    builder.add_edge("reflection", "draft")
    return builder.compile()
