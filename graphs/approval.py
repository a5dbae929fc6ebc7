"""Asks before it acts: first the person in charge, then two reviewers at the same time."""

import json
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

from graphs.model import chat_model
from graphs.prompt import newest_question, prompt

YES = frozenset({"y", "yes", "ok", "okay", "sure", "true", "approve", "approved", "accept", "accepted", "go"})


class Approval(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    plan: str
    approval: Any  # the answers are kept as they came: any JSON value
    legal: Any
    finance: Any


# A node runs again from its top when its interrupt() is answered, so the model speaks in a node of its own.
async def plan(state: Approval) -> dict[str, Any]:
    instruction = "Say in three short steps how you would do this, then ask for permission."
    reply = await chat_model("coordinator").ainvoke(prompt(instruction, topic=action(state)))
    return {"plan": reply.text, "messages": [reply]}


async def approve(state: Approval) -> dict[str, Any]:
    return {"approval": interrupt({"question": "Shall I go ahead?", "action": action(state)})}


async def legal(state: Approval) -> dict[str, Any]:
    return {"legal": interrupt({"question": "Is this allowed?", "action": action(state)})}


async def finance(state: Approval) -> dict[str, Any]:
    return {"finance": interrupt({"question": "Can we afford this?", "action": action(state)})}


async def report(state: Approval) -> dict[str, Any]:
    answers = {name: state.get(name) for name in ("legal", "finance")}
    refused = [f"{name} said {said(answer)}" for name, answer in answers.items() if not is_yes(answer)]
    if refused:
        return {"messages": [AIMessage(f"Stopped: {' and '.join(refused)}. Nothing was done.")]}
    return {"messages": [AIMessage(f"Approved by everybody, and done: {action(state)}")]}


async def decline(state: Approval) -> dict[str, Any]:
    answer = said(state.get("approval"))
    return {"messages": [AIMessage(f"You said {answer}, so I left it at that. Nothing was done.")]}


def after_approve(state: Approval) -> list[str]:
    return ["legal", "finance"] if is_yes(state.get("approval")) else ["decline"]


def action(state: Approval) -> str:
    return newest_question(state.get("messages", []))


def is_yes(answer: Any) -> bool:
    """Whether an answer, of any JSON type, is a clear yes; whatever is not is a no."""
    match answer:
        case str():
            return answer.strip().lower().replace(",", " ").rstrip(".!").partition(" ")[0] in YES
        case dict():
            return any(is_yes(answer.get(key)) for key in ("approved", "approve", "decision", "answer"))
        case list():
            return bool(answer) and all(is_yes(each) for each in answer)
        case _:
            return bool(answer == 1)  # True, 1 and 1.0


def said(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False)


builder = StateGraph(Approval)
builder.add_node("plan", plan)
builder.add_node("approve", approve)
builder.add_node("legal", legal)
builder.add_node("finance", finance)
builder.add_node("report", report)
builder.add_node("decline", decline)
builder.add_edge(START, "plan")
builder.add_edge("plan", "approve")
builder.add_conditional_edges("approve", after_approve, ["legal", "finance", "decline"])
builder.add_edge(["legal", "finance"], "report")
builder.add_edge("report", END)
builder.add_edge("decline", END)
graph = builder.compile()
