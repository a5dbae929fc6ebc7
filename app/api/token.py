"""Stream tokens: a page asks for one with its key, and gives it to its EventSource as `?token=` (docs/security.md)."""

import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api import example
from app.api.access import Access
from app.api.body import RunId, ThreadId, parse, read_object
from app.api.context import AccessDep, Context, ContextDep, OwnerDep
from app.errors import Invalid, RunNotFound, ThreadNotFound

router = APIRouter(tags=["tokens"])


class StartTokenBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    run_id: RunId | None = Field(None, description="The run that may be started with it. Left out: a new UUID.")


@router.post(
    "/runs/token",
    openapi_extra=example.body(StartTokenBody, {}, required=False),
    responses=example.token(*example.BODY),
)
async def start_token(request: Request, context: ContextDep, access: AccessDep) -> Response:
    """A token for `GET /runs/stream` with this `run_id`: it starts that run and no other."""
    body = parse(StartTokenBody, await read_object(request) if await request.body() else {})
    run_id = (body.run_id or str(uuid.uuid4())).lower()
    return issued(context, access, f"start:{run_id}", run_id=run_id)


@router.post("/runs/{run_id}/token", responses=example.token(RunNotFound, Invalid))
async def run_token(run_id: str, context: ContextDep, access: AccessDep, owner: OwnerDep) -> Response:
    """A token for `GET /runs/{run_id}/stream`."""
    run = await context.runs.get(owner, run_id)
    return issued(context, access, f"run:{run.run_id}", run_id=run.run_id)


@router.post("/threads/{thread_id}/token", responses=example.token(ThreadNotFound, Invalid))
async def thread_token(thread_id: ThreadId, context: ContextDep, access: AccessDep, owner: OwnerDep) -> Response:
    """A token for `GET /threads/{thread_id}/runs/stream`."""
    await context.threads.get(owner, thread_id)
    return issued(context, access, f"thread:{thread_id}", thread_id=thread_id)


def issued(context: Context, access: Access, stream: str, **about: Any) -> Response:
    made = context.access.stream_tokens.issue(access.identity, stream)
    body = {"token": made.token, "expires_at": datetime.fromtimestamp(made.expires_at, UTC), **about}
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": "no-store"})
