"""What the routes need, held by the app's state and given to them as dependencies."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from app.api.stream import Streams
from app.runs.engine import GraphCatalog
from app.runs.service import RunService
from app.runs.store import Store
from app.runs.threads import ThreadService


@dataclass(kw_only=True)
class Context:
    """Everything that the API was given by the composition root."""

    runs: RunService
    threads: ThreadService
    graphs: GraphCatalog
    store: Store
    streams: Streams
    heartbeat_seconds: float
    max_body_bytes: int
    allowed_origins: frozenset[str]
    metrics: Any = None
    is_ready: bool = False
    is_draining: bool = False


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def get_owner(request: Request) -> str:
    """Whose threads and runs a request is about; nobody's in particular as long as there is no authentication."""
    return ""


ContextDep = Annotated[Context, Depends(get_context)]
OwnerDep = Annotated[str, Depends(get_owner)]
