"""/health, /ready, /metrics: for whoever keeps the process running."""

from typing import Any, Final

import orjson
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.context import Context, ContextDep
from app.api.example import Responses, problem_answer, problems
from app.api.problem import problem
from app.errors import StoreUnavailable

router = APIRouter(tags=["operations"])

METRICS: Final[Responses] = {
    200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health() -> dict[str, str]:
    """Alive: the event loop answers."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: problem_answer(503, ["not_ready"])})
async def ready(context: ContextDep) -> Response:
    """Whether runs are taken. Names the graphs that can't be served, which keeps no other from being served."""
    reason = await not_ready(context)
    graphs = dict(context.graphs.problems)
    if reason is not None:
        return problem(503, "not_ready", reason, {"graphs": graphs})
    body: dict[str, Any] = {"status": "ready", "graphs": graphs}
    return Response(orjson.dumps(body), media_type="application/json")


async def not_ready(context: Context) -> str | None:
    if context.is_draining:
        return "The server is about to stop."
    if not context.is_ready:
        return "The server is starting."
    try:
        await context.store.ping()
    except StoreUnavailable:
        return "The store can't be reached."
    return None


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response, responses=problems() | METRICS)
async def metrics(context: ContextDep) -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(context.metrics), media_type=CONTENT_TYPE_LATEST)
