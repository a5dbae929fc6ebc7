"""What /docs shows: bodies that run as they are on the example graphs, and answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from app import errors
from app.api.problem import MEDIA_TYPE as PROBLEM_TYPE
from app.api.problem import TITLES, status_of_kind
from app.protocols.sse import MEDIA_TYPE

STARTS: Final[dict[str, Any]] = {
    "chat": {"summary": "Say something", "value": {"graph": "chat", "message": "What is an event log?"}},
    "approval": {
        "summary": "A graph that asks a human",
        "value": {"graph": "approval", "thread_id": "trip", "message": "a walk to the lighthouse"},
    },
    "answer": {"summary": "Answer it", "value": {"thread_id": "trip", "resume": True}},
    "essay": {
        "summary": "Pause where the graph's registration says",
        "value": {"graph": "essay", "message": "tides", "use_hitl": True},
    },
}

Responses: TypeAlias = dict[int | str, dict[str, Any]]
Kinds: TypeAlias = Sequence[type[errors.RunstreamError]]

BODY: Final[Kinds] = (errors.Invalid, errors.UnsupportedMediaType, errors.BodyTooLarge, errors.BodyTimeout)
LOG: Final[Kinds] = (errors.RunNotFound, errors.EventIdAhead, errors.EventsExpired, errors.Invalid)
START: Final[Kinds] = (
    *BODY,
    *LOG,
    errors.BadEventId,
    errors.NotSupported,
    errors.GraphNotFound,
    errors.GraphMismatch,
    errors.GraphUnavailable,
    errors.ThreadNotFound,
    errors.ThreadBusy,
    errors.ThreadInterrupted,
    errors.CheckpointNotFound,
    errors.NothingToContinue,
    errors.NothingToResume,
    errors.UnknownInterrupt,
    errors.AmbiguousResume,
    errors.IdempotencyConflict,
    errors.TooManyRuns,
    errors.ShuttingDown,
)
EDIT: Final[Kinds] = (
    *BODY,
    errors.NotSupported,
    errors.ThreadNotFound,
    errors.ThreadBusy,
    errors.CheckpointNotFound,
    errors.GraphNotFound,
    errors.GraphMismatch,
    errors.GraphUnavailable,
)
STATE: Final[Kinds] = (
    errors.Invalid,
    errors.ThreadNotFound,
    errors.CheckpointNotFound,
    errors.GraphNotFound,
    errors.GraphUnavailable,
)
ANYWHERE: Final[Kinds] = (
    errors.HostNotAllowed,
    errors.Unauthorized,
    errors.Forbidden,
    errors.RateLimited,
    errors.AuthUnavailable,
    errors.StoreUnavailable,
    errors.RunstreamError,
)
HEADERS: Final[Mapping[int, str]] = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}


def problems(*kinds: type[errors.RunstreamError]) -> Responses:
    """The answers of an operation that may refuse in these ways, and in those of all operations."""
    codes: dict[int, list[str]] = {}
    for kind in dict.fromkeys((*kinds, *ANYWHERE)):
        codes.setdefault(status_of_kind(kind), []).append(kind.code)
    if 404 in codes:  # an id with a slash in it is another route's
        codes[404].append(errors.NotFound.code)
    return {status: problem_answer(status, found) for status, found in sorted(codes.items())}


def problem_answer(status: int, codes: Sequence[str]) -> dict[str, Any]:
    """A problem in the document, with the codes that it may have."""
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"const": status},
            "detail": {"type": "string"},
            "code": {"enum": list(codes)},
        },
    }
    answer: dict[str, Any] = {
        "description": f"{TITLES[status]}: {', '.join(codes)}.",
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }
    if name := HEADERS.get(status):
        answer["headers"] = {name: {"required": True, "schema": {"type": "string"}}}
    return answer


FRAMES: Final = (
    'data: {"event":"start","run_id":"0197e0b6-0000-7000-8000-000000000001","thread_id":"trip",'
    '"graph":"approval","attempt":1,"seq":1}\n\n'
)

# FastAPI leaves keys with null out of its document, so the examples of answers have none
RUN_ROW: Final[dict[str, Any]] = {
    "run_id": "0197e0b6-0000-7000-8000-000000000001",
    "thread_id": "trip",
    "graph": "approval",
    "status": "error",
    "attempt": 1,
    "created_at": "2026-11-21T10:00:00+00:00",
    "started_at": "2026-11-21T10:00:00+00:00",
    "finished_at": "2026-11-21T10:00:02+00:00",
    "usage": {"scripted": {"input_tokens": 6, "output_tokens": 30, "total_tokens": 36}},
    "error": {"code": "model_error", "message": "A model call failed."},
    "metadata": {},
    "last_seq": 40,
}


def body(model: type[BaseModel], examples: Mapping[str, Any] = STARTS, *, required: bool = True) -> dict[str, Any]:
    """The request body of a route that reads it by itself."""
    content = {"application/json": {"schema": inline(model), "examples": examples}}
    return {"requestBody": {"required": required, "content": content}}


def header(name: str, description: str, **limits: int) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **limits},
    }


IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key", "The same key with the same body makes one run.", minLength=1, maxLength=255
)
LAST_EVENT_ID: Final = header("Last-Event-ID", "Go on after this event, `<run_id>.<seq>`; nothing is started then.")


def start(model: type[BaseModel], headers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The request of a route that starts a run."""
    return {**body(model), "parameters": list(headers)}


