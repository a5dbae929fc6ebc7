"""What is saved beside the writes of a task, in one transaction with them: all that a later attempt must know of it.

The events of the nodes that ended, since a crash may keep them from the log; and a note of the messages that are whole
now and of the tokens that the models have used so far.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages.ai import add_usage

from app.engine.state import places_of
from app.engine.translate import Translator

Usage = Mapping[str, Any]  # by the model's name, as LangChain's callback gives it

NOTE: Final = "note"

TELLING_TRIES: Final = 1_000
TELLING_SECONDS: Final = 0.001


class RunJournal:
    """`app.engine.checkpoints.Journal` for one attempt."""

    def __init__(self, translator: Translator, watch: UsageMetadataCallbackHandler, *, attempt: int) -> None:
        self._translator = translator
        self._watch = watch
        self._attempt = attempt
        self._noted: Usage = {}

    def saving(self, task_id: str) -> Sequence[bytes]:
        """The texts to save: the node events that are true then, and a note where there is something to note."""
        events = self._translator.saving(task_id)
        messages, usage = self._translator.spoken_by(task_id), dict(self._watch.usage_metadata)
        if not messages and usage == self._noted:
            return events
        self._noted = usage
        note = {"event": NOTE, "messages": messages, "attempt": self._attempt, "usage": usage}
        return [*events, orjson.dumps(note)]

    def saved(self, task_id: str) -> None:
        self._translator.saved(task_id)

    async def told(self, task_id: str) -> None:
        """The stream says it in another thread, at the same moment; not for ever, since a save must not hang on it."""
        for _ in range(TELLING_TRIES):
            if self._translator.is_told(task_id):
                return
            await asyncio.sleep(TELLING_SECONDS)

    def told_in(self, checkpoint_ns: str) -> Collection[str]:
        return self._translator.told_in(places_of(checkpoint_ns))


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """The journal of a run's earlier attempts: node events by their task ids, whole messages, and what was used."""

    events: Sequence[tuple[str, bytes]]
    messages: frozenset[str]
    usage: Usage


def read_notes(rows: Iterable[tuple[str, bytes]]) -> Notes:
    """`rows` are task ids and texts, in the order in which they were saved."""
    events: list[tuple[str, bytes]] = []
    messages: set[str] = set()
    usages: dict[int, Usage] = {}
    for task_id, text in rows:
        frame = orjson.loads(text)
        if frame["event"] == NOTE:
            messages.update(frame["messages"])
            usages[frame["attempt"]] = frame["usage"]  # it grows within an attempt
        else:
            events.append((task_id, text))
    return Notes(events=events, messages=frozenset(messages), usage=total(usages.values()))


def total(usages: Iterable[Usage]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for usage in usages:
        for model, used in usage.items():
            found[model] = add_usage(found.get(model), used)
    return found
