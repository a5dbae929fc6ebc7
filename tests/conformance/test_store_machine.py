"""Random histories of a store against a model of a few dicts, and proof that this finds the bugs it is there for."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.errors import LeaseLost, ThreadBusy
from app.runs.event import NewEvent
from app.runs.model import ENDED, Admission, Ending, Lease, RunStatus
from app.runs.store import Page, Store
from app.storage.decide import numbered
from app.storage.memory import MemoryStore
from app.storage.sqlite import SqliteStore
from tests.conformance.harness import (
    COMPLETE,
    LEASE_SECONDS,
    START,
    SUCCESS,
    ManualClock,
    new_run,
    spawn,
    token,
    turns,
)

T = TypeVar("T")
Rule = TypeVar("Rule", bound=Callable[..., None])

WAKE_SECONDS = 2.0
THREADS = st.sampled_from(["thread-1", "thread-2", "thread-3"])
COUNTS = st.integers(0, 5)


def where_one_runs(rule_: Rule) -> Rule:
    wrapped: Rule = precondition(lambda self: any(run.status == "running" for run in self.model.values()))(rule_)
    return wrapped


@dataclass
class ModelRun:
    """What the store should know of a run."""

    key: str
    thread_id: str
    status: RunStatus
    leases: list[Lease] = field(default_factory=list)  # all that were given; the last one may be the right to write
    holder: str | None = None
    lease_until: float = 0.0
    crashes: int = 0
    log: list[bytes] = field(default_factory=list)

    @property
    def is_active(self) -> bool:
        return self.status not in ENDED

    def write(self, texts: Sequence[bytes]) -> None:
        for text in texts:
            self.log.append(b'%b,"seq":%d}' % (text[:-1], len(self.log) + 1))


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say which store it is."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.runner = asyncio.Runner()
        self.model: dict[str, ModelRun] = {}
        self.texts = 0
        self.store: Store

    async def open(self) -> Store:
        raise NotImplementedError

    @initialize()
    def _open(self) -> None:
        self.store = self.do(self.open())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.do(self.store.aclose())
        self.runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def new_texts(self, count: int) -> Sequence[NewEvent]:
        self.texts += count
        return [token(str(self.texts - place)) for place in range(count)]

    def pick(self, data: st.DataObject, *statuses: RunStatus) -> ModelRun:
        found = [run for run in self.model.values() if not statuses or run.status in statuses]
        return data.draw(st.sampled_from(found))

    def renewed(self) -> float:
        return self.clock.monotonic() + LEASE_SECONDS

    @rule(thread_id=THREADS, is_claimed=st.booleans())
    def accept(self, thread_id: str, is_claimed: bool) -> None:
        new = new_run(f"run-{len(self.model)}", thread_id)
        accepting = self.store.accept(
            new,
            worker="w0" if is_claimed else None,
            start=START if is_claimed else None,
            admission=Admission(max_active=100),
        )
        if any(run.is_active for run in self.model.values() if run.thread_id == thread_id):
            with pytest.raises(ThreadBusy):
                self.do(accepting)
            return
        accepted = self.do(accepting)
        assert accepted.created
        run = self.model[new.key] = ModelRun(new.key, thread_id, "running" if is_claimed else "pending")
        if is_claimed:
            assert accepted.lease is not None
            run.leases, run.holder, run.lease_until = [accepted.lease], "w0", self.renewed()
            run.write([START.text])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def accept_again(self, data: st.DataObject) -> None:
        run = self.pick(data)
        new = new_run(run.key.rpartition("/")[2], "thread-of-its-own")
        assert not self.do(
            self.store.accept(new, worker="w9", start=START, admission=Admission(max_active=100))
        ).created

    @where_one_runs
    @rule(data=st.data(), counts=st.lists(COUNTS, min_size=1, max_size=4))
    def append(self, data: st.DataObject, counts: Sequence[int]) -> None:
        """Several at once, by whoever has the lease."""
        run = self.pick(data, "running")
        if run.holder is None:
            return
        batches = [self.new_texts(count) for count in counts]

        async def append_all() -> Sequence[int]:
            return await asyncio.gather(*(self.store.append(run.leases[-1], batch) for batch in batches))

        lasts = self.do(append_all())
        for batch, last in zip(batches, lasts, strict=True):
            run.write([event.text for event in batch])
            assert last == len(run.log)

    @where_one_runs
    @rule(data=st.data(), readers=st.integers(1, 3))
    def append_to_waiting_readers(self, data: st.DataObject, readers: int) -> None:
        run = self.pick(data, "running")
        if run.holder is None:
            return
        events = self.new_texts(1)

        async def append() -> None:
            waits = [spawn(self.store.wait(run.key, after=len(run.log))) for _ in range(readers)]
            await asyncio.sleep(0)  # each takes its first step, and no more
            await self.store.append(run.leases[-1], events)
            _, late = await asyncio.wait(waits, timeout=WAKE_SECONDS)
            for task in late:
                task.cancel()
            assert not late, "a reader waits for what is there"

        self.do(append())
        run.write([event.text for event in events])

    @precondition(lambda self: any(run.leases for run in self.model.values()))
    @rule(data=st.data(), is_end=st.booleans())
    def write_with_a_stale_lease(self, data: st.DataObject, is_end: bool) -> None:
        run = data.draw(st.sampled_from([run for run in self.model.values() if run.leases]))
        stale = run.leases if (run.is_active and run.holder is None) or not run.is_active else run.leases[:-1]
        leases = [*stale, replace(run.leases[-1], epoch=run.leases[-1].epoch + 1)]
        lease = data.draw(st.sampled_from(leases))
        append, finish = self.store.append(lease, self.new_texts(1)), self.store.finish(lease, [COMPLETE], SUCCESS)
        chosen, other = (finish, append) if is_end else (append, finish)
        other.close()
        with pytest.raises(LeaseLost):
            self.do(chosen)
        assert not self.do(self.store.renew(lease))
        self.do(self.store.abandon(lease))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), worker=st.sampled_from(["w1", "w2"]))
    def claim(self, data: st.DataObject, worker: str) -> None:
        run = self.pick(data)
        lease = self.do(self.store.claim(run.key, worker))
        is_lost = run.status == "running" and run.lease_until <= self.clock.monotonic()
        if run.status != "pending" and not is_lost:
            assert lease is None
            return
        assert lease is not None
        assert lease.epoch == lease.attempt == len(run.leases) + 1
        run.crashes += run.status == "running" and run.holder is not None
        run.leases.append(lease)
        run.status, run.holder, run.lease_until = "running", worker, self.renewed()

    @rule(part=st.sampled_from([0.4, 1.0]))
    def let_time_pass(self, part: float) -> None:
        self.clock.advance(LEASE_SECONDS * part)

    @where_one_runs
    @rule(data=st.data(), is_abandoned=st.booleans())
    def renew_or_abandon(self, data: st.DataObject, is_abandoned: bool) -> None:
        run = self.pick(data, "running")
        if run.holder is None:
            return
        if is_abandoned:
            self.do(self.store.abandon(run.leases[-1]))
            run.holder, run.lease_until = None, 0.0
        else:
            assert self.do(self.store.renew(run.leases[-1]))
            run.lease_until = self.renewed()

    @where_one_runs
    @rule(data=st.data(), count=COUNTS)
    def finish(self, data: st.DataObject, count: int) -> None:
        """While somebody looks all the time."""
        run = self.pick(data, "running")
        if run.holder is None:
            return
        events = [*self.new_texts(count), COMPLETE]

        async def finish() -> int:
            waiting = spawn(self.store.wait(run.key, after=len(run.log)))
            finishing = spawn(self.store.finish(run.leases[-1], events, SUCCESS))
            while not finishing.done():
                await self.look_for_a_torn_end(run.key)
            await asyncio.wait_for(waiting, WAKE_SECONDS)
            return await finishing

        assert self.do(finish()) == len(run.log) + len(events)
        run.write([event.text for event in events])
        run.status = "success"

    async def look_for_a_torn_end(self, run_key: str) -> None:
        row = await self.store.get_run(run_key)
        page = await self.store.read(run_key, after=0)
        assert row is not None
        if row.is_ended:
            assert page.events[-1].is_terminal, "the run has ended and its log has not"
        await turns(1)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), max_events=st.integers(1, 8), max_bytes=st.integers(0, 300))
    def read(self, data: st.DataObject, max_events: int, max_bytes: int) -> None:
        run = self.pick(data)
        after = data.draw(st.integers(0, len(run.log)))
        page = self.do(self.store.read(run.key, after=after, max_events=max_events, max_bytes=max_bytes))
        assert [event.text for event in page.events] == run.log[after : after + len(page.events)]
        assert [event.seq for event in page.events] == list(range(after + 1, after + 1 + len(page.events)))
        assert page.closed == (not run.is_active and after + len(page.events) == len(run.log))
        assert len(page.events) <= max_events
        assert len(page.events) <= 1 or sum(len(event.text) for event in page.events) <= max_bytes
        assert bool(page.events) == (after < len(run.log))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def wait_where_something_is(self, data: st.DataObject) -> None:
        run = self.pick(data)
        if run.is_active and not run.log:
            return
        after = data.draw(st.integers(0, len(run.log) - run.is_active))
        self.do(asyncio.wait_for(self.store.wait(run.key, after=after), WAKE_SECONDS))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def leave_a_wait(self, data: st.DataObject) -> None:
        run = self.pick(data)

        async def leave() -> None:
            waiting = spawn(self.store.wait(run.key, after=len(run.log)))
            await turns()
            waiting.cancel()
            await asyncio.wait([waiting])

        self.do(leave())

    @invariant()
    def rows_are_as_in_the_model(self) -> None:
        for run in self.model.values():
            row = self.do(self.store.get_run(run.key))
            assert row is not None
            assert (row.status, row.last_seq) == (run.status, len(run.log))
            assert (row.epoch, row.crashes) == (len(run.leases), run.crashes)

    @invariant()
    def claimable_is_what_nobody_works_on(self) -> None:
        if not hasattr(self, "store"):
            return
        now = self.clock.monotonic()
        expected = [
            run.key
            for run in self.model.values()
            if run.status == "pending" or (run.status == "running" and run.lease_until <= now)
        ]
        assert [row.key for row in self.do(self.store.list_claimable(100))] == expected


class MemoryMachine(StoreMachine):
    async def open(self) -> Store:
        return MemoryStore(lease_seconds=LEASE_SECONDS, clock=self.clock)


class SqliteMachine(StoreMachine):
    """Also crashes: a copy of the files, taken while they are open, is what a killed process leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="runstream-machine-")
        self.lives = 0

    @property
    def data_dir(self) -> Path:
        return Path(self.home.name) / str(self.lives)

    async def open(self) -> Store:
        return await SqliteStore.open(self.data_dir, lease_seconds=LEASE_SECONDS, clock=self.clock)

    @precondition(lambda self: self.model)
    @rule()
    def crash(self) -> None:
        before = self.data_dir
        self.lives += 1
        shutil.copytree(before, self.data_dir)
        self.do(self.store.aclose())
        self.store = self.do(self.open())
        for run in self.model.values():
            run.lease_until = 0.0

    def teardown(self) -> None:
        super().teardown()
        self.home.cleanup()


