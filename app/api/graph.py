"""/graphs: what is served, with schemas and drawings (wire contract, section 6)."""

import orjson
from fastapi import APIRouter, Response

from app.api.context import ContextDep
from app.api.example import problems
from app.errors import GraphNotFound, GraphUnavailable, Invalid

router = APIRouter(prefix="/graphs", tags=["graphs"])


@router.get("", responses=problems())
async def list_graphs(context: ContextDep) -> Response:
    """All registered graphs; one that can't be served has an `error` and nothing else to show."""
    found = []
    for name in context.graphs.names:
        try:
            found.append(dict(await context.graphs.describe(name)))
        except GraphUnavailable as error:
            found.append({"name": name, "error": error.code})
    return Response(orjson.dumps({"graphs": found}), media_type="application/json")


@router.get("/{name}", responses=problems(GraphNotFound, GraphUnavailable, Invalid))
async def get_graph(name: str, context: ContextDep) -> Response:
    """A graph's schemas, nodes, edges and drawing (Mermaid)."""
    return Response(orjson.dumps(await context.graphs.describe(name)), media_type="application/json")
