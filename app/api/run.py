"""/runs: start, stream, read, list, cancel (wire contract, sections 1 to 4)."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.types import Receive, Scope, Send

from app.api import example
from app.api.body import DEFAULT_MODES, INVOKE_MODES, CancelBody, RunBody, parse, read_object
from app.api.context import Context, ContextDep, OwnerDep, access_of, context_of, owner_of
from app.api.problem import problem, status_of
from app.api.route import PlainRoute
from app.api.start import Opened, check_origin, policy_of, reattach, recorded_view, start_run
from app.api.stream import EventStream, Frames, Seat, run_headers, while_connected
from app.errors import (
    BadEventId,
    Invalid,
    ModeNotRecorded,
    NotAcceptable,
    NotSupported,
    OriginNotAllowed,
    RunNotFound,
    ShuttingDown,
)
from app.protocols.event_id import seq_on
from app.protocols.sse import dialect_of
from app.protocols.view import View, view_of
from app.runs.model import Run, RunStatus
from app.runs.store import Page, RunQuery

starts = APIRouter(prefix="/runs", tags=["runs"], route_class=PlainRoute)
router = APIRouter(prefix="/runs", tags=["runs"])

QUERY_FIELDS: Final = (
    "graph",
    "message",
    "thread_id",
    "run_id",
    "use_hitl",
    "stream_mode",
    "subgraphs",
    "tokens",
    "on_disconnect",
)
BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}


def stream_response(
    context: Context, request: Request, opened: Opened, seat: Seat, view: View | None = None
) -> Response:
    run, after = context.runs.known(opened.run), opened.after
    shown = view or recorded_view(run)
    frames = Frames(
        follow=lambda patience: context.runs.follow(run, after=after, patience=patience, recall=shown.recalls),
        streams=context.streams,
        view_of=lambda run: shown,
        dialect=dialect_of(request.headers.get("accept", "")),
        heartbeat_seconds=context.heartbeat_seconds,
        until=context.access.end_of(access_of(request)),
        seat=seat.pass_on(),
    )
    return EventStream(frames, headers=run_headers(run))


@starts.post(
    "/stream",
    openapi_extra=example.start(RunBody, [example.IDEMPOTENCY_KEY, example.LAST_EVENT_ID]),
    response_class=Response,
    responses=example.frames(*example.START),
)
async def stream(request: Request) -> Response:
    """Start a run and stream its frames. With `Last-Event-ID`, go on with the run that it names."""
    context, owner = context_of(request), owner_of(request)
    body = await read_object(request)
    opened = await reattach(context, owner, request, body)
    with context.streams.take(owner) as seat:
        if opened is None:
            run = await start_run(context, owner, request, body, DEFAULT_MODES)
            opened = Opened(run=run, after=0)
        return stream_response(context, request, opened, seat)


@starts.get(
    "/stream",
    openapi_extra=example.query(RunBody, QUERY_FIELDS),
    response_class=Response,
    responses=example.NOTHING_LEFT | example.frames(*example.START, NotAcceptable, OriginNotAllowed),
)
async def stream_by_query(request: Request) -> Response:
    """The same for EventSource, with the fields that fit a query. At the end it answers 204, and EventSource stops."""
    context, owner = context_of(request), owner_of(request)
    if dialect_of(request.headers.get("accept", "")) != "eventsource":
        raise NotAcceptable("A GET starts a run only for a client that accepts text/event-stream.")
    check_origin(context, request)
    body = query_body(request)
    opened = await reattach(context, owner, request, body)
    if opened is not None and await context.runs.has_ended_at(opened.run, opened.after):
        return Response(status_code=204, headers=run_headers(opened.run))
    with context.streams.take(owner) as seat:
        if opened is None:
            opened = Opened(run=await start_run(context, owner, request, body, DEFAULT_MODES), after=0)
        return stream_response(context, request, opened, seat)


def query_body(request: Request) -> dict[str, Any]:
    """A query as the body that it stands for. Parameters it does not know are left alone."""
    body: dict[str, Any] = {}
    for name in QUERY_FIELDS:
        values = request.query_params.getlist(name)
        if not values:
            continue
        match name:
            case "stream_mode":
                body[name] = [mode for value in values for mode in value.split(",") if mode]
            case "tokens":
                body[name] = json_parameter(name, values[-1])
            case "use_hitl" | "subgraphs":
                body[name] = BOOLEANS.get(values[-1].lower(), values[-1])
            case _:
                body[name] = values[-1]
    return body


def json_parameter(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Invalid(f"{name} is not JSON.", loc=("query", name)) from None


@starts.post("/invoke", openapi_extra=example.start(RunBody, [example.IDEMPOTENCY_KEY]), responses=example.outcome())
async def invoke(request: Request) -> Response:
    """Start a run, wait for its end and answer with its output."""
    context, owner = context_of(request), owner_of(request)
    body = await read_object(request)
    with context.streams.take(owner) as seat:
        run = await start_run(context, owner, request, body, INVOKE_MODES)
        return InvokeResponse(context, run, seat.pass_on())


class InvokeResponse(Response):
    """Waits for a run's end, looking on at it, and answers with its outcome."""

    def __init__(self, context: Context, run: Run, seat: Seat) -> None:
        super().__init__()
        self._seat = seat
        self._context = context
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._broken_off()

        async def wait() -> None:
            nonlocal response
            async with aclosing(self._context.runs.follow(self._run, after=self._run.last_seq)) as slices:
                async for _ in slices:
                    pass
            response = await self._answer()

        with self._seat:
            await while_connected(self._context.streams, receive, wait)
            await response(scope, receive, send)

    def _broken_off(self) -> Response:
        """For a client that waits while the process stops; nobody hears it when the client has left."""
        error = ShuttingDown("The server is about to stop: ask for the run again in a moment.")
        ids = {"run_id": self._run.run_id, "thread_id": self._run.thread_id}
        return problem(status_of(error), error.code, error.detail, ids, run_headers(self._run))

    async def _answer(self) -> Response:
        run = await self._context.runs.get(self._run.owner, self._run.run_id)
        ids = {"run_id": run.run_id, "thread_id": run.thread_id}
        if run.status in ("error", "timeout"):
            error = run.error
            code, message = (error.code, error.message) if error else ("graph_error", "The graph failed.")
            status = 504 if run.status == "timeout" else 500
            return problem(
                status, code, message, {**ids, "run_status": run.status, "usage": run.usage}, run_headers(run)
            )
        outcome = await self._context.runs.outcome(run)
        body = {
            **ids,
            "status": run.status,
            "output": outcome.output,
            "interrupts": list(outcome.interrupts),
            "next": list(outcome.next),
            "usage": run.usage,
        }
        return Response(orjson.dumps(body), headers=run_headers(run), media_type="application/json")


