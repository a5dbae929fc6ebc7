"""What the routes need, held by the app's state and given to them as dependencies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from app.api.access import Access, Door
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
    access: Door
    heartbeat_seconds: float
    max_body_bytes: int
    allowed_origins: frozenset[str]
    metrics: Any = None
    refused: Callable[[str], None] = lambda code: None  # told the code of each problem
    is_ready: bool = False
    is_draining: bool = False


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def access_of(request: Request) -> Access:
    """Who asks; AccessControl has found out."""
    access: Access = request.state.access
    return access


def owner_of(request: Request) -> str:
    """Whose threads and runs a request is about."""
    return access_of(request).identity.owner


# a dependency that is not `async` would cost a thread's turn for each request
async def get_context(request: Request) -> Context:
    return context_of(request)


async def get_access(request: Request) -> Access:
    return access_of(request)


async def get_owner(request: Request) -> str:
    return owner_of(request)


ContextDep = Annotated[Context, Depends(get_context)]
AccessDep = Annotated[Access, Depends(get_access)]
OwnerDep = Annotated[str, Depends(get_owner)]
