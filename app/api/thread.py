"""/threads: LangGraph's own calls, in its own JSON, so that its SDKs and UIs find what they know (wire contract, 6)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StringConstraints

from app.api.body import JsonObject, ThreadId, parse, read_object
from app.api.context import Context, ContextDep, OwnerDep
from app.api.example import BODY, EDIT, STATE, Responses, inline, problems
from app.errors import Invalid, NotSupported, ThreadBusy, ThreadExists, ThreadNotFound
from app.runs.model import Thread, ThreadStatus
from app.runs.store import ThreadQuery
from app.runs.threads import NEWEST, Edit, Head, HistoryQuery, NewThread, Place, Update

router = APIRouter(prefix="/threads", tags=["threads"])

MINIMAL: Final[Responses] = {204: {"description": "Done, for a client that prefers a minimal answer."}}
HIDDEN: Final = "runstream_"  # keys of metadata that are the server's own
PATH_PART: Final = re.compile(r"([^.\[\]]+)|\[(-?\d{1,9})\]")

CheckpointId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=255)]
ThreadField: TypeAlias = Literal[
    "thread_id", "created_at", "updated_at", "metadata", "config", "context", "status", "values", "interrupts", "error"
]
STATE_FIELD: Final = r"^(values|next|tasks|checkpoint|metadata|created_at|parent_checkpoint|interrupts|values\..+)$"
StateField: TypeAlias = Annotated[str, StringConstraints(pattern=STATE_FIELD)]
EXTRACT_PATH: Final = r"^(values|metadata|interrupts)(\.[^.\[\]]+|\[-?\d{1,9}\])*$"
ExtractPath: TypeAlias = Annotated[str, StringConstraints(pattern=EXTRACT_PATH)]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=1000, strict=True)]


class UpdateBody(BaseModel):
    values: Any = Field(None, description="What the node would have returned; it goes through the reducers.")
    as_node: str | None = Field(None, description="As if this node had made it. Left out: the last one that ran.")
    command: JsonObject | None = Field(None, description="{update, goto}, instead of values.")

    def to_update(self) -> Update:
        return Update(values=self.values, as_node=self.as_node, command=self.command)


class SuperstepBody(BaseModel):
    updates: Annotated[list[UpdateBody], Field(min_length=1)]


class CreateBody(BaseModel):
    thread_id: ThreadId | None = Field(None, description="Left out: a new UUID.")
    metadata: JsonObject | None = Field(None, description="`graph_id` in it names the thread's graph.")
    if_exists: Literal["raise", "do_nothing"] | None = Field(None, description="raise (the default) is a 409.")
    graph: str | None = Field(None, description="The thread's graph. Left out: that of its first run.")
    supersteps: list[SuperstepBody] | None = Field(None, description="Updates that make the thread's first state.")


class PatchBody(BaseModel):
    metadata: JsonObject | None = Field(None, description="Merged into the thread's own, key by key.")


class CountBody(BaseModel):
    metadata: JsonObject | None = Field(None, description="Contained in the thread's own, key by key.")
    values: JsonObject | None = Field(None, description="Not supported.")
    status: ThreadStatus | None = None
    ids: list[str] | None = None

    def to_query(self, owner: str, **more: Any) -> ThreadQuery:
        if self.values:
            raise NotSupported("Threads are not searched by the values of their states.", loc=("body", "values"))
        return ThreadQuery(owner=owner, status=self.status, metadata=self.metadata, ids=self.ids, **more)


class SearchBody(CountBody):
    limit: Limit = 10
    offset: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[ThreadField] | None = Field(None, description="Only these fields.")
    extract: Annotated[dict[str, ExtractPath], Field(max_length=10)] | None = Field(
        None, description='Values by path, under `extracted`: {"last": "values.messages[-1]"}.'
    )

    def page(self, owner: str) -> ThreadQuery:
        sort_by = (self.sort_by or "created_at").removeprefix("state_")
        descending = self.sort_order != "asc"
        return self.to_query(owner, sort_by=sort_by, descending=descending, limit=self.limit, offset=self.offset)

    @property
    def needs_state(self) -> bool:
        roots = {PATH_PART.split(path)[1] for path in (self.extract or {}).values()}
        return not self.select or not {"values", "interrupts"}.isdisjoint(roots.union(self.select))


class CheckpointBody(BaseModel):
    checkpoint_id: CheckpointId | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, str] | None = None

    def to_place(self) -> Place:
        return Place(id=self.checkpoint_id, ns=self.checkpoint_ns or "", map=self.checkpoint_map)


class StateBody(BaseModel):
    checkpoint: CheckpointBody = Field(description="Which state; a subgraph's by its checkpoint_ns.")
    subgraphs: StrictBool = Field(False, description="Give the states of subgraphs with their tasks.")
    select: list[StateField] | None = None


class EditBody(UpdateBody):
    checkpoint: CheckpointBody | None = Field(None, description="Branch off here; a subgraph's by its checkpoint_ns.")
    checkpoint_id: CheckpointId | None = Field(None, description="The same, by the id alone.")
    graph: str | None = Field(None, description="For a thread that has no graph yet.")

    def to_edit(self) -> Edit:
        at = self.checkpoint.to_place() if self.checkpoint else NEWEST
        at = replace(at, id=at.id or self.checkpoint_id)
        return Edit(supersteps=[[self.to_update()]], at=at, graph=self.graph)


def checkpoint_id_of(value: Any) -> Any:
    """The id in a checkpoint, or in a config that names one."""
    if isinstance(value, dict):
        value = value.get("configurable", value)
    return value.get("checkpoint_id", "") if isinstance(value, dict) else value


class HistoryBody(BaseModel):
    limit: Limit = 10
    before: Annotated[CheckpointId | None, BeforeValidator(checkpoint_id_of)] = Field(
        None, description="Only those older than this checkpoint: its id, or {checkpoint_id}."
    )
    metadata: JsonObject | None = Field(None, description="Contained in the checkpoint's own.")
    checkpoint: CheckpointBody | None = Field(None, description="The history of a subgraph, by its checkpoint_ns.")
    select: list[StateField] | None = None

    def to_query(self) -> HistoryQuery:
        ns = (self.checkpoint.checkpoint_ns if self.checkpoint else None) or ""
        return HistoryQuery(limit=self.limit, before=self.before, metadata=self.metadata or {}, ns=ns)


def takes(model: type[BaseModel], value: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": inline(model), "example": value}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "",
    openapi_extra=takes(CreateBody, {"thread_id": "trip", "metadata": {"title": "A walk"}}),
    responses=problems(*EDIT, ThreadExists),
)
async def create_thread(request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """Make a thread. One is also made by the first run that names it."""
    body = parse(CreateBody, await read_object(request))
    new = NewThread(
        owner=owner,
        thread_id=body.thread_id,
        metadata=body.metadata or {},
        graph=body.graph,
        if_exists=body.if_exists or "raise",
        supersteps=[[update.to_update() for update in step.updates] for step in body.supersteps or ()],
    )
    return await thread_response(context, await context.threads.create(new))


@router.post(
    "/search",
    openapi_extra=takes(SearchBody, {"status": "interrupted", "limit": 10}),
    responses=problems(*BODY, NotSupported),
)
async def search_threads(request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """Threads, the newest first unless `sort_by` and `sort_order` say otherwise."""
    body = parse(SearchBody, await read_object(request))
    threads = await context.threads.search(body.page(owner))
    heads = await context.threads.heads(threads) if body.needs_state else {}
    rows = [thread_json(thread, heads.get(thread.thread_id)) for thread in threads]
    return respond([chosen_row(row, body) for row in rows])


@router.post(
    "/count",
    openapi_extra=takes(CountBody, {"status": "interrupted"}),
    responses=problems(*BODY, NotSupported),
)
async def count_threads(request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """How many threads there are, as a bare number."""
    body = parse(CountBody, await read_object(request))
    return respond(await context.threads.count(body.to_query(owner)))


@router.get("/{thread_id}", responses=problems(ThreadNotFound, Invalid))
async def get_thread(thread_id: ThreadId, context: ContextDep, owner: OwnerDep) -> Response:
    """A thread, with the values and the pending interrupts of its newest state."""
    return await thread_response(context, await context.threads.get(owner, thread_id))


@router.patch(
    "/{thread_id}",
    openapi_extra=takes(PatchBody, {"metadata": {"title": "A longer walk"}}),
    responses=MINIMAL | problems(*BODY, ThreadNotFound),
)
async def update_thread(thread_id: ThreadId, request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """Merge into a thread's metadata. With `Prefer: return=minimal` the answer is empty."""
    body = parse(PatchBody, await read_object(request))
    thread = await context.threads.update(owner, thread_id, body.metadata or {})
    if "return=minimal" in request.headers.get("prefer", ""):
        return Response(status_code=204)
    return await thread_response(context, thread)


