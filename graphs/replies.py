"""What the scripted model says: for each role a short text that depends on what it was asked."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from graphs.prompt import newest_question, sections

Role = Literal["assistant", "planner", "researcher", "writer", "critic", "coordinator", "dreamer", "editor"]

QUOTED_CHARACTERS = 160

REQUEST = re.compile(
    r"\A(?:please )?(?:write|draft|plan|give|make|find|suggest|essays?|an essay|ideas?)\b.*?\b(?:about|on|for|of) ",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    question: str  # the newest human message, or its <topic>, shortened
    notes: Mapping[str, str]  # the other sections of the prompt
    turn: int  # how many human messages there are
    results: Sequence[ToolMessage]  # what tools answered since the newest human message

    @property
    def subject(self) -> str:
        """What the question is about: "green tea" of "Write an essay about green tea!"."""
        return REQUEST.sub("", self.question, count=1).strip(" .!?") or "nothing in particular"


def reply(role: Role, messages: Sequence[BaseMessage]) -> str:
    """The text that `role` answers to `messages`: the same for the same messages, never empty."""
    return REPLIES[role](asked(messages))


def asked(messages: Sequence[BaseMessage]) -> Asked:
    text = newest_question(messages)
    notes = sections(text)
    humans = [place for place, message in enumerate(messages) if isinstance(message, HumanMessage)]
    since = messages[humans[-1] :] if humans else messages
    return Asked(
        question=shortened(notes.get("topic", text)),
        notes=notes,
        turn=len(humans),
        results=[message for message in since if isinstance(message, ToolMessage)],
    )


def shortened(text: str) -> str:
    words = " ".join(text[: 2 * QUOTED_CHARACTERS].split())
    return words if len(words) <= QUOTED_CHARACTERS else words[:QUOTED_CHARACTERS].rstrip() + "…"


def assistant(asked: Asked) -> str:
    if asked.results:
        return " ".join(result_sentence(result) for result in asked.results)
    if not asked.question:
        return "Hello! Ask me anything."
    again = f" This is your message number {asked.turn}, and I remember them all." if asked.turn > 1 else ""
    return (
        f"You said: “{asked.question}”. I am a scripted model with no opinion of my own, "
        f"but I say so word by word, as a real one would.{again}"
    )


def result_sentence(result: ToolMessage) -> str:
    if result.status == "error":
        return f"{result.name} could not help: {result.text}"
    return f"{result.name} says {result.text}."


def planner(asked: Asked) -> str:
    return f"1. What {asked.subject} is\n2. Why {asked.subject} matters\n3. What becomes of {asked.subject}"


def researcher(asked: Asked) -> str:
    return f"the history of {asked.subject}\n{asked.subject} in numbers\nwhat critics say of {asked.subject}"


REVISIONS = (
    ("Clear, but dry: say what it means to a single person.", "Ask anyone who lives with {subject}: it is never dull."),
    ("Warmer. Now the end should look ahead.", "And the best of {subject} may be still to come."),
)


def writer(asked: Asked) -> str:
    """A first draft with a sentence for each point of the plan, or the draft so far with one paragraph more."""
    if draft := asked.notes.get("draft"):
        return f"{draft}\n\n{revision(draft)[1].format(subject=asked.subject)}"
    points = [line.lstrip("0123456789.-* ") for line in asked.notes.get("plan", "").splitlines() if line.strip()]
    body = " ".join(f"{point}: that deserves a page of its own." for point in points)
    return f"Few things are as easily overlooked as {asked.subject}. {body}".rstrip()


def critic(asked: Asked) -> str:
    return f"{revision(asked.notes.get('draft', ''))[0]} Keep to {asked.subject}."


def revision(draft: str) -> tuple[str, str]:
    return REVISIONS[draft.count("\n\n") % len(REVISIONS)]


def coordinator(asked: Asked) -> str:
    return (
        f"Here is how I would go about “{asked.question.rstrip('.!?')}”:\n"
        "1. prepare everything,\n2. have it checked,\n3. do it, and tell everybody.\nMay I?"
    )


def dreamer(asked: Asked) -> str:
    angle = asked.notes.get("angle", "new")
    return f"A {angle} idea for {asked.subject}: {ANGLES.get(angle, 'turn it round and look again')}."


ANGLES = {
    "practical": "start with the smallest part that helps somebody this week",
    "playful": "make a game of it, with a prize that nobody expects",
    "bold": "do the opposite of what everybody does, and invite them to watch",
}


def editor(asked: Asked) -> str:
    ideas = [line for line in asked.notes.get("ideas", "").splitlines() if line]
    first = ideas[0] if ideas else "none yet"
    return f"{len(ideas)} ideas for {asked.subject}. Begin with this one, and keep the others for later: {first}"


REPLIES: Mapping[Role, Callable[[Asked], str]] = {
    "assistant": assistant,
    "planner": planner,
    "researcher": researcher,
    "writer": writer,
    "critic": critic,
    "coordinator": coordinator,
    "dreamer": dreamer,
    "editor": editor,
}
