"""Three ideas at once, each streamed by a branch of its own, then a choice between them."""

import operator
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from graphs.model import chat_model
from graphs.prompt import newest_question, prompt

ANGLES = ("practical", "playful", "bold")


class Ideas(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    ideas: Annotated[dict[str, str], operator.or_]  # by angle: branches that write at once need a reducer


async def practical(state: Ideas) -> dict[str, Any]:
    return await idea(state, "practical")


async def playful(state: Ideas) -> dict[str, Any]:
    return await idea(state, "playful")


async def bold(state: Ideas) -> dict[str, Any]:
    return await idea(state, "bold")


async def idea(state: Ideas, angle: str) -> dict[str, Any]:
    topic = newest_question(state.get("messages", []))
    request = prompt("Give one idea, in one sentence, from the angle you are told.", topic=topic, angle=angle)
    reply = await chat_model("dreamer").ainvoke(request)
    return {"ideas": {angle: reply.text}, "messages": [reply]}


async def choose(state: Ideas) -> dict[str, Any]:
    ideas = state.get("ideas", {})
    request = prompt(
        "Choose one of the ideas, and say why in a sentence.",
        topic=newest_question(state.get("messages", [])),
        ideas="\n".join(ideas[angle] for angle in ANGLES if angle in ideas),
    )
    return {"messages": [await chat_model("editor").ainvoke(request)]}


builder = StateGraph(Ideas)
builder.add_node("practical", practical)
builder.add_node("playful", playful)
builder.add_node("bold", bold)
builder.add_node("choose", choose)
for angle in ANGLES:
    builder.add_edge(START, angle)
builder.add_edge(list(ANGLES), "choose")
builder.add_edge("choose", END)
graph = builder.compile()
