"""One attempt at a run of a graph made in a test: the real engine and real checkpoints, without a server round them."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from langgraph.pregel import Pregel

from app.engine.checkpoints import Backend, Checkpoints, FileBackend, MemoryBackend, Writer, set_up
from app.engine.engine import GraphEngine
from app.engine.execution import ExecutionLimits
from app.engine.manifest import Manifest, Registration
from app.engine.registry import Registry
from app.runs.engine import Cause, Conclusion, Failed, Finished, Past, Stopped
from app.runs.event import NewEvent
from app.runs.model import CancelReason, Ending, Lease, Run, Thread
from app.runs.request import NewInput, RunRequest
from app.runs.store import Page
from app.storage.writer import SqliteWriter

T = TypeVar("T")
Frame = dict[str, Any]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEST_SECONDS = 20.0  # a test that hangs fails by this, it is no measure


async def no_pages() -> AsyncIterator[Page]:
    return
    yield


@dataclass
class Result:
    """What one attempt put into the log, in order, and how it ended."""

    frames: list[Frame] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    ending: Ending | None = None

    @property
    def kinds(self) -> list[str]:
        return [frame["event"] for frame in self.frames]

    @property
    def nodes(self) -> list[str]:
        return [frame["node"] for frame in self.of("node")]

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    def of(self, *kinds: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["event"] in kinds]

    def put(self, event: NewEvent) -> None:
        self.texts.append(event.text)
        frame = json.loads(event.text, parse_constant=refuse_constant)
        assert frame["event"] == event.kind
        assert next(iter(frame)) == "event"
        self.frames.append(frame)


class Told:
    """A log that has room, and keeps what it is told nowhere but in a test's hands."""

    is_behind = False
    is_full = False
    mark = 0

    def __init__(self, put: Callable[[NewEvent], None]) -> None:
        self.put = put

    async def flush(self, mark: int) -> None:
        pass


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


class Bench:
    """An engine over some graphs; `run` is one run, begun and ended, on a thread that it remembers."""

    def __init__(self, checkpoints: Checkpoints, graphs: dict[str, Any], limits: ExecutionLimits) -> None:
        registrations = {name: Registration(name=name, source="") for name in graphs}
        manifest = Manifest(
            path=Path("langgraph.json"),
            registrations=MappingProxyType(registrations),
            problems={},
            default=next(iter(graphs)),
        )
        self.checkpoints = checkpoints
        self.engine = GraphEngine(Registry(manifest, graphs, {}), checkpoints, limits)
        self.threads: dict[str, Thread] = {}
        self._numbers = itertools.count(1)

    async def begin(self, request: RunRequest, put: Callable[[NewEvent], None]) -> "Attempt":
        """A run whose checks have passed; its `work` is for the caller."""
        thread_id = request.thread_id or "t"
        thread = self.threads.get(thread_id)
        name = self.engine.graph_name(request.graph, None)
        plan = await self.engine.plan(request, graph=name, thread_id=thread_id, thread=thread)
        number = next(self._numbers)
        run = Run(
            owner=request.owner,
            run_id=request.run_id or f"run-{number}",
            thread_id=thread_id,
            graph=name,
            status="running",
            request=plan,
            fingerprint="",
            idempotency_key=None,
            stream_modes=request.stream_modes,
            metadata={},
            multitask_strategy="reject",
            on_disconnect="cancel",
            epoch=1,
            attempt=1,
            crashes=0,
            last_seq=0,
            created_at=NOW,
        )
        lease = Lease(
            run_key=run.key,
            thread_key=run.thread_key,
            worker="w",
            epoch=1,
            attempt=1,
            version=number,
            is_new_thread=number == 1,
        )
        execution = self.engine.execution(run, lease, Told(put), Past(restart=None, pages=no_pages))
        return Attempt(self, run, execution)

    async def run(self, value: Any = None, **fields: Any) -> Result:
        """Run to the end, a pause or a failure; what is not a field of RunRequest is its input."""
        result = Result()
        attempt = await self.begin(asked(value, **fields), result.put)
        await attempt.to_end(result)
        return result

    async def state(self, thread_id: str = "t", name: str | None = None) -> Any:
        graph = name or self.engine.graph_name(None, None)
        async with self.engine.graph_of("o", graph) as compiled:
            return await compiled.aget_state({"configurable": {"thread_id": thread_id}})


class Attempt:
    def __init__(self, bench: Bench, run: Run, execution: Any) -> None:
        self._bench = bench
        self.run = run
        self.execution = execution

    async def to_end(self, result: Result) -> None:
        cause: Cause = Finished()
        try:
            await self.execution.work()
        except Exception as error:
            cause = Failed(error=error)
        await self.conclude(cause, result)

    async def cancelled(
        self, task: "asyncio.Task[None]", reason: CancelReason, result: Result, *, keep_partial: bool = False
    ) -> None:
        """Cancel the task of `work` as the executor does, and write the end."""
        task.cancel()
        await asyncio.wait({task})
        assert await self.execution.settle(TEST_SECONDS)
        await self.conclude(Stopped(reason=reason, keep_partial=keep_partial), result)

    async def conclude(self, cause: Cause, result: Result) -> None:
        conclusion: Conclusion = await self.execution.conclude(cause)
        for event in conclusion.events:
            result.put(event)
        result.ending = conclusion.ending
        self._bench.threads[self.run.thread_id] = Thread(
            owner=self.run.owner,
            thread_id=self.run.thread_id,
            graph=self.run.graph,
            status=conclusion.ending.thread_status,
            metadata={},
            version=1,
            created_at=NOW,
            updated_at=NOW,
        )


def asked(value: Any = None, **fields: Any) -> RunRequest:
    request = RunRequest(owner="o", action=NewInput(value={} if value is None else value), fingerprint="")
    modes = fields.pop("modes", None)
    if modes is not None:
        fields["stream_modes"] = tuple(modes)
    return replace(request, **fields)


@contextlib.asynccontextmanager
async def bench(
    *graphs: Any,
    path: Path | None = None,
    wrap: Callable[[Writer], Writer] = lambda writer: writer,
    max_frame_bytes: int = 1_000_000,
    max_recursion_limit: int = 25,
    expose_errors: bool = False,
) -> AsyncIterator[Bench]:
    """An engine over graphs, compiled or not; with a `path` their checkpoints are in a SQLite file there."""
    backend: Backend = MemoryBackend()
    if path is not None:
        # no test pulls the plug, so none has to wait for the disk
        backend = FileBackend(path, wrap(await SqliteWriter.open(path, setup=set_up, synchronous="NORMAL")))
    checkpoints = Checkpoints(backend)
    limits = ExecutionLimits(
        max_recursion_limit=max_recursion_limit, max_frame_bytes=max_frame_bytes, expose_errors=expose_errors
    )
    compiled = {f"graph-{n}": g if isinstance(g, Pregel) else g.compile() for n, g in enumerate(graphs)}
    try:
        yield Bench(checkpoints, compiled, limits)
    finally:
        await checkpoints.aclose()


def play(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in a loop of its own."""

    async def bounded() -> T:
        async with asyncio.timeout(TEST_SECONDS):
            return await scenario()

    return asyncio.run(bounded())