@router.delete("/{thread_id}", status_code=204, responses=problems(ThreadNotFound, ThreadBusy, Invalid))
async def delete_thread(thread_id: ThreadId, context: ContextDep, owner: OwnerDep) -> Response:
    """Delete a thread, its state and its runs. 409 `thread_busy` while one of them works."""
    await context.threads.delete(owner, thread_id)
    return Response(status_code=204)


@router.post("/{thread_id}/copy", responses=problems(ThreadNotFound, ThreadExists, Invalid))
async def copy_thread(thread_id: ThreadId, context: ContextDep, owner: OwnerDep) -> Response:
    """Another thread with the same metadata and all checkpoints."""
    return await thread_response(context, await context.threads.copy(owner, thread_id))


Subgraphs: TypeAlias = Annotated[bool, Query(description="Give the states of subgraphs with their tasks.")]
Select: TypeAlias = Annotated[list[StateField] | None, Query(description="Only these; `values.<key>` for one key.")]


@router.get("/{thread_id}/state", responses=problems(*STATE))
async def get_state(
    thread_id: ThreadId, context: ContextDep, owner: OwnerDep, subgraphs: Subgraphs = False, select: Select = None
) -> Response:
    """The newest state. The text of an exception is never in it."""
    return respond(chosen(await context.threads.state(owner, thread_id, NEWEST, subgraphs=subgraphs), select))


