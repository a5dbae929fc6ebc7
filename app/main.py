"""The composition root: the only file that names concrete classes.

settings ─▶ store ──────────────┐
         ─▶ checkpoints ─▶ engine ─▶ executor ─▶ service ─▶ routes
         ─▶ registry ───────┘
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from starlette.middleware.cors import CORSMiddleware

from app.api import follow, graph, health, playground, run, thread, ws
from app.api.context import Context
from app.api.limit import BodyLimit
from app.api.problem import add_problem_handlers
from app.api.stream import Streams
from app.engine import require_strict_msgpack
from app.engine.checkpoints import Checkpoints, FileBackend, MemoryBackend, set_up
from app.engine.engine import GraphEngine
from app.engine.execution import ExecutionLimits
from app.engine.node_threads import NodeThreads, any_stuck, contain_exits
from app.engine.registry import Registry
from app.engine.thread_states import GraphThreadStates
from app.errors import ConfigInvalid
from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.service import RunService
from app.runs.store import Store
from app.runs.threads import ThreadService
from app.settings import Settings
from app.storage.memory import MemoryStore
from app.storage.sqlite import SqliteStore
from app.storage.writer import SqliteWriter

logger = logging.getLogger(__name__)

ALLOWED_HEADERS = (
    "content-type",
    "accept",
    "authorization",
    "x-api-key",
    "last-event-id",
    "idempotency-key",
    "cache-control",
)
EXPOSED_HEADERS = ("location", "content-location", "retry-after")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Nothing is opened before its lifespan starts; two of them can live in one process."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings) as context:
            app.state.context = context
            yield

    app = FastAPI(
        title="Runstream",
        version=version("runstream"),
        summary="LangGraph graphs over HTTP, streamed from one durable log.",
        lifespan=lifespan,
    )
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_timeout_seconds)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=list(ALLOWED_HEADERS),
            expose_headers=list(EXPOSED_HEADERS),
        )
    for module in (run, follow, thread, graph, health, playground, ws):
        app.include_router(module.router)
    return app


@asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[Context]:
    """Open everything, in order, and close it in the opposite one."""
    require_strict_msgpack()
    async with AsyncExitStack() as stack:
        threads = NodeThreads(settings.max_node_threads)
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        asyncio.get_running_loop().set_default_executor(threads)
        asyncio.get_running_loop().set_task_factory(contain_exits)  # type: ignore[arg-type]  # it takes `context`, too
        registry = await asyncio.to_thread(Registry.load, settings.config)
        store = await open_store(settings)
        stack.push_async_callback(store.aclose)
        checkpoints = await open_checkpoints(settings)
        stack.push_async_callback(checkpoints.aclose)
        context = compose(settings, registry, store, checkpoints)
        stack.push_async_callback(context.runs.drain)
        await context.graphs.check()
        await context.runs.take_up()
        context.is_ready = True
        yield context
        begin_drain(context)


def begin_drain(context: Context) -> None:
    """From now on: not ready, no new runs, and open streams are broken off, so that clients come back elsewhere.

    Where there is no elsewhere, since memory held it all, streams stay open for the ends of their runs.
    """
    context.is_draining = True
    context.runs.begin_drain()
    if context.runs.is_durable:
        context.streams.break_off()


def has_stuck_nodes() -> bool:
    """Whether a node still runs in its thread although everything is closed."""
    return any_stuck()


async def open_store(settings: Settings) -> Store:
    if settings.is_in_memory:
        return MemoryStore()
    if settings.database_url:
        raise ConfigInvalid(f"The database {settings.database_url.partition(':')[0]!r} is not supported yet.")
    return await SqliteStore.open(settings.data_dir, lease_seconds=settings.lease_seconds)


async def open_checkpoints(settings: Settings) -> Checkpoints:
    if settings.is_in_memory:
        return Checkpoints(MemoryBackend())
    path = settings.data_dir / "checkpoints.sqlite"
    return Checkpoints(FileBackend(path, await SqliteWriter.open(path, setup=set_up)))


def compose(settings: Settings, registry: Registry, store: Store, checkpoints: Checkpoints) -> Context:
    execution_limits = ExecutionLimits(
        max_recursion_limit=settings.max_recursion_limit,
        max_frame_bytes=settings.max_frame_bytes,
        expose_errors=settings.expose_errors,
    )
    executor_limits = ExecutorLimits(
        disconnect_grace_seconds=settings.disconnect_grace_seconds,
        max_timeout_seconds=settings.max_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
        stop_seconds=settings.stop_seconds,
        shutdown_grace_seconds=settings.shutdown_grace_seconds,
    )
    worker = str(uuid.uuid4())
    engine = GraphEngine(registry, checkpoints, execution_limits)
    executor = RunExecutor(store, engine, executor_limits, durable=not settings.is_in_memory)
    runs = RunService(store, engine, executor, worker=worker, max_concurrent_runs=settings.max_concurrent_runs)
    streams = Streams()
    return Context(
        runs=runs,
        threads=ThreadService(store, GraphThreadStates(engine, checkpoints), worker=worker),
        graphs=engine,
        store=store,
        streams=streams,
        heartbeat_seconds=settings.heartbeat_seconds,
        max_body_bytes=settings.max_body_bytes,
        allowed_origins=frozenset(settings.cors_origins),
        metrics=make_metrics(executor, streams),
    )


def make_metrics(executor: RunExecutor, streams: Streams) -> CollectorRegistry:
    registry = CollectorRegistry()
    active = Gauge("runstream_active_runs", "Runs that this process works on.", registry=registry)
    active.set_function(lambda: executor.active_count)
    open_streams = Gauge("runstream_open_streams", "Streams that are open.", registry=registry)
    open_streams.set_function(lambda: streams.count)
    return registry
