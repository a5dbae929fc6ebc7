"""Spans of OpenTelemetry: from a request to its run and the nodes. Without its SDK all of this does next to nothing.

A span says names and ids, never what was said: no query, no message, no text of an exception.
"""

import contextlib
from collections.abc import Iterator, Mapping

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.runs.model import Ending, Run
from app.runs.trace import NodeTrace, TraceNode


class OpenTelemetryTracing:
    """See `app.runs.trace.Tracing`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def carrier(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    @contextlib.contextmanager
    def run(self, run: Run, carrier: Mapping[str, str]) -> Iterator[None]:
        above = self._propagator.extract(carrier, context=context.Context())
        attributes: dict[str, str | int] = {**about(run), "runstream.attempt": run.attempt}
        span = self._tracer.start_span(f"run {run.graph}", context=above, attributes=attributes)
        if is_nowhere(span):
            yield
            return
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield

    def ended(self, ending: Ending) -> None:
        span = trace.get_current_span()
        span.set_attribute("runstream.status", ending.status)
        if ending.error is not None:
            span.set_attribute("error.type", ending.error.code)
            span.set_status(StatusCode.ERROR)

    def nodes(self, run: Run) -> TraceNode:
        attempt = context.get_current()

        def begin(name: str, task_id: str, above: NodeTrace | None) -> NodeTrace:
            outer = above.inside if isinstance(above, NodeSpan) else attempt
            attributes = {**about(run), "runstream.node": name, "runstream.task_id": task_id}
            span = self._tracer.start_span(f"node {name}", context=outer, attributes=attributes)
            inside = trace.set_span_in_context(span, outer)
            # not detached: its end is told in another context, and the next node's begin replaces it
            context.attach(inside)
            return NodeSpan(span, inside)

        return begin


class NodeSpan:
    """See `app.runs.trace.NodeTrace`; `inside` is the context of what the node does."""

    def __init__(self, span: trace.Span, inside: context.Context) -> None:
        self._span = span
        self.inside = inside

    def done(self, error: BaseException | None) -> None:
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def about(run: Run) -> dict[str, str]:
    return {"runstream.run_id": run.run_id, "runstream.thread_id": run.thread_id, "runstream.graph": run.graph}


def is_nowhere(span: trace.Span) -> bool:
    """Whether nobody traces: there is nothing to say of a span, nor is it to stand below, or in place of, another.

    Then all that is done for it is left out, which is most of what tracing costs a run.
    """
    return not (span.get_span_context().is_valid or trace.get_current_span().get_span_context().is_valid)


class RequestSpans:
    """A span a request or socket, below the caller's where it sends a `traceparent`.

    FastAPI's own would have the query, and in it messages and tokens.
    """

    def __init__(self, app: ASGIApp, *, tracer: trace.Tracer) -> None:
        self._app = app
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "WEBSOCKET")
        above = self._propagator.extract(Headers(scope=scope), context=context.Context())
        span = self._tracer.start_span(method, context=above, kind=SpanKind.SERVER)
        if is_nowhere(span):
            await self._app(scope, receive, send)
            return
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            await self._traced(span, method, scope, receive, send)

    async def _traced(self, span: trace.Span, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            span.set_attribute("http.request.method", method)
            if route := getattr(scope.get("route"), "path", None):
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