@router.get("/{thread_id}/state/{checkpoint_id}", responses=problems(*STATE))
async def get_state_at(
    thread_id: ThreadId,
    checkpoint_id: CheckpointId,
    context: ContextDep,
    owner: OwnerDep,
    subgraphs: Subgraphs = False,
    select: Select = None,
) -> Response:
    """The state at a checkpoint."""
    at = Place(id=checkpoint_id)
    return respond(chosen(await context.threads.state(owner, thread_id, at, subgraphs=subgraphs), select))


@router.post(
    "/{thread_id}/state/checkpoint",
    openapi_extra=takes(StateBody, {"checkpoint": {"checkpoint_ns": ""}}),
    responses=problems(*STATE, *BODY),
)
async def post_state_at(thread_id: ThreadId, request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """The state at a checkpoint, of a subgraph too."""
    body = parse(StateBody, await read_object(request))
    at = body.checkpoint.to_place()
    return respond(chosen(await context.threads.state(owner, thread_id, at, subgraphs=body.subgraphs), body.select))


@router.post(
    "/{thread_id}/state",
    openapi_extra=takes(EditBody, {"values": {"plan": "Take the ferry."}}),
    responses=problems(*EDIT),
)
async def update_state(thread_id: ThreadId, request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """Edit the state; with a checkpoint, branch off there. A paused thread stays paused."""
    body = parse(EditBody, await read_object(request))
    made = await context.threads.update_state(owner, thread_id, body.to_edit())
    return respond({"checkpoint": made, "configurable": made, "checkpoint_id": made["checkpoint_id"]})


@router.get("/{thread_id}/history", responses=problems(*STATE))
async def get_history(
    thread_id: ThreadId,
    context: ContextDep,
    owner: OwnerDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    before: Annotated[CheckpointId | None, Query(description="Only those older than this checkpoint.")] = None,
) -> Response:
    """The thread's checkpoints, newest first."""
    return respond(await context.threads.history(owner, thread_id, HistoryQuery(limit=limit, before=before)))


@router.post("/{thread_id}/history", openapi_extra=takes(HistoryBody, {"limit": 10}), responses=problems(*STATE, *BODY))
async def post_history(thread_id: ThreadId, request: Request, context: ContextDep, owner: OwnerDep) -> Response:
    """The thread's checkpoints, newest first; of a subgraph too, and by their metadata."""
    body = parse(HistoryBody, await read_object(request))
    states = await context.threads.history(owner, thread_id, body.to_query())
    return respond([chosen(state, body.select) for state in states])


def respond(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


async def thread_response(context: Context, thread: Thread) -> Response:
    heads = await context.threads.heads([thread])
    return respond(thread_json(thread, heads.get(thread.thread_id)))


def thread_json(thread: Thread, head: Head | None) -> dict[str, Any]:
    """A thread as LangGraph's API gives it; without a state its values are null."""
    return {
        "thread_id": thread.thread_id,
        "created_at": thread.created_at,
        "updated_at": thread.updated_at,
        "metadata": {key: value for key, value in thread.metadata.items() if not key.startswith(HIDDEN)},
        "status": thread.status,
        "config": {},
        "values": head.values if head else None,
        "interrupts": head.interrupts if head else {},
        "error": None,
    }


def chosen_row(row: Mapping[str, Any], body: SearchBody) -> dict[str, Any]:
    """A thread with the fields that a search asks for."""
    kept = {name: value for name, value in row.items() if not body.select or name in body.select}
    if body.extract:
        kept["extracted"] = {alias: extracted(row, path) for alias, path in body.extract.items()}
    return kept


def extracted(value: Any, path: str) -> Any:
    """What is at a path such as `values.messages[-1].content`; None where there is nothing."""
    for key, index in PATH_PART.findall(path):
        try:
            value = value[int(index)] if index else value[key]
        except (LookupError, TypeError):
            return None
    return value


def chosen(state: Mapping[str, Any], select: Sequence[str] | None) -> Mapping[str, Any]:
    """A state with the fields asked for, `values.<key>` among them."""
    if not select:
        return state
    kept = {name: value for name, value in state.items() if name in select}
    keys = {name.removeprefix("values.") for name in select if name.startswith("values.")}
    if keys and "values" not in kept and isinstance(state["values"], dict):
        kept["values"] = {key: value for key, value in state["values"].items() if key in keys}
    return kept