class RepeatedSeq(MemoryStore):
    """Numbers an append from what was there when the one before it began."""

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> int:
        last_seq = self._fenced(lease).run.last_seq
        await asyncio.sleep(0)
        record = self._fenced(lease)
        record.events.extend(numbered(events, after=last_seq))
        record.run = replace(record.run, last_seq=len(record.events))
        self._bells.ring(lease.run_key)
        return last_seq + len(events)


class SubscribedTooLate(MemoryStore):
    """Looks at the log first and listens then."""

    async def wait(self, run_key: str, *, after: int, seconds: float | None = None) -> bool:
        if self._has_news(run_key, after):
            return True
        await asyncio.sleep(0)
        with self._bells.listen(run_key) as bell:
            return await bell.wait(seconds)


class UnfencedAppend(MemoryStore):
    """Trusts a lease as long as the run goes on."""

    async def append(self, lease: Lease, events: Sequence[NewEvent]) -> int:
        return self._extend(self._runs[lease.run_key], events)


class StatusBeforeEvent(MemoryStore):
    """Commits the end of the run, and its last event afterwards."""

    async def finish(self, lease: Lease, events: Sequence[NewEvent], ending: Ending) -> int:
        record = self._fenced(lease)
        record.run = replace(record.run, status=ending.status)
        await turns(2)
        return self._extend(record, events)


