"""What the calls without a stream give."""

from typing import Any, Literal, TypedDict

from runstream_client.frame import Interrupt, Usage


class InvokeResult(TypedDict):
    run_id: str
    thread_id: str
    status: Literal["success", "interrupted", "cancelled"]
    output: Any
    interrupts: list[Interrupt]
    next: list[str]
    usage: Usage


class RunFailure(TypedDict):
    code: str
    message: str


class Run(TypedDict):
    run_id: str
    thread_id: str
    graph: str
    status: Literal["pending", "running", "success", "interrupted", "cancelled", "error", "timeout"]
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    usage: Usage
    error: RunFailure | None
    metadata: dict[str, Any]
    last_seq: int


class ThreadState(TypedDict):
    """LangGraph's state of a thread."""

    values: Any
    next: list[str]
    interrupts: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    metadata: dict[str, Any]
    created_at: str | None
    checkpoint: dict[str, Any]
    parent_checkpoint: dict[str, Any] | None
