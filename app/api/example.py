"""What /docs shows: bodies that run as they are on the example graphs, and answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

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

PROBLEM: Final[dict[str, Any]] = {
    "description": "A problem (RFC 9457).",
    "content": {
        "application/problem+json": {
            "example": {
                "type": "urn:runstream:problem:thread_busy",
                "title": "Conflict",
                "status": 409,
                "detail": "Thread 'trip' is busy with another run.",
                "code": "thread_busy",
                "run_id": "0197e0b6-0000-7000-8000-000000000001",
            }
        }
    },
}

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


def body(model: type[BaseModel], examples: Mapping[str, Any] = STARTS) -> dict[str, Any]:
    """The request body of a route that reads it by itself."""
    content = {"application/json": {"schema": inline(model), "examples": examples}}
    return {"requestBody": {"required": False, "content": content}}


def header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


IDEMPOTENCY_KEY: Final = header("Idempotency-Key", "The same key with the same body makes one run.")
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


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": PROBLEM, "5XX": PROBLEM}
STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Frames.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": FRAMES}}},
    204: {"description": "The run is over and the client has it all."},
    **PROBLEMS,
}
INVOKE: Final[dict[int | str, dict[str, Any]]] = {
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
    **PROBLEMS,
}
RUN: Final[dict[int | str, dict[str, Any]]] = {200: json_answer("The run's row.", RUN_ROW), **PROBLEMS}
LIST: Final[dict[int | str, dict[str, Any]]] = {
    200: json_answer("Runs, newest first.", {"runs": [RUN_ROW], "next_cursor": "41"}),
    **PROBLEMS,
}
EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: json_answer("A page of the log.", {"events": [], "next_after": 0, "closed": False}),
    **PROBLEMS,
}
