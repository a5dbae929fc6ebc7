"""A thread's state, kept up to date by the frames of the stream mode `state`."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from runstream_client.error import PatchError
from runstream_client.frame import Frame, Operation


class StateMirror:
    """`value` is the state, None before the first frame. It is never changed in place. Give it every frame, in order.

    `is_stale`: a frame was too large to be sent, so the value is out of date: ask for the thread's state, or wait for
    the next run.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.is_stale = False
        self._has_snapshot = False

    def take(self, frame: Frame) -> bool:
        """Whether the frame changed the value. Raises PatchError for a patch without a snapshot before it."""
        if frame["event"] != "state":
            return False
        data = frame["data"]
        if "snapshot" in data:
            self.value, self.is_stale, self._has_snapshot = data["snapshot"], False, True
            return True
        self.is_stale = self.is_stale or "truncated" in frame
        if self.is_stale:
            return False
        if not self._has_snapshot:
            raise PatchError("A patch came before the snapshot: attach from the beginning.")
        self.value = apply_patch(self.value, data["patch"])
        return True


def apply_patch(document: Any, patch: Iterable[Operation]) -> Any:
    """The document after `add`, `replace` and `remove` operations (RFC 6902). The one that is given stays as it is.

    Raises PatchError.
    """
    return reduce(_apply, patch, document)


def _apply(document: Any, operation: Operation) -> Any:
    path = operation["path"]
    if path == "":
        return operation.get("value")
    if not path.startswith("/"):
        raise PatchError(f"{path!r} is not a JSON pointer.")
    keys = [key.replace("~1", "/").replace("~0", "~") for key in path[1:].split("/")]
    return _changed(document, keys, operation)


def _changed(node: Any, keys: Sequence[str], operation: Operation) -> Any:
    match node:
        case list():
            return _changed_list(node, keys, operation)
        case dict():
            return _changed_dict(node, keys, operation)
        case _:
            raise missing(operation)


def _changed_list(node: list[Any], keys: Sequence[str], operation: Operation) -> list[Any]:
    key, *below = keys
    adds = operation["op"] == "add" and not below
    index = len(node) if key == "-" and adds else index_of(key)
    if index is None or index >= len(node) + adds:
        raise missing(operation)
    if below:
        return [*node[:index], _changed(node[index], below, operation), *node[index + 1 :]]
    if operation["op"] == "remove":
        return [*node[:index], *node[index + 1 :]]
    return [*node[:index], operation["value"], *node[index if adds else index + 1 :]]


def _changed_dict(node: dict[str, Any], keys: Sequence[str], operation: Operation) -> dict[str, Any]:
    key, *below = keys
    if key not in node and (operation["op"] != "add" or below):
        raise missing(operation)
    if below:
        return {**node, key: _changed(node[key], below, operation)}
    if operation["op"] == "remove":
        return {name: value for name, value in node.items() if name != key}
    return {**node, key: operation["value"]}


def index_of(key: str) -> int | None:
    is_index = key.isascii() and key.isdigit() and (key == "0" or key[0] != "0")
    return int(key) if is_index else None


def missing(operation: Operation) -> PatchError:
    return PatchError(f"{operation['path']!r} does not exist.")
