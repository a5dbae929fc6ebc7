"""What a graph's registration lets clients see of it: enforced where events are made and states are read.

Whatever is left out here is in no frame, log, answer or mirror: no request can ask for it (wire contract, section 4).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        """The part of a state, or of an update of it, that may be seen."""
        if self.keys is None or not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if key in self.keys}

    def task(self, task: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A task of a checkpoint or debug payload, or of a state; None when its node is hidden."""
        if not self.shows(task["name"]):
            return None
        parts = {key: self.state(task[key]) for key in ("input", "result") if key in task}
        return {**task, **parts}

    def tasks(self, tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [shown for task in tasks if (shown := self.task(task)) is not None]


EVERYTHING = Exposure()
