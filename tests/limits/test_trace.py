"""One trace from a request to its run and the nodes, over a real server in this process."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, SpanContext, TraceFlags, get_current_span, use_span
from starlette.types import Message, Receive, Scope, Send

from app.main import create_app
from app.settings import Settings
from app.tracing import OpenTelemetryTracing, RequestSpans
from tests.limits.conftest import CONFIG
from tests.raw_client import RawExchange
from tests.server import PROJECT, frames_of, wait_until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_ID = "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
SECONDS = 30.0


class Site:
    """A data directory, the spans of the servers on it, and gates for its graphs."""

    def __init__(self, folder: Path, *, config: Path = PROJECT) -> None:
        self._folder = folder
        self._config = config
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.port = 0

    def open_gate(self, name: str, level: int) -> None:
        Path(f"{self._folder / 'trace'}.gate-{name}").write_bytes(b"+" * level)

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=SECONDS, verify=False)

    @contextlib.contextmanager
    def served(self) -> Iterator["Site"]:
        settings = Settings(
            _env_file=None,
            config=self._config,
            data_dir=self._folder / "data",
            shutdown_grace_seconds=0.1,
            stop_seconds=2.0,
        )
        app = create_app(settings, tracer_provider=self._provider)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
            thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
            thread.start()
            try:
                wait_until(lambda: server.started, "it is open")
                yield self
            finally:
                server.should_exit = True
                thread.join(SECONDS)

    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        """The span of this name, once it has ended."""
        wait_until(lambda: any(span.name == name for span in self.spans()), f"the span {name!r} has ended")
        (span,) = (span for span in self.spans() if span.name == name)
        return span


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("RUNSTREAM_TEST_TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("RUNSTREAM_DISCONNECT_GRACE_SECONDS", "30")
    with Site(tmp_path).served() as site:
        yield site


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.parent is not None
    assert child.context is not None
    assert parent.context is not None
    return (child.parent.span_id, child.context.trace_id) == (parent.context.span_id, parent.context.trace_id)


def test_a_trace_goes_from_the_caller_to_the_nodes(site: Site) -> None:
    with site.client as client:
        answer = client.post("/runs/stream", json={"graph": "steps", "input": {"log": []}}, headers=CALLER)
    start = frames_of(answer.text)[0]

    request, run = site.span("POST /runs/stream"), site.span("run steps")
    assert request.parent is not None
    assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE_ID, CALLER_ID)
    assert is_below(run, request)
    for name in ("one", "two", "three"):
        assert is_below(site.span(f"node {name}"), run)
    assert dict(run.attributes or {}) == {
        "runstream.run_id": start["run_id"],
        "runstream.thread_id": start["thread_id"],
        "runstream.graph": "steps",
        "runstream.attempt": 1,
        "runstream.status": "success",
    }


def test_the_node_of_a_subgraph_is_below_the_node_that_runs_it(site: Site) -> None:
    with site.client as client:
        client.post("/runs/invoke", json={"graph": "below", "message": "hi"})

    assert is_below(site.span("node child"), site.span("run below"))
    assert is_below(site.span("node speak"), site.span("node child"))


def test_a_client_that_leaves_ends_its_request_and_not_the_run(site: Site) -> None:
    body = {"graph": "gated", "input": {"gate": "g"}, "on_disconnect": "continue"}
    with RawExchange(site.port, "POST", "/runs/stream", json_body=body, headers=CALLER) as exchange:
        exchange.read_frames(1)
        exchange.cut("RST")
    request = site.span("POST /runs/stream")
    assert "run gated" not in {span.name for span in site.spans()}

    site.open_gate("g", 6)

    run = site.span("run gated")
    assert is_below(run, request)
    assert is_below(site.span("node gate"), run)
    assert (run.attributes or {})["runstream.status"] == "success"


def test_the_attempt_of_another_process_is_in_the_same_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTREAM_TEST_TRACE", str(tmp_path / "trace"))
    site = Site(tmp_path)
    with site.served():
        body = {"graph": "gated", "input": {"gate": "g"}, "on_disconnect": "continue"}
        with RawExchange(site.port, "POST", "/runs/stream", json_body=body, headers=CALLER) as exchange:
            exchange.read_frames(1)
    site.open_gate("g", 6)
    with site.served():
        wait_until(lambda: [s.name for s in site.spans()].count("run gated") == 2, "the second attempt has ended")
    attempts = [span for span in site.spans() if span.name == "run gated"]
    assert [(span.attributes or {})["runstream.attempt"] for span in attempts] == [1, 2]
    assert {f"{span.context.trace_id:032x}" for span in attempts if span.context} == {TRACE_ID}


def test_a_failure_is_told_by_its_kind_and_nothing_that_was_said_is_in_a_span(site: Site) -> None:
    with site.client as client:
        client.post("/runs/invoke", json={"graph": "fails", "input": {"log": []}})
        accept = {"accept": "text/event-stream"}
        client.get("/runs/stream", params={"graph": "talk", "message": "a secret"}, headers=accept)
        client.get("/runs/a-secret-of-mine")
    node, run = site.span("node fail"), site.span("run fails")
    site.span("run talk")
    site.span("GET /runs/{run_id}")

    assert (node.attributes or {})["error.type"] == "ValueError"
    assert (run.attributes or {})["error.type"] == "graph_error"
    assert not node.status.is_ok
    told = [text for span in site.spans() for text in (span.name, span.to_json())]
    assert not any("secret" in text for text in told)
    assert not any(span.events for span in site.spans())


@pytest.mark.parametrize("graph", ["spans_in_the_loop", "spans_in_a_thread"])
def test_what_a_node_does_is_below_its_span(graph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTREAM_TEST_TRACE", str(tmp_path / "trace"))
    site = Site(tmp_path, config=CONFIG)
    with site.served(), site.client as client:
        client.post("/runs/invoke", json={"graph": graph, "input": {}})
        node = site.span("node spans")
    assert node.context is not None
    assert (tmp_path / "trace").read_text() == f"span {node.context.span_id:016x}\n"


async def seen_inside(headers: dict[str, str]) -> tuple[dict[str, str], int]:
    """What a request's runs are given to stand below, and the trace it is in, where nobody traces."""
    found: list[tuple[dict[str, str], int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        carrier = OpenTelemetryTracing(NoOpTracer()).carrier()
        found.append((dict(carrier), get_current_span().get_span_context().trace_id))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await RequestSpans(app, tracer=NoOpTracer())({"type": "http", "method": "GET", "headers": raw}, receive, send)
    return found[0]


def test_a_callers_trace_is_handed_on_where_nobody_traces() -> None:
    assert asyncio.run(seen_inside(CALLER)) == (CALLER, int(TRACE_ID, 16))


def test_a_request_of_no_trace_is_in_none_where_nobody_traces() -> None:
    assert asyncio.run(seen_inside({})) == ({}, 0)
    around = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    with use_span(around):
        assert asyncio.run(seen_inside({})) == ({}, 0)
