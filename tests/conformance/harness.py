"""What the suites over all stores share: back ends, a clock that is moved by hand, and things to store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from app.runs.event import Event, NewEvent
from app.runs.model import Admission, Ending, Lease, NewRun, Thread, scoped
from app.runs.store import Store
from app.storage.memory import MemoryStore
from app.storage.sqlite import SqliteStore

T = TypeVar("T")

LEASE_SECONDS = 30.0
TEST_SECONDS = 30.0  # a test that hangs fails by this, it is no measure
START = NewEvent("start", b'{"event":"start","run_id":"r"}')
COMPLETE = NewEvent("complete", b'{"event":"complete","status":"success"}')
SUCCESS = Ending(status="success", thread_status="idle")


@dataclass
class ManualClock:
    """Stands still unless it is moved; two looks at `now` differ by a microsecond, so that times have an order."""

    seconds: float = 1_000.0
    looks: int = field(default=0)

    def now(self) -> datetime:
        self.looks += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds, microseconds=self.looks)

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class Backend(Protocol):
    """Opens a store. What is durable is there again when the same back end is opened a second time."""

    name: str
    clock: ManualClock

    async def open(self) -> Store: ...


class MemoryBackend:
    name = "memory"

    def __init__(self) -> None:
        self.clock = ManualClock()

    async def open(self) -> Store:
        return MemoryStore(lease_seconds=LEASE_SECONDS, clock=self.clock)


class SqliteBackend:
    name = "sqlite"

    def __init__(self, data_dir: Path) -> None:
        self.clock = ManualClock()
        self.data_dir = data_dir

    async def open(self) -> Store:
        return await SqliteStore.open(self.data_dir, lease_seconds=LEASE_SECONDS, clock=self.clock)


Scenario = Callable[[Store], Coroutine[Any, Any, object]]


def play(backend: Backend, *scenarios: Scenario) -> None:
    """Run each scenario on the back end, closed and opened again between them, all in one event loop each."""
    for scenario in scenarios:
        asyncio.run(asyncio.wait_for(_play(backend, scenario), TEST_SECONDS))


async def _play(backend: Backend, scenario: Scenario) -> None:
    async with opened(backend) as store:
        await scenario(store)


@asynccontextmanager
async def opened(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open()
    try:
        yield store
    finally:
        await store.aclose()


def new_run(run_id: str = "run-1", thread_id: str = "thread-1", **changes: Any) -> NewRun:
    values: dict[str, Any] = {
        "owner": "owner",
        "run_id": run_id,
        "thread_id": thread_id,
        "graph": "chat",
        "request": {"input": {"messages": ["hello"]}},
        "fingerprint": "f1",
    }
    return NewRun(**{**values, **changes})


def new_thread(thread_id: str = "thread-1", **changes: Any) -> Thread:
    values: dict[str, Any] = {
        "owner": "owner",
        "thread_id": thread_id,
        "graph": None,
        "status": "idle",
        "metadata": {},
        "version": 0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Thread(**{**values, "rest_status": changes.get("status", "idle"), **changes})


def token(text: str) -> NewEvent:
    return NewEvent("token", b'{"event":"token","data":{"content":"%b"}}' % text.encode())


def tokens(count: int, prefix: str = "t") -> Sequence[NewEvent]:
    return [token(f"{prefix}{number}") for number in range(count)]


async def started(store: Store, run_id: str = "run-1", thread_id: str = "thread-1", **changes: Any) -> Lease:
    """Accept a run for the worker `w1`, with a start event, and give its lease."""
    accepted = await store.accept(
        new_run(run_id, thread_id, **changes), worker="w1", start=START, admission=Admission(max_active=1_000)
    )
    assert accepted.lease is not None
    return accepted.lease


async def log_of(store: Store, run_key: str) -> Sequence[Event]:
    """The whole log as it is now, read page by page."""
    events: list[Event] = []
    while True:
        page = await store.read(run_key, after=len(events))
        events += page.events
        if page.closed or not page.events:
            return events


def key_of(run_id: str = "run-1") -> str:
    return scoped("owner", run_id)


def thread_key_of(thread_id: str = "thread-1") -> str:
    return scoped("owner", thread_id)


def is_gapless(events: Sequence[Event]) -> bool:
    places = [event.seq for event in events]
    texts = all(event.text.endswith(b'"seq":%d}' % event.seq) for event in events)
    return texts and places == list(range(1, len(events) + 1))


async def outcome(work: Awaitable[T]) -> T | Exception:
    """The result, or the exception as a value, for many at once."""
    try:
        return await work
    except Exception as error:
        return error


def spawn(work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    return asyncio.create_task(work)  # noqa: TID251 - a test is the owner of its tasks, and awaits them


async def until(task: "asyncio.Future[T]") -> T:
    return await asyncio.wait_for(asyncio.shield(task), TEST_SECONDS / 2)


async def turns(count: int = 5) -> None:
    """Let the other tasks of the loop take so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)
