"""The composition root: the only file that names concrete classes.

settings ─▶ store ──────────────┐
         ─▶ checkpoints ─▶ engine ─▶ executor ─▶ service ─▶ routes
         ─▶ registry ───────┘
"""

import asyncio
import importlib
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio
from fastapi import FastAPI
from opentelemetry.trace import TracerProvider, get_tracer_provider
from starlette.middleware.cors import CORSMiddleware

from app.api import follow, graph, health, page, run, thread, token, ws
from app.api.access import AccessControl, Door
from app.api.context import Context
from app.api.host import HostCheck
from app.api.limit import BodyLimit
from app.api.problem import add_problem_handlers
from app.api.stream import StreamHost, StreamLimits, Streams
from app.auth.authenticator import Authenticator
from app.auth.rate import RateLimit
from app.auth.stream_token import SECRET_BYTES, StreamTokens, kept_secret
from app.engine import require_strict_msgpack
from app.engine.checkpoints import Checkpoints, FileBackend, MemoryBackend, set_up
from app.engine.culprit import who_runs
from app.engine.engine import GraphEngine
from app.engine.execution import ExecutionLimits
from app.engine.node_threads import NodeThreads, any_stuck, contain_exits
from app.engine.registry import Registry
from app.engine.thread_states import GraphThreadStates
from app.errors import ConfigInvalid
from app.metrics import Metrics
from app.runs.executor import ExecutorLimits, RunExecutor
from app.runs.lease import LeaseKeeper
from app.runs.log import LogLimits
from app.runs.model import Admission
from app.runs.retention import Retention, RetentionPolicy
from app.runs.service import RunService
from app.runs.store import Store
from app.runs.threads import ThreadService
from app.runs.trace import Tracing
from app.runs.watchdog import LoopWatchdog
from app.settings import Settings
from app.storage.backup import CHECKPOINTS_NAME
from app.storage.memory import MemoryStore
from app.storage.sqlite import SqliteStore
from app.storage.writer import SqliteWriter
from app.tracing import OpenTelemetryTracing, RequestSpans

if TYPE_CHECKING:  # imported where they are asked for: see app/auth/authenticator.py
    from app.auth.hook import Hook
    from app.auth.jwt import Jwts

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
STREAM_KEY_NAME = "stream-token.key"
EXPOSED_HEADERS = ("location", "content-location", "retry-after")