def query(model: type[BaseModel], names: Sequence[str]) -> dict[str, Any]:
    """The parameters of a route that reads these fields of a model from its query by itself."""
    fields = inline(model)["properties"]
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": fields[name].get("description", ""),
            "schema": {key: value for key, value in fields[name].items() if key not in ("description", "default")},
        }
        for name in names
    ]
    return {"parameters": [*parameters, IDEMPOTENCY_KEY, LAST_EVENT_ID]}


def inline(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON schema without references, since the document's own components do not have them."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def json_answer(description: str, value: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": value}}}


NOTHING_LEFT: Final[Responses] = {204: {"description": "The run is over and the client has it all."}}


def frames(*kinds: type[errors.RunstreamError]) -> Responses:
    """The answers of an operation that streams."""
    content = {MEDIA_TYPE: {"schema": {"description": "Blocks of data: lines, each a frame."}, "example": FRAMES}}
    return {200: {"description": "Frames.", "content": content}, **problems(*kinds, errors.TooManyStreams)}


def outcome() -> Responses:
    """The answers of an invoke: a run that fails is an error, with the run's own code."""
    failed = ("graph_error", "model_error", "recursion_limit", "limit_exceeded", "invalid_update", "lost")
    refused = problems(*START, errors.TooManyStreams)
    return {
        200: json_answer(
            "The run's outcome.",
            {
                "run_id": RUN_ROW["run_id"],
                "thread_id": "trip",
                "status": "success",
                "output": {"messages": []},
                "interrupts": [],
                "next": [],
                "usage": RUN_ROW["usage"],
            },
        ),
        **refused,
        500: problem_answer(500, ["internal_error", *failed]),
        504: problem_answer(504, ["timeout", "idle_timeout"]),
    }


def run_row(*kinds: type[errors.RunstreamError]) -> Responses:
    return {200: json_answer("The run's row.", RUN_ROW), **problems(*kinds)}


def token(*kinds: type[errors.RunstreamError]) -> Responses:
    example = {"token": "eyJhbGciOi…", "expires_at": RUN_ROW["finished_at"], "run_id": "…"}
    return {200: json_answer("A token for one stream.", example), **problems(*kinds)}


LIST: Final[Responses] = {
    200: json_answer("Runs, newest first.", {"runs": [RUN_ROW], "next_cursor": "41"}),
    **problems(errors.Invalid),
}
EVENTS: Final[Responses] = {
    200: json_answer("A page of the log.", {"events": [], "next_after": 0, "closed": False}),
    **problems(*LOG, errors.TooManyStreams),
}