class ClosedTooEarly(MemoryStore):
    """Says that a log is closed on every page of an ended run."""

    async def read(self, run_key: str, *, after: int, max_events: int = 1_000, max_bytes: int = 262_144) -> Page:
        page = await super().read(run_key, after=after, max_events=max_events, max_bytes=max_bytes)
        run = await self.get_run(run_key)
        return page._replace(closed=page.closed or (run is not None and run.is_ended))


QUICK = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,  # the same histories in every run, so that a failure is a change of the code
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
)


def test_the_memory_store_does_as_the_model_does() -> None:
    run_state_machine_as_test(MemoryMachine, settings=settings(QUICK, max_examples=60))


def test_the_sqlite_store_does_as_the_model_does_through_crashes() -> None:
    run_state_machine_as_test(SqliteMachine, settings=QUICK)


@pytest.mark.parametrize(
    ("broken", "symptom"),
    [
        (RepeatedSeq, "assert"),
        (SubscribedTooLate, "a reader waits for what is there"),
        (UnfencedAppend, "DID NOT RAISE"),
        (StatusBeforeEvent, "the run has ended and its log has not"),
        (ClosedTooEarly, "assert"),
    ],
)
def test_the_machine_finds_a_store_that(broken: type[MemoryStore], symptom: str) -> None:
    class BrokenMachine(StoreMachine):
        async def open(self) -> Store:
            return broken(lease_seconds=LEASE_SECONDS, clock=self.clock)

    without_shrinking = settings(QUICK, phases=[Phase.generate], max_examples=200)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=symptom):
        run_state_machine_as_test(BrokenMachine, settings=without_shrinking)