@router.get("", responses=example.LIST)
async def list_runs(
    context: ContextDep,
    owner: OwnerDep,
    thread_id: Annotated[str | None, Query(description="Only of this thread.")] = None,
    status: Annotated[RunStatus | None, Query(description="Only of this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Runs, newest first."""
    query = RunQuery(owner=owner, thread_id=thread_id, status=status, limit=limit, cursor=cursor)
    runs, next_cursor = await context.runs.list(query)
    return json_response({"runs": [row(run) for run in runs], "next_cursor": next_cursor})


@router.get("/{run_id}", responses=example.run_row(RunNotFound, Invalid))
async def get_run(run_id: str, context: ContextDep, owner: OwnerDep) -> Response:
    """A run's row."""
    return json_response(row(await context.runs.get(owner, run_id)))


@router.get(
    "/{run_id}/stream",
    response_class=Response,
    responses=example.NOTHING_LEFT | example.frames(*example.LOG, BadEventId, ModeNotRecorded, NotSupported),
)
async def stream_run(
    run_id: str,
    request: Request,
    context: ContextDep,
    owner: OwnerDep,
    after: Annotated[str | None, Query(description="The seq to go on after; the Last-Event-ID header wins.")] = None,
    stream_mode: Annotated[list[str] | None, Query(description="Fewer than were recorded.")] = None,
    subgraphs: Annotated[bool | None, Query(description="false leaves the frames of subgraphs out.")] = None,
    tokens: Annotated[str | None, Query(description="How token frames are sent, as JSON.")] = None,
) -> Response:
    """A run's frames from its log, then live to the end. 204 when the run is over and the client has it all."""
    run = await context.runs.get(owner, run_id)
    position = request.headers.get("last-event-id") or after
    seq = 0 if position is None else seq_on(run.run_id, position)
    await context.runs.check_cursor(run, seq)
    modes = None if stream_mode is None else [m for value in stream_mode for m in value.split(",") if m]
    if subgraphs and not run.request.get("subgraphs"):
        raise NotSupported("The run was started without subgraphs.", loc=("query", "subgraphs"))
    asked = run.request.get("tokens") if tokens is None else json_parameter("tokens", tokens)
    policy = policy_of(run, asked, loc=("query", "tokens"))
    view = view_of(run.stream_modes, modes=modes, subgraphs=subgraphs, tokens=policy)
    if await context.runs.has_ended_at(run, seq):
        return Response(status_code=204, headers=run_headers(run))
    with context.streams.take(owner) as seat:
        return stream_response(context, request, Opened(run=run, after=seq), seat, view)


@router.get("/{run_id}/events", responses=example.EVENTS)
async def list_events(
    run_id: str,
    request: Request,
    context: ContextDep,
    owner: OwnerDep,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    wait_seconds: Annotated[float, Query(ge=0, le=30)] = 0,
) -> Response:
    """A page of a run's log, for a client that can't stream; waits for the first new event if asked to."""
    run = await context.runs.get(owner, run_id)
    await context.runs.check_cursor(run, after)
    page = Page(events=(), closed=False)

    async def wait() -> None:
        nonlocal page
        with context.streams.take(owner), context.runs.attach(run):
            page = await context.runs.page(run, after=after, limit=limit, wait_seconds=wait_seconds)

    await while_connected(context.streams, request.receive, wait)
    next_after = page.events[-1].seq if page.events else after
    closed = b"true" if page.closed else b"false"
    events = b",".join(event.text for event in page.events)
    body = b'{"events":[%b],"next_after":%d,"closed":%b}' % (events, next_after, closed)
    return Response(body, media_type="application/json")


@router.post(
    "/{run_id}/cancel",
    openapi_extra=example.body(CancelBody, {}, required=False),
    responses=example.run_row(*example.BODY, RunNotFound, OriginNotAllowed),
)
async def cancel_run(
    run_id: str,
    request: Request,
    context: ContextDep,
    owner: OwnerDep,
    wait: Annotated[bool, Query(description="Answer when the work has really stopped.")] = False,
) -> Response:
    """Stop a run. Doing so again, or after its end, changes nothing."""
    check_origin(context, request)  # without a body another site's form could send it
    body = parse(CancelBody, await read_object(request) if await request.body() else {})
    run = await context.runs.cancel(owner, run_id, wait=wait, keep_partial=body.keep_partial)
    return json_response(row(run))


def json_response(body: Any, status: Literal[200, 201] = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def row(run: Run) -> dict[str, Any]:
    """A run as clients see it."""
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "graph": run.graph,
        "status": run.status,
        "attempt": run.attempt,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "usage": run.usage,
        "error": None if run.error is None else {"code": run.error.code, "message": run.error.message},
        "metadata": run.metadata,
        "last_seq": run.last_seq,
    }
