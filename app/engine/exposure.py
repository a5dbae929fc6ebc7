"""What a graph's registration lets clients see of it: enforced where events are made and states are read.

Whatever is left out here is in no frame, log, answer or mirror: no request can ask for it (wire contract, section 4).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pydantic import BaseModel

from app.engine.manifest import Registration


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """`nodes` and `keys` None: all of them."""

    nodes: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    hidden_tags: frozenset[str] = frozenset()

    @classmethod
    def of(cls, registration: Registration) -> "Exposure":
        return cls(nodes=registration.expose_nodes, keys=registration.expose_keys, hidden_tags=registration.hide_tags)

    def shows(self, node: str, ns: Sequence[str] = (), tags: Collection[str] = ()) -> bool:
        """Whether something that comes from a node may be seen; a subgraph is as visible as the node it runs in."""
        if self.hidden_tags and not self.hidden_tags.isdisjoint(tags):
            return False
        if self.nodes is None:
            return True
        outermost = ns[0].rpartition(":")[0] if ns else node
        return outermost in self.nodes

    def state(self, values: Any) -> Any:
        """The part of a state, of an update of it, or of a list of such updates, that may be seen.

        What has no keys (the argument of a Send, the output of an `@entrypoint`) may hold anything, so it is left out
        where there is a choice of keys.
        """
        if self.keys is None:
            return values
        if isinstance(values, list | tuple):
            return [self.state(value) for value in values]
        named = keys_of(values)
        return None if named is None else {key: value for key, value in named.items() if key in self.keys}

    def task(self, task: Mapping[str, Any], ns: Sequence[str] = ()) -> Mapping[str, Any] | None:
        """A task of a checkpoint or debug payload, or of a state; None when its node is hidden."""
        if not self.shows(task["name"], ns):
            return None
        parts = {key: self.state(task[key]) for key in ("input", "result") if key in task}
        return {**task, **parts}

    def tasks(self, tasks: Sequence[Mapping[str, Any]], ns: Sequence[str] = ()) -> list[Mapping[str, Any]]:
        return [shown for task in tasks if (shown := self.task(task, ns)) is not None]


def keys_of(values: Any) -> Mapping[str, Any] | None:
    """The keys of a state in one of the forms that a graph may have it in."""
    if isinstance(values, Mapping):
        return values
    if isinstance(values, BaseModel):
        return {name: getattr(values, name) for name in type(values).model_fields}
    if is_dataclass(values) and not isinstance(values, type):
        return {field.name: getattr(values, field.name) for field in fields(values)}
    return None


EVERYTHING = Exposure()
