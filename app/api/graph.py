"""/graphs: what is served, with schemas and drawings (wire contract, section 6)."""

import orjson
from fastapi import APIRouter, Response

from app.api.context import ContextDep
from app.api.example import PROBLEMS
from app.errors import GraphUnavailable

router = APIRouter(prefix="/graphs", tags=["graphs"], responses=PROBLEMS)


@router.get("")
async def list_graphs(context: ContextDep) -> Response:
    """All registered graphs; one that can't be served has an `error` and nothing else to show."""
    found = []
    for name in context.graphs.names:
        try:
            found.append(dict(await context.graphs.describe(name)))
        except GraphUnavailable as error:
            found.append({"name": name, "error": error.code})
    return Response(orjson.dumps({"graphs": found}), media_type="application/json")


@router.get("/{name}")
async def get_graph(name: str, context: ContextDep) -> Response:
    """A graph's schemas, nodes, edges and drawing (Mermaid)."""
    return Response(orjson.dumps(await context.graphs.describe(name)), media_type="application/json")
