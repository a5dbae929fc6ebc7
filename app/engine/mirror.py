"""A mirror of a thread's state as JSON Patches: the `state` stream mode (wire contract, section 5).

The patches come from the values after each step, never from nodes' updates: what reducers make of an update, only the
graph knows. They are `add`, `replace` and `remove` of RFC 6902, since immer's `applyPatches` knows no others.
"""

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonpatch
from jsonpointer import JsonPointer

from app.engine.jsonable import jsonable

STREAMING: Final = "streaming"
STREAMING_SECONDS: Final = 0.05  # RFC 6902 can't append to a string: each patch repeats the text so far (fact 42)

Patch = list[dict[str, Any]]


def diff(old: Any, new: Any) -> Patch:
    """The operations that make `new` of `old`, both plain JSON; only `add`, `replace` and `remove`."""
    operations: Patch = jsonpatch.make_patch(old, new).patch
    if all(operation["op"] != "move" for operation in operations):
        return operations
    return without_moves(old, operations)


def without_moves(document: Any, operations: Patch) -> Patch:
    """A move is a remove and an add of what was removed (RFC 6902, section 4.4)."""
    # one copy, which the steps change in place: a copy a step would take minutes where a long list is sorted anew
    document, plain = copy.deepcopy(document), Patch()
    for operation in operations:
        steps = [operation]
        if operation["op"] == "move":
            value = JsonPointer(operation["from"]).resolve(document)
            steps = [
                {"op": "remove", "path": operation["from"]},
                {"op": "add", "path": operation["path"], "value": value},
            ]
        # what the patch holds must not change with the document
        plain.extend(copy.deepcopy(steps))
        document = jsonpatch.apply_patch(document, steps, in_place=True)
    return plain


class StateMirror:
    """The writing end of a mirror: emits a snapshot first, then patches; `data` of the `state` events."""

    def __init__(
        self,
        emit: Callable[[Mapping[str, Any]], None],
        *,
        in_state: bool,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`later(seconds, action)` calls the action in so many seconds, in the loop's own thread."""
        self._emit = emit
        self._in_state = in_state
        self._clock = clock
        self._later = later
        self._is_waiting = False  # what was said last is shown later
        self._text: Callable[[], str] = str
        self._values: Any = None
        self._has_snapshot = False
        self._streaming: dict[str, Any] | None = None
        self._shown_streaming: dict[str, Any] | None = None
        self._shown_at = -STREAMING_SECONDS
        self._counts: dict[str, int] = {}  # tokens by message: parallel nodes speak in turns

    def values(self, values: Any) -> None:
        """The state's values after a step. A key of its own called `streaming` wins over the mirror's."""
        new = jsonable(values)
        if isinstance(new, dict) and STREAMING in new:
            self._in_state, self._streaming, self._shown_streaming = False, None, None
        if not self._has_snapshot:
            self._has_snapshot = True
            self._values = new
            self._emit({"snapshot": new})
            return
        patch = diff(self._values, new)
        self._values = new
        if patch:
            self._emit({"patch": patch})

    def token(self, node: str, message_id: str, text: Callable[[], str], token: str) -> None:
        """A model spoke; `text` gives the message so far. Its first token is shown at once, the others soon."""
        if not self._in_state:
            return
        current = self._current(node, message_id)
        self._counts[message_id] = self._counts.get(message_id, 0) + 1
        current["token_count"], current["last_token"], self._text = self._counts[message_id], token, text
        wait = self._shown_at + STREAMING_SECONDS - self._clock()
        if wait <= 0 or self._counts[message_id] == 1:
            self._show_text()
        elif not self._is_waiting:
            self._is_waiting = True
            self._later(wait, self._show_later)

    def _show_later(self) -> None:
        self._is_waiting = False
        self._show_text()

    def _show_text(self) -> None:
        if self._streaming is not None and self._streaming["message_id"] is not None:
            self._streaming["partial"] = self._text()
            self._show()

    def spoken(self, message_id: str, text: str) -> None:
        """A message is over: this is all of it."""
        if self._streaming is not None and self._streaming["message_id"] == message_id:
            self._streaming["partial"] = text
            self._show()

    def progress(self, node: str, data: Mapping[str, Any]) -> None:
        if not self._in_state:
            return
        current = self._streaming if self._streaming is not None else self._current(node, None)
        current["progress"] = jsonable(data)
        self._show()

    def _current(self, node: str, message_id: str | None) -> dict[str, Any]:
        """What is shown of a message; progress stays with its node."""
        current = self._streaming
        if current is None or current["message_id"] != message_id:
            progress = current["progress"] if current is not None and current["node"] == node else None
            said = {"message_id": message_id, "partial": "", "last_token": "", "token_count": 0}
            current = self._streaming = {"node": node, **said, "progress": progress}
        return current

    def close(self, values: Any) -> None:
        """The run ends with these values: the mirror is exactly them, without `streaming`."""
        self.values(values)
        self._streaming = None
        self._show()

    def _show(self) -> None:
        """Bring `streaming` up to date: as one more key of the document, which the state's own patches leave alone."""
        if not self._has_snapshot or not isinstance(self._values, dict):
            return
        old, new = self._shown_streaming, self._streaming
        self._shown_streaming, self._shown_at = copy.deepcopy(new), self._clock()
        before = {} if old is None else {STREAMING: old}
        after = {} if new is None else {STREAMING: new}
        patch = diff(before, after)
        if patch:
            self._emit({"patch": patch})
