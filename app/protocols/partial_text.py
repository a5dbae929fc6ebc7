"""What JSON text says before it is complete: of a tool's arguments, and of structured output."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

MAX_CHARACTERS: Final = 65_536  # of a text that is parsed, and four times that in all
MAX_CHARACTERS_IN_ALL: Final = 4 * MAX_CHARACTERS

# a text is parsed anew when it has grown by such a part: sent with each token, n tokens would be n squared
PARTS: Final = 64


class Key(NamedTuple):
    """Which text it is: a block of a message, or a tool call in it."""

    message_id: str
    place: Hashable
    is_call: bool = False


@dataclass(slots=True)
class _Text:
    pieces: list[str] = field(default_factory=list)
    characters: int = 0
    due_at: int = 1  # the length at which to parse it again
    is_given_up: bool = False  # it is no JSON, or too long


class PartialTexts:
    """The texts that are being written. Bounded, and the same for the same log, wherever a reader begins."""

    def __init__(self) -> None:
        self._messages: dict[str, dict[Key, _Text]] = {}
        self.characters = 0  # of all of them

    def add(self, key: Key, piece: str | None, *, is_last: bool = False) -> None:
        """Go on with a text; None is a piece that was too large to be sent."""
        text = self._messages.setdefault(key.message_id, {}).setdefault(key, _Text())
        if text.is_given_up:
            return
        if piece is None or self._is_too_much(text, piece) or (not text.characters and is_prose(piece)):
            self._give_up(text)
            return
        if not text.characters:
            piece = piece.lstrip()
        text.pieces.append(piece)
        text.characters += len(piece)
        self.characters += len(piece)
        if is_last:
            text.due_at = 1

    def shown(self, key: Key) -> Mapping[str, Any]:
        """`{"parsed": ...}`, what a text says so far; empty when that is nothing, or little more than before."""
        text = self._messages.get(key.message_id, {}).get(key)
        if text is None or text.is_given_up or text.characters < text.due_at:
            return {}
        text.due_at = text.characters + max(1, text.characters // PARTS)
        try:
            return {"parsed": from_json("".join(text.pieces), allow_partial="trailing-strings", allow_inf_nan=False)}
        except ValueError:
            return {}

    def forget(self, key: Key) -> None:
        """A text is complete, and shown as such."""
        texts = self._messages.get(key.message_id, {})
        if (text := texts.pop(key, None)) is not None:
            self._give_up(text)
        if not texts:
            self._messages.pop(key.message_id, None)

    def end(self, message_id: str) -> None:
        """A message has no more text; its calls may go on."""
        for key in [key for key in self._messages.get(message_id, {}) if not key.is_call]:
            self.forget(key)

    def void(self, message_id: str) -> None:
        """What was said of a message does not count."""
        for key in list(self._messages.get(message_id, {})):
            self.forget(key)

    def _is_too_much(self, text: _Text, piece: str) -> bool:
        return text.characters + len(piece) > MAX_CHARACTERS or self.characters + len(piece) > MAX_CHARACTERS_IN_ALL

    def _give_up(self, text: _Text) -> None:
        self.characters -= text.characters
        text.pieces, text.characters, text.is_given_up = [], 0, True


def is_prose(piece: str) -> bool:
    """Whether a text that begins so is neither an object nor a list."""
    begin = piece.lstrip()[:1]
    return begin not in ("", "{", "[")
