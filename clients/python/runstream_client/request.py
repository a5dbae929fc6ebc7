"""What is asked of the server: bodies, views, and requests as values."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict
from urllib.parse import quote

StreamMode: TypeAlias = Literal["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug", "state"]


class TokenPolicy(TypedDict, total=False):
    """How token frames are sent.

    `parsed`: beside JSON that is being written, what it says so far. `in_state`, in a start only: the mirror of the
    state carries the text, too.
    """

    flush: Literal["each"] | dict[Literal["count", "ms"], int]
    nodes: list[str]
    tags: list[str]
    exclude_tags: list[str]
    min_length: int
    exclude_whitespace: bool
    pattern: str
    parsed: bool
    in_state: bool


class RunBody(TypedDict, total=False):
    """What a start takes; the fields are told in docs/protocol.md."""

    graph: str
    thread_id: str
    input: Any
    message: str
    resume: Any
    command: dict[str, Any]
    use_hitl: bool
    interrupt_before: list[str] | Literal["*"]
    interrupt_after: list[str] | Literal["*"]
    stream_mode: StreamMode | list[StreamMode]
    subgraphs: bool
    tokens: TokenPolicy
    checkpoint_id: str
    config: dict[str, Any]
    context: Any
    metadata: dict[str, Any]
    durability: Literal["sync", "async", "exit"]
    run_id: str
    multitask_strategy: Literal["reject", "enqueue", "interrupt", "rollback"]
    on_disconnect: Literal["cancel", "continue"]
    if_not_exists: Literal["create", "reject"]
    on_interrupted: Literal["reject", "discard"]
    timeout_seconds: float
    include_output: bool


class View(TypedDict, total=False):
    """What one reader sees of a run; what is left out is as the run was started. `stream_mode`: fewer than recorded."""

    stream_mode: StreamMode | list[StreamMode]
    subgraphs: Literal[False]
    tokens: TokenPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When to come back: `retries` attempts in a row, after waits that double from `seconds` to `max_seconds`.

    A wait is up to a half shorter, at random. A stream without a byte for `silence_seconds` is given up and opened
    anew; that should be several heartbeats of the server.
    """

    retries: int = 10
    seconds: float = 0.25
    max_seconds: float = 10.0
    silence_seconds: float = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    method: Literal["GET", "POST"] = "GET"
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


def with_run_id(body: RunBody, idempotency_key: str | None) -> RunBody:
    """The body under a name of its own, so that it can be sent again."""
    if "run_id" in body or idempotency_key is not None:
        return body
    return {**body, "run_id": str(uuid.uuid4())}


def start_request(path: str, body: RunBody, idempotency_key: str | None) -> Request:
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    return Request(method="POST", path=path, headers=headers, body=body)


def cancel_request(run_id: str, *, wait: bool, keep_partial: bool) -> Request:
    query = {"wait": "true" if wait else "false"}
    return Request(
        method="POST", path=f"/runs/{quote(run_id, safe='')}/cancel", query=query, body={"keep_partial": keep_partial}
    )


def state_request(thread_id: str) -> Request:
    return Request(path=f"/threads/{quote(thread_id, safe='')}/state")


def query_of(view: View | None) -> dict[str, str]:
    query: dict[str, str] = {}
    if view is None:
        return query
    if "stream_mode" in view:
        modes = view["stream_mode"]
        query["stream_mode"] = modes if isinstance(modes, str) else ",".join(modes)
    if "subgraphs" in view:
        query["subgraphs"] = "false"
    if "tokens" in view:
        query["tokens"] = json.dumps(view["tokens"])
    return query
