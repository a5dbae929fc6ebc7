"""/threads: LangGraph's own calls, in its own JSON, so that its SDKs and UIs find what they know (wire contract, 6)."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from app.api.body import JsonObject, ThreadId, parse, read_object
from app.api.context import Context, ContextDep, OwnerDep
from app.api.example import PROBLEMS, inline, json_answer
from app.errors import NotSupported
from app.runs.model import Thread, ThreadStatus
from app.runs.store import ThreadQuery
from app.runs.threads import NEWEST, Edit, Head, HistoryQuery, NewThread, Place, Update

router = APIRouter(prefix="/threads", tags=["threads"], responses=PROBLEMS)

HIDDEN: Final = "runstream_"  # keys of metadata that are the server's own
PATH_PART: Final = re.compile(r"([^.\[\]]+)|\[(-?\d{1,9})\]")

CheckpointId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=255)]
ThreadField: TypeAlias = Literal[
    "thread_id", "created_at", "updated_at", "metadata", "config", "context", "status", "values", "interrupts", "error"
]
STATE_FIELDS: Final = "values|next|tasks|checkpoint|metadata|created_at|parent_checkpoint|interrupts"
StateField: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^({STATE_FIELDS}|values\..+)$")]
ExtractPath: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^(values|metadata|interrupts)(\.[^.\[\]]+|\[-?\d{1,9}\])*$")
]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=1000)]


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
    offset: Annotated[int, Field(ge=0, lt=2**63)] = 0
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
        return self.select is None or not {"values", "interrupts"}.isdisjoint(roots.union(self.select))


class CheckpointBody(BaseModel):
    checkpoint_id: CheckpointId | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, str] | None = None

    def to_place(self) -> Place:
        return Place(id=self.checkpoint_id, ns=self.checkpoint_ns or "", map=self.checkpoint_map)


class StateBody(BaseModel):
    checkpoint: CheckpointBody = Field(description="Which state; a subgraph's by its checkpoint_ns.")
    subgraphs: bool = Field(False, description="Give the states of subgraphs with their tasks.")
    select: list[StateField] | None = None


class EditBody(UpdateBody):
    checkpoint: CheckpointBody | None = Field(None, description="Branch off here; a subgraph's by its checkpoint_ns.")
    checkpoint_id: CheckpointId | None = Field(None, description="The same, by the id alone.")
    graph: str | None = Field(None, description="For a thread that has no graph yet.")

    def to_edit(self) -> Edit:
        at = self.checkpoint.to_place() if self.checkpoint else Place(id=self.checkpoint_id)
        return Edit(supersteps=[[self.to_update()]], at=at, graph=self.graph)


class Configured(BaseModel):
    configurable: "Before"


class Before(BaseModel):
    checkpoint_id: CheckpointId


class HistoryBody(BaseModel):
    limit: Limit = 10
    before: CheckpointId | Before | Configured | None = Field(None, description="A checkpoint, or its id.")
    metadata: JsonObject | None = Field(None, description="Contained in the checkpoint's own.")
    checkpoint: CheckpointBody | None = Field(None, description="The history of a subgraph, by its checkpoint_ns.")
    select: list[StateField] | None = None

    def to_query(self) -> HistoryQuery:
        ns = (self.checkpoint.checkpoint_ns if self.checkpoint else None) or ""
        return HistoryQuery(limit=self.limit, before=self._before(), metadata=self.metadata or {}, ns=ns)

    def _before(self) -> str | None:
        match self.before:
            case Configured(configurable=Before(checkpoint_id=found)) | Before(checkpoint_id=found):
                return found
            case found:
                return found


def takes(model: type[BaseModel], value: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": inline(model), "example": value}}
    return {"requestBody": {"required": False, "content": content}}
