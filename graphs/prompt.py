"""What goes into a model: an instruction, and the parts of the state that it should look at."""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage


def prompt(instruction: str, *, topic: str, **sections: str) -> list[BaseMessage]:
    """A system message with the instruction, then one human message with tagged sections: the topic, and each other
    text that is not empty."""
    texts = {"topic": topic, **{name: text for name, text in sections.items() if text}}
    body = "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in texts.items())
    return [SystemMessage(instruction), HumanMessage(body)]


def sections(text: str) -> dict[str, str]:
    """The sections of a text that `prompt` made, by name; of any other text none."""
    found: dict[str, str] = {}
    name, lines = "", list[str]()
    for line in text.split("\n"):
        if not name and line.startswith("<") and line.endswith(">"):
            name, lines = line[1:-1], []
        elif name and line == f"</{name}>":
            found[name], name = "\n".join(lines), ""
        else:
            lines.append(line)
    return found


def newest_question(messages: Sequence[BaseMessage]) -> str:
    """The text of the newest human message, without the space around it; an empty string when there is none."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return message.text.strip()
    return ""
