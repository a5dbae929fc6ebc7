"""The frames of a run, as typed dicts. Compare `frame["event"]` and type checkers know the rest."""

from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict, TypeGuard

ENDS: Final = frozenset({"complete", "interrupt", "cancelled", "error"})

Json: TypeAlias = Any
Usage: TypeAlias = dict[str, dict[str, Any]] | None


class Interrupt(TypedDict):
    """A question that waits for an answer."""

    id: str
    value: Json
    node: str
    ns: list[str]
    response_schema: Json


class Operation(TypedDict):
    """A step of a JSON Patch (RFC 6902); `value` is not there in a `remove`."""

    op: Literal["add", "replace", "remove"]
    path: str
    value: NotRequired[Json]


class Common(TypedDict):
    """In every frame.

    `seq` is its place in its run's log: 1, 2, 3 and so on; a filtered or joined view skips numbers. `ns` is the path to
    its subgraph. With `truncated` it was too large to be sent: `data` is cut down, and the whole is in the state.
    """

    seq: int
    ns: NotRequired[list[str]]
    truncated: NotRequired[Literal[True]]
    state_url: NotRequired[str]


class StartFrame(Common):
    event: Literal["start"]
    run_id: str
    thread_id: str
    graph: str
    attempt: int


class NodeFrame(Common):
    """A node has ended; `data` is its update, with the newest message of it under `message`."""

    event: Literal["node"]
    node: str
    task_id: str
    data: dict[str, Json]


class Token(TypedDict):
    """`content` is the new text alone, `id` its message's.

    `block` is a content block that is no text, in LangChain's standard form; `annotations` are citations and the like;
    `parsed` is what a text that is JSON says so far, where `tokens.parsed` asks for it.
    """

    id: str
    content: str
    role: NotRequired[str]
    index: NotRequired[int | str]
    reasoning: NotRequired[str]
    block: NotRequired[dict[str, Json]]
    annotations: NotRequired[list[Json]]
    parsed: NotRequired[Json]
    last: NotRequired[Literal[True]]


class TokenFrame(Common):
    event: Literal["token"]
    node: str
    tags: NotRequired[list[str]]
    data: Token


class ToolCall(TypedDict):
    id: str
    name: str
    args: Json
    message_id: str


class ToolCallFrame(Common):
    event: Literal["tool_call"]
    node: str
    tags: NotRequired[list[str]]
    data: ToolCall


class ToolCallDelta(TypedDict):
    """`args` is a piece of the arguments' JSON text; `parsed` what they say so far, where `tokens.parsed` asks."""

    id: str
    name: str
    args: str
    message_id: str
    parsed: NotRequired[Json]


class ToolCallDeltaFrame(Common):
    event: Literal["tool_call_delta"]
    node: str
    tags: NotRequired[list[str]]
    data: ToolCallDelta


class ToolResult(TypedDict):
    id: str
    name: str
    content: Json
    status: str


class ToolResultFrame(Common):
    event: Literal["tool_result"]
    node: str
    data: ToolResult


class CustomFrame(Common):
    event: Literal["custom"]
    node: str
    data: Json


class Progress(TypedDict):
    current: float
    total: float | None
    percent: float | None
    rate: float | None
    eta_seconds: float | None
    message: str | None
    milestone: float | None


class ProgressFrame(Common):
    event: Literal["progress"]
    node: str
    data: Progress


class NodeStart(TypedDict):
    id: str
    step: int


class NodeStartFrame(Common):
    event: Literal["node_start"]
    node: str
    data: NodeStart


class LangGraphFrame(Common):
    """LangGraph's own parts of these modes."""

    event: Literal["values", "checkpoint", "debug"]
    data: dict[str, Json]


class StateStep(TypedDict, total=False):
    """One of the two."""

    snapshot: Json
    patch: list[Operation]


class StateFrame(Common):
    """A step of the state's mirror: see StateMirror."""

    event: Literal["state"]
    data: StateStep


class RestartFrame(Common):
    """The run goes on in another attempt; what was streamed of the messages in `discard` is void."""

    event: Literal["restart"]
    attempt: int
    discard: list[str]
    reason: Literal["crash", "deploy"]


class DiscardFrame(Common):
    """A node is tried again; what was streamed of the messages in `discard` is void."""

    event: Literal["discard"]
    node: str
    discard: list[str]
    reason: Literal["retry"]


class CompleteFrame(Common):
    event: Literal["complete"]
    status: Literal["success"]
    usage: Usage
    output: NotRequired[Json]


class InterruptFrame(Common):
    """The graph waits for a human; `interrupts` is empty at a breakpoint."""

    event: Literal["interrupt"]
    next: list[str]
    interrupts: list[Interrupt]
    usage: Usage


class CancelledFrame(Common):
    """`partial` is the text so far, by message id."""

    event: Literal["cancelled"]
    reason: Literal["user", "disconnect", "superseded"]
    partial: dict[str, str]
    usage: Usage


class ErrorFrame(Common):
    """`error` is a sentence that may be shown to anybody."""

    event: Literal["error"]
    error: str
    code: str
    node: NotRequired[str | None]
    run_id: str
    retryable: bool
    usage: Usage


EndFrame: TypeAlias = CompleteFrame | InterruptFrame | CancelledFrame | ErrorFrame
Frame: TypeAlias = (
    StartFrame
    | NodeFrame
    | TokenFrame
    | ToolCallFrame
    | ToolCallDeltaFrame
    | ToolResultFrame
    | CustomFrame
    | ProgressFrame
    | NodeStartFrame
    | LangGraphFrame
    | StateFrame
    | RestartFrame
    | DiscardFrame
    | CompleteFrame
    | InterruptFrame
    | CancelledFrame
    | ErrorFrame
)


def is_end(frame: Frame) -> TypeGuard[EndFrame]:
    """Whether the frame ends its run: exactly one does, its last."""
    return frame["event"] in ENDS
