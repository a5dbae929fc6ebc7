"""What is deleted because it is old: one suite over every store."""

from dataclasses import replace

import pytest

from app.errors import EventsExpired
from app.runs.model import Admission, Run
from app.runs.store import Store, tail
from tests.conformance.harness import (
    COMPLETE,
    START,
    SUCCESS,
    Backend,
    key_of,
    log_of,
    new_run,
    new_thread,
    play,
    spawn,
    started,
    thread_key_of,
    token,
    tokens,
    turns,
    until,
)

WEEK = 7 * 86_400.0


async def ended(store: Store, run_id: str = "run-1", thread_id: str = "thread-1", *, events: int = 3) -> None:
    lease = await started(store, run_id, thread_id, idempotency_key=f"key of {run_id}")
    await store.append(lease, tokens(events))
    await store.finish(lease, [COMPLETE], SUCCESS)


async def expire(store: Store, seconds: float = WEEK) -> int:
    """How many runs expired, step by step."""
    runs = 0
    while True:
        expiry = await store.expire_runs(seconds)
        runs += len(expiry.thread_keys)
        if expiry.is_done:
            return runs


async def row(store: Store, run_id: str = "run-1") -> Run:
    run = await store.get_run(key_of(run_id))
    assert run is not None
    return run


class TestExpireRuns:
    def test_a_run_expires_when_its_end_is_so_long_ago_and_not_before(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK - 1)
            assert await expire(store) == 0
            assert len(await log_of(store, key_of())) == 5
            backend.clock.advance(1)
            assert await expire(store) == 1
            assert await expire(store) == 0

        play(backend, scenario)

    def test_of_an_expired_run_the_row_stays_without_its_request(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            before = await row(store)
            backend.clock.advance(WEEK)
            await expire(store)
            after = await row(store)
            assert (before.expired, after.expired, after.request) == (False, True, {})
            kept = ("status", "usage", "metadata", "finished_at", "last_seq", "idempotency_key", "fingerprint")
            assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]

        play(backend, scenario, check_row_again)

    def test_no_part_of_an_expired_log_can_be_read(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK)
            await expire(store)
            for after in (0, 2, 5, 9):
                await store.wait(key_of(), after=after)
                with pytest.raises(EventsExpired) as gone:
                    await store.read(key_of(), after=after)
                assert gone.value.fields["state_url"] == "/threads/thread-1/state"

        play(backend, scenario, check_row_again)

    def test_a_reader_that_is_behind_gets_an_error_and_no_gap(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store, events=2_500)
            pages = tail(store, key_of(), after=0)
            first = await anext(pages)
            assert not first.closed
            backend.clock.advance(WEEK)
            await expire(store)
            with pytest.raises(EventsExpired):
                await anext(pages)

        play(backend, scenario)

    def test_active_runs_never_expire(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.accept(
                new_run("waits", "thread-2"), worker=None, start=None, admission=Admission(max_active=10)
            )
            backend.clock.advance(10 * WEEK)
            assert await expire(store) == 0
            await store.append(lease, [token("late")])
            await store.finish(lease, [COMPLETE], SUCCESS)
            assert await expire(store) == 0  # it ended just now

        play(backend, scenario)

    def test_a_used_key_finds_the_expired_run_and_makes_no_other(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK)
            await expire(store)
            again = new_run("another", idempotency_key="key of run-1")
            accepted = await store.accept(again, worker="w1", start=START, admission=Admission(max_active=10))
            assert (accepted.created, accepted.run.run_id, accepted.run.expired) == (False, "run-1", True)

        play(backend, scenario)

    def test_many_runs_with_long_logs_all_expire_and_the_others_stay_whole(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in range(150):
                await ended(store, f"run-{number}", f"thread-{number}")
            lease = await started(store, "long", "long")
            for _ in range(40):
                await store.append(lease, [token("x" * 60_000) for _ in range(3)])
            await store.finish(lease, [COMPLETE], SUCCESS)
            backend.clock.advance(WEEK)
            await ended(store, "young", "young")
            assert await expire(store) == 151
            assert len(await log_of(store, key_of("young"))) == 5

        play(backend, scenario)

    def test_a_thread_goes_on_after_its_runs_have_expired(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK)
            await expire(store)
            following = spawn(store.wait_run(thread_key_of(), after=key_of()))
            await turns()
            await ended(store, "run-2")
            await until(following)
            later = await store.next_run(thread_key_of(), after=key_of())
            assert later is not None
            assert later.run_id == "run-2"

        play(backend, scenario)


class TestDeleteExpiredRuns:
    def test_the_row_goes_after_its_own_time_and_its_name_is_free_again(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK)
            await expire(store)
            assert await store.delete_expired_runs(2 * WEEK)
            assert (await row(store)).expired
            backend.clock.advance(WEEK)
            assert await store.delete_expired_runs(2 * WEEK)
            assert await store.get_run(key_of()) is None
            await ended(store)
            assert len(await log_of(store, key_of())) == 5

        play(backend, scenario)

    def test_a_row_with_a_log_stays_however_old_it_is(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(10 * WEEK)
            assert await store.delete_expired_runs(WEEK)
            assert len(await log_of(store, key_of())) == 5

        play(backend, scenario)

    def test_whoever_follows_a_thread_past_a_deleted_row_hears_of_its_next_run(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store)
            backend.clock.advance(WEEK)
            await expire(store)
            await store.delete_expired_runs(WEEK)
            await started(store, "run-2")
            following = await store.next_run(thread_key_of(), after=key_of())
            assert following is not None
            assert following.run_id == "run-2"

        play(backend, scenario)


async def check_row_again(store: Store) -> None:
    """After a restart, for the stores that outlive one."""
    run = await store.get_run(key_of())
    assert run is None or run.expired


class TestUnusedThreads:
    def test_those_with_the_status_that_did_not_change_for_so_long_are_listed(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for thread_id in ("old", "held", "renewed", "edited"):
                await store.create_thread(new_thread(thread_id, updated_at=backend.clock.now()))
            await store.create_thread(new_thread("paused", status="interrupted", updated_at=backend.clock.now()))
            backend.clock.advance(WEEK)
            await store.create_thread(new_thread("young", updated_at=backend.clock.now()))
            await store.hold(thread_key_of("held"), "w1")
            await store.update_thread(thread_key_of("renewed"), metadata={"a": 1})
            await store.hold(thread_key_of("edited"), "w1")
            await store.release(thread_key_of("edited"), "w1", status="idle")
            assert [thread.thread_id for thread in await store.list_unused_threads("idle", WEEK, 10)] == ["old"]
            assert [t.thread_id for t in await store.list_unused_threads("interrupted", WEEK, 10)] == ["paused"]
            assert await store.list_unused_threads("idle", WEEK + 1, 10) == []

        play(backend, scenario)

    def test_a_busy_thread_is_never_among_them(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            backend.clock.advance(10 * WEEK)
            for status in ("idle", "busy", "error", "interrupted"):
                assert await store.list_unused_threads(status, 0, 10) == []
            await store.finish(lease, [COMPLETE], SUCCESS)
            assert await store.list_unused_threads("idle", WEEK, 10) == []
            backend.clock.advance(WEEK)
            assert [thread.thread_id for thread in await store.list_unused_threads("idle", WEEK, 10)] == ["thread-1"]

        play(backend, scenario)

    def test_the_one_unchanged_for_longest_comes_first_and_no_more_than_asked(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in (3, 1, 2):
                moment = backend.clock.now().replace(minute=number)
                await store.create_thread(new_thread(f"t{number}", updated_at=moment))
            backend.clock.advance(WEEK)
            assert [thread.thread_id for thread in await store.list_unused_threads("idle", 0, 2)] == ["t1", "t2"]

        play(backend, scenario)


class TestDeleteThread:
    def test_of_a_thread_with_many_runs_and_long_logs_nothing_is_left(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in range(250):
                await ended(store, f"run-{number}", events=1)
            lease = await started(store, "long")
            for _ in range(20):
                await store.append(lease, [token("x" * 50_000)])
            await store.finish(lease, [COMPLETE], SUCCESS)
            await ended(store, "other", "thread-2")
            await store.hold(thread_key_of(), "w1")
            assert await store.delete_thread(thread_key_of(), "w1")
            assert await store.get_thread(thread_key_of()) is None
            for run_id in ("run-0", "run-249", "long"):
                assert await store.get_run(key_of(run_id)) is None
                page = await store.read(key_of(run_id), after=0)
                assert (list(page.events), page.closed) == ([], True)
            assert len(await log_of(store, key_of("other"))) == 5

        play(backend, scenario)


class TestEndedThreads:
    def test_the_ends_after_a_moment_come_in_their_order(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await ended(store, "run-1", "thread-1")
            between = backend.clock.now()
            await ended(store, "run-2", "thread-2")
            await ended(store, "run-3", "thread-1")
            await started(store, "run-4", "thread-3")
            found = await store.list_ended_threads(between, 10)
            assert [key for key, _ in found] == [thread_key_of("thread-2"), thread_key_of("thread-1")]
            assert [key for key, _ in await store.list_ended_threads(found[0][1], 10)] == [thread_key_of("thread-1")]
            assert await store.list_ended_threads(found[1][1], 10) == []
            assert len(await store.list_ended_threads(between, 1)) == 1

        play(backend, scenario)


class TestCheckpointsInUse:
    def test_they_are_the_ends_of_unexpired_runs_and_the_beginnings_of_active_ones(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in (1, 2):
                lease = await started(store, f"run-{number}")
                await store.finish(lease, [COMPLETE], replace(SUCCESS, checkpoint_id=f"end-{number}"))
                backend.clock.advance(WEEK / 2)
            assert await store.checkpoints_in_use(thread_key_of()) == {"end-1", "end-2"}
            await expire(store)
            await started(store, "run-3", request={"checkpoint_id": "begin-3"})
            await started(store, "run-4", "thread-2", request={"checkpoint_id": "begin-4"})
            assert await store.checkpoints_in_use(thread_key_of()) == {"end-2", "begin-3"}

        play(backend, scenario)