def create_app(
    settings: Settings | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    before_runs: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application. Nothing is opened before its lifespan starts; two of them can live in one process.

    Spans go to `tracer_provider`, or to the process's own where one is set up. `before_runs` is called when all is
    imported and open, before the first run is taken up.
    """
    settings = settings or Settings()
    tracer = (tracer_provider or get_tracer_provider()).get_tracer("runstream", version("runstream"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings, OpenTelemetryTracing(tracer), before_runs) as context:
            app.state.context = context
            yield

    app = FastAPI(
        title="Runstream",
        version=version("runstream"),
        summary="LangGraph graphs over HTTP, streamed from one durable log.",
        lifespan=lifespan,
        docs_url=None,  # they load their scripts from another server
        redoc_url=None,
        telemetry={"tracing": False, "logs": False},  # they have the query, and what exceptions say
    )
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_timeout_seconds)
    app.add_middleware(AccessControl)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=list(ALLOWED_HEADERS),
            expose_headers=list(EXPOSED_HEADERS),
        )
    if settings.allowed_hosts or settings.is_on_loopback:
        app.add_middleware(HostCheck, allowed=settings.allowed_hosts)
    app.add_middleware(StreamHost)
    app.add_middleware(RequestSpans, tracer=tracer)
    # first, since routes are looked for in order; and not included: FastAPI would look for such a one twice
    app.routes.extend(run.starts.routes)
    for module in (token, run, follow, thread, graph, health, page, ws):
        app.include_router(module.router)
    return app


@asynccontextmanager
async def open_context(
    settings: Settings, tracing: Tracing | None = None, before_runs: Callable[[], None] = lambda: None
) -> AsyncIterator[Context]:
    """Open everything, in order, and close it in the opposite one."""
    require_strict_msgpack()
    async with AsyncExitStack() as stack:
        threads = NodeThreads(settings.max_node_threads)
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        asyncio.get_running_loop().set_default_executor(threads)
        asyncio.get_running_loop().set_task_factory(contain_exits)  # type: ignore[arg-type]  # it takes `context`, too
        registry = await asyncio.to_thread(Registry.load, settings.config)
        authenticator = await asyncio.to_thread(open_authenticator, settings, registry)
        check_exposure(settings, authenticator)
        store = await open_store(settings)
        stack.push_async_callback(store.aclose)
        checkpoints = await open_checkpoints(settings)
        stack.push_async_callback(checkpoints.aclose)
        metrics = Metrics()
        metrics.gauge("waiting_nodes", "Nodes that wait for a thread.", lambda: threads.waiting)
        watchdog = await stack.enter_async_context(
            LoopWatchdog(
                blocked_seconds=settings.blocked_loop_seconds,
                who_runs=who_runs,
                on_lag=metrics.loop_lagged,
                on_blocked=metrics.loop_blocked,
            )
        )
        context = compose(settings, registry, store, checkpoints, authenticator, metrics, tracing)
        # until the drain has ended, and no longer than the watchdog, which it asks
        stack.callback(keep_leases(context.runs, store, watchdog, settings).close)
        stack.push_async_callback(context.runs.drain)
        await context.graphs.check()
        before_runs()
        await context.runs.take_up()
        context.runs.sweep(seconds=settings.lease_seconds)
        await stack.enter_async_context(sweeping(make_retention(settings, registry, store, context.threads)))
        context.is_ready = True
        yield context
        begin_drain(context)


def open_authenticator(settings: Settings, registry: Registry) -> Authenticator:
    """Runs the user's file where there is one. Raises ConfigInvalid."""
    authenticator = Authenticator(keys=settings.api_keys, jwts=open_jwts(settings), hook=open_hook(settings, registry))
    if not authenticator.is_open:
        importlib.import_module("jwt")  # for stream tokens: later it would hold up the loop
    return authenticator


def open_jwts(settings: Settings) -> "Jwts | None":
    if not settings.jwt.jwks:
        return None
    from app.auth.jwt import Jwts, open_keys

    return Jwts(open_keys(settings.jwt.jwks), issuer=settings.jwt.issuer, audience=settings.jwt.audience)


def open_hook(settings: Settings, registry: Registry) -> "Hook | None":
    source = settings.auth or registry.auth
    if not source:
        return None
    from app.auth.hook import hook_of

    return hook_of(registry.load_other(source), source)


def stream_secret(settings: Settings) -> bytes:
    """Raises ConfigInvalid."""
    if secret := settings.stream_token_secret.get_secret_value():
        return secret.encode()
    return (
        secrets.token_bytes(SECRET_BYTES) if settings.is_in_memory else kept_secret(settings.data_dir / STREAM_KEY_NAME)
    )


def check_exposure(settings: Settings, authenticator: Authenticator) -> None:
    """Raise ConfigInvalid for a server that other machines reach and that asks nobody who they are."""
    if authenticator.is_open and not settings.is_on_loopback and not settings.allow_anonymous:
        raise ConfigInvalid(
            f"On {settings.host} everybody who reaches this machine could read and run everything: set "
            "RUNSTREAM_API_KEYS or another way to say who asks (docs/security.md), listen on 127.0.0.1, or say "
            "RUNSTREAM_ALLOW_ANONYMOUS=true."
        )


@asynccontextmanager
async def sweeping(retention: Retention) -> AsyncIterator[None]:
    """What is old is deleted meanwhile; at the end the step under way is waited for."""
    async with anyio.create_task_group() as group:
        group.start_soon(retention.run)
        yield
        retention.stop()


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


def keep_leases(runs: RunService, store: Store, watchdog: LoopWatchdog, settings: Settings) -> LeaseKeeper:
    keeper = LeaseKeeper(
        runs.leases,
        store.renew_now,
        stuck_for=lambda: watchdog.stuck_seconds,
        lease_seconds=settings.lease_seconds,
        stuck_seconds=settings.stuck_loop_seconds,
    )
    keeper.start()
    return keeper


async def open_store(settings: Settings) -> Store:
    if settings.is_in_memory:
        return MemoryStore()
    if settings.database_url:
        raise ConfigInvalid(f"The database {settings.database_url.partition(':')[0]!r} is not supported yet.")
    return await SqliteStore.open(settings.data_dir, lease_seconds=settings.lease_seconds)


async def open_checkpoints(settings: Settings) -> Checkpoints:
    if settings.is_in_memory:
        return Checkpoints(MemoryBackend())
    path = settings.data_dir / CHECKPOINTS_NAME
    return Checkpoints(FileBackend(path, await SqliteWriter.open(path, setup=set_up)))


def make_retention(settings: Settings, registry: Registry, store: Store, threads: ThreadService) -> Retention:
    policy = RetentionPolicy(
        run_seconds=settings.retention_seconds,
        row_seconds=settings.row_retention_seconds,
        thread_seconds=settings.thread_ttl_seconds or registry.thread_ttl_seconds,
        paused_thread_seconds=settings.paused_thread_ttl_seconds,
        newest_checkpoints=settings.keep_checkpoints,
    )
    return Retention(store, threads, policy)


def compose(
    settings: Settings,
    registry: Registry,
    store: Store,
    checkpoints: Checkpoints,
    authenticator: Authenticator,
    metrics: Metrics,
    tracing: Tracing | None = None,
) -> Context:
    """What the routes work with, made of what is open. Raises ConfigInvalid."""
    worker = str(uuid.uuid4())
    engine = GraphEngine(registry, checkpoints, execution_limits(settings), tracing)
    executor = RunExecutor(
        store,
        engine,
        executor_limits(settings),
        durable=not settings.is_in_memory,
        observer=metrics,
        tracing=tracing,
    )
    runs = RunService(store, engine, executor, worker=worker, admission=make_admission(settings), tracing=tracing)
    threads = ThreadService(store, GraphThreadStates(engine, checkpoints), worker=worker)
    streams = Streams(stream_limits(settings))
    add_gauges(metrics, executor, runs, streams)
    return Context(
        runs=runs,
        threads=threads,
        graphs=engine,
        store=store,
        streams=streams,
        access=make_door(settings, authenticator),
        heartbeat_seconds=settings.heartbeat_seconds,
        max_body_bytes=settings.max_body_bytes,
        allowed_origins=frozenset(settings.cors_origins),
        metrics=metrics.registry,
        refused=metrics.refused,
    )


def execution_limits(settings: Settings) -> ExecutionLimits:
    return ExecutionLimits(
        max_recursion_limit=settings.max_recursion_limit,
        max_frame_bytes=settings.max_frame_bytes,
        expose_errors=settings.expose_errors,
    )


def executor_limits(settings: Settings) -> ExecutorLimits:
    return ExecutorLimits(
        disconnect_grace_seconds=settings.disconnect_grace_seconds,
        max_timeout_seconds=settings.max_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
        stop_seconds=settings.stop_seconds,
        shutdown_grace_seconds=settings.shutdown_grace_seconds,
        log=LogLimits(
            max_events=settings.max_run_events,
            max_bytes=settings.max_run_bytes,
            max_waiting_bytes=settings.max_waiting_bytes,
        ),
    )


def stream_limits(settings: Settings) -> StreamLimits:
    return StreamLimits(
        max_streams=settings.max_streams,
        max_streams_per_owner=settings.max_streams_per_owner,
        max_stream_seconds=settings.max_stream_seconds,
    )


def make_admission(settings: Settings) -> Admission:
    return Admission(max_active=settings.max_concurrent_runs, max_active_of_owner=settings.max_runs_per_owner)


def make_door(settings: Settings, authenticator: Authenticator) -> Door:
    """Who may come in, and how often. Raises ConfigInvalid where no secret can be kept."""
    return Door(
        authenticator=authenticator,
        stream_tokens=StreamTokens(stream_secret(settings), seconds=settings.stream_token_seconds),
        rate_limit=RateLimit(settings.rate_limit) if settings.rate_limit else None,
        metrics_token=settings.metrics_token.get_secret_value(),
        recheck_seconds=settings.auth_recheck_seconds,
        socket_seconds=settings.socket_auth_seconds,
    )


def add_gauges(metrics: Metrics, executor: RunExecutor, runs: RunService, streams: Streams) -> None:
    metrics.gauge("active_runs", "Runs that this process works on.", lambda: executor.active_count)
    metrics.gauge("open_streams", "Streams that are open.", lambda: streams.count)
    metrics.gauge("reader_lag_events", "How far the slowest reader is behind.", lambda: max(runs.lags(), default=0))
    metrics.gauge("readers", "Readers of runs that this process works on.", lambda: len(runs.lags()))
