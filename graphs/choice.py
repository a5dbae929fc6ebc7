"""Which tools the scripted model calls, and with what: chosen by the words of the question alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from graphs.prompt import newest_question
from graphs.replies import asked

READ_CHARACTERS = 1_000  # of the question: the patterns below are slow on very long ones

NUMBER = r"\(* ?\d+(?:\.\d+)? ?\)*"
ARITHMETIC = re.compile(rf"{NUMBER}(?: ?(?:\*\*|//|[-+*/%]) ?{NUMBER})+")
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”')


@dataclass(frozen=True, kw_only=True)
class Choice:
    name: str
    args: Mapping[str, str]


def choices(messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]) -> list[Choice]:
    """The tool calls that the newest human message asks for: none once their results are there.

    Args:
        messages: the conversation.
        tools: in OpenAI's form, `{"function": {"name", "parameters": JSON Schema}}`.
    """
    if asked(messages).results:
        return []
    question = newest_question(messages)[:READ_CHARACTERS]
    found = (choice(question, tool["function"]) for tool in tools)
    return [each for each in found if each]


def choice(question: str, function: Mapping[str, Any]) -> Choice | None:
    parameters = function.get("parameters", {})
    args: dict[str, str] = {}
    for name in parameters.get("required", ()):
        text = argument(question, name, parameters["properties"][name], function["name"])
        if text is None:
            return None
        args[name] = text
    wanted = bool(args) or mentioned(question, function["name"])
    return Choice(name=function["name"], args=args) if wanted else None


def argument(question: str, name: str, schema: Mapping[str, Any], tool: str) -> str | None:
    """The text for a tool's parameter: arithmetic for an `expression`, otherwise what is quoted, or else the question
    when it mentions the tool. None when there is nothing that fits."""
    if schema.get("type") != "string":
        return None
    if name == "expression":
        arithmetic = ARITHMETIC.search(question)
        return arithmetic[0].strip() if arithmetic else None
    if quoted := QUOTED.search(question):
        return quoted[1] or quoted[2]
    return question if mentioned(question, tool) else None


def mentioned(question: str, tool: str) -> bool:
    return not set(re.findall(r"\w+", question.lower())).isdisjoint(tool.lower().split("_"))
