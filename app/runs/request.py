"""What a client asks for, after its form was checked and before its meaning is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from app.runs.model import MultitaskStrategy, OnDisconnect

StreamMode = Literal["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug", "state"]
Durability = Literal["sync", "async", "exit"]
NodeNames = Sequence[str] | Literal["*"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NewInput:
    """New input for the graph: it begins at its start."""

    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Continue:
    """Go on with a thread that is paused at a breakpoint, was cancelled or failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """The chat shorthand: input, answer or addition, by what the thread waits for."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """The answer to an interrupt, or a map of answers by interrupt id."""

    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class LongForm:
    """LangGraph's Command: an answer, an edit of the state, a jump, together or alone."""

    has_resume: bool
    resume: Any = None
    update: Any = None
    goto: Any = None


Action = NewInput | Continue | Message | Resume | LongForm


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """The body of a start, with the names of the wire contract (section 1)."""

    owner: str
    action: Action
    fingerprint: str
    graph: str | None = None
    thread_id: str | None = None
    run_id: str | None = None
    idempotency_key: str | None = None
    use_hitl: bool = False
    interrupt_before: NodeNames = ()
    interrupt_after: NodeNames = ()
    stream_modes: tuple[StreamMode, ...] = ("updates", "messages", "custom")
    subgraphs: bool = False
    tokens: Mapping[str, Any] | None = None
    checkpoint_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    durability: Durability = "sync"
    multitask_strategy: MultitaskStrategy = "reject"
    on_disconnect: OnDisconnect = "cancel"
    if_not_exists: Literal["create", "reject"] = "create"
    on_interrupted: Literal["reject", "discard"] = "reject"
    timeout_seconds: float | None = None
    include_output: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for a run that waits for its turn."""
        return {**asdict(self), "action": [type(self.action).__name__, asdict(self.action)]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "RunRequest":
        """The request that `to_json` wrote."""
        kind, values = fields["action"]
        return cls(**{**fields, "action": ACTIONS[kind](**values), "stream_modes": tuple(fields["stream_modes"])})


ACTIONS: Final[Mapping[str, type[Action]]] = {
    kind.__name__: kind for kind in (NewInput, Continue, Message, Resume, LongForm)
}
