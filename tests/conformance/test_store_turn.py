"""Runs that wait for their turn on a thread: what every store does alike (app/runs/store.py)."""

from dataclasses import replace
from typing import Any

import pytest

from app.errors import LogClosed, StaleThread, ThreadBusy, TooManyRuns
from app.runs.model import Accepted, Admission, Ending, NewRun, RunError, Turn
from app.runs.store import Store
from tests.conformance.harness import (
    COMPLETE,
    LEASE_SECONDS,
    START,
    SUCCESS,
    Backend,
    key_of,
    log_of,
    new_run,
    play,
    started,
    thread_key_of,
    tokens,
)

ROOMY = Admission(max_active=100)
REFUSED = Ending(status="error", thread_status="idle", error=RunError(code="c", message="m"))


async def waits(store: Store, run_id: str, **changes: Any) -> Accepted:
    new = new_run(run_id, **{"multitask_strategy": "enqueue", **changes})
    return await store.accept(new, worker=None, start=None, admission=ROOMY)


async def status_of(store: Store) -> tuple[str, str]:
    thread = await store.get_thread(thread_key_of())
    assert thread is not None
    return thread.status, thread.rest_status


class TestTurn:
    def test_runs_wait_and_begin_in_the_order_in_which_they_came(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            for run_id in ("run-2", "run-3"):
                accepted = await waits(store, run_id)
                assert (accepted.run.status, accepted.run.attempt, accepted.lease) == ("pending", 0, None)
            assert [run.run_id for run in await store.list_pending(10)] == ["run-2", "run-3"]
            assert await store.list_claimable(10) == []
            assert await store.claim(key_of("run-2"), "w1", start=START) is None
            await store.finish(first, [COMPLETE], SUCCESS)
            assert await status_of(store) == ("busy", "idle")
            assert [run.run_id for run in await store.list_claimable(10)] == ["run-2"]
            assert await store.claim(key_of("run-3"), "w1", start=START) is None
            second = await store.claim(key_of("run-2"), "w1", start=START)
            assert second is not None
            assert [event.kind for event in await log_of(store, key_of("run-2"))] == ["start"]
            await store.append(second, tokens(2))
            await store.finish(second, [COMPLETE], SUCCESS)
            third = await store.claim(key_of("run-3"), "w1", start=START)
            assert third is not None
            assert third.version > second.version > first.version
            await store.finish(third, [COMPLETE], SUCCESS)
            assert await status_of(store) == ("idle", "idle")

        play(backend, scenario)

    def test_a_turn_is_what_the_run_begins_with_and_is_refused_when_the_thread_has_changed(
        self, backend: Backend
    ) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            await waits(store, "run-2")
            turn = Turn(request={"a": 1}, thread_version=first.version, thread_status="interrupted")
            await store.finish(first, [COMPLETE], SUCCESS)
            with pytest.raises(StaleThread):
                await store.claim(key_of("run-2"), "w1", start=START, turn=turn)
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            turn = replace(turn, thread_version=thread.version)
            assert await store.claim(key_of("run-2"), "w1", start=START, turn=turn) is not None
            run = await store.get_run(key_of("run-2"))
            assert run is not None
            assert (run.status, run.request, run.attempt, run.last_seq) == ("running", {"a": 1}, 1, 1)
            assert run.thread_status == "interrupted"

        play(backend, scenario)

    def test_a_claim_of_what_was_begun_writes_no_second_start(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store)
            backend.clock.advance(LEASE_SECONDS)
            turn = Turn(request={"other": 1}, thread_version=77, thread_status="error")
            lease = await store.claim(key_of(), "w2", start=START, turn=turn)
            assert lease is not None
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.request, run.thread_status) == (new_run().request, "idle")
            assert len(await log_of(store, key_of())) == 1

        play(backend, scenario)

    def test_nothing_begins_nor_waits_on_a_thread_that_is_held(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            await store.hold(thread_key_of(), "w1")
            for strategy in ("reject", "enqueue"):
                for worker in ("w1", None):
                    new = new_run("run-2", multitask_strategy=strategy)
                    with pytest.raises(ThreadBusy):
                        await store.accept(new, worker=worker, start=START, admission=ROOMY)
            await store.release(thread_key_of(), "w1", status=None)
            await waits(store, "run-2")
            assert await store.claim(key_of("run-2"), "w1", start=START) is not None

        play(backend, scenario)

    def test_a_run_that_may_wait_is_not_begun_on_a_busy_thread(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store)
            with pytest.raises(StaleThread):
                await store.accept(
                    new_run("run-2", multitask_strategy="enqueue"), worker="w1", start=START, admission=ROOMY
                )

        play(backend, scenario)

    def test_a_waiting_run_is_dismissed_with_a_whole_log(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            await waits(store, "run-2")
            assert not await store.dismiss(key_of(), [START, COMPLETE], REFUSED)
            assert not await store.dismiss(key_of("nobody"), [START, COMPLETE], REFUSED)
            assert await store.dismiss(key_of("run-2"), [START, COMPLETE], REFUSED)
            assert not await store.dismiss(key_of("run-2"), [START, COMPLETE], REFUSED)
            assert await status_of(store) == ("busy", "idle")
            run = await store.get_run(key_of("run-2"))
            assert run is not None
            assert (run.status, run.error, run.attempt, run.started_at) == ("error", REFUSED.error, 1, None)
            page = await store.read(key_of("run-2"), after=0)
            assert ([event.kind for event in page.events], page.closed) == (["start", "complete"], True)
            assert await store.claim(key_of("run-2"), "w1") is None
            await store.finish(first, [COMPLETE], SUCCESS)
            assert await status_of(store) == ("idle", "idle")

        play(backend, scenario)

    def test_a_dismissed_run_leaves_the_thread_as_the_run_before_it_did(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            for run_id in ("run-2", "run-3"):
                await waits(store, run_id)
            paused = Ending(status="interrupted", thread_status="interrupted")
            await store.finish(first, [COMPLETE], paused)
            assert await status_of(store) == ("busy", "interrupted")
            await store.dismiss(key_of("run-2"), [START, COMPLETE], REFUSED)
            assert await status_of(store) == ("busy", "interrupted")
            await store.dismiss(key_of("run-3"), [START, COMPLETE], REFUSED)
            assert await status_of(store) == ("interrupted", "interrupted")

        play(backend, scenario)

    def test_a_dismissal_may_say_what_the_thread_is(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            await waits(store, "run-2")
            await store.finish(first, [COMPLETE], SUCCESS)
            ending = Ending(status="error", thread_status="interrupted")
            await store.dismiss(key_of("run-2"), [START, COMPLETE], ending, keeps_status=False)
            assert await status_of(store) == ("interrupted", "interrupted")

        play(backend, scenario)

    def test_superseding_asks_the_others_to_stop_and_rollback_remembers_them(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store)
            await waits(store, "run-2")
            await store.request_cancel(key_of("run-2"), "user")
            third = await waits(store, "run-3", multitask_strategy="rollback")
            assert [run.run_id for run in third.to_stop] == ["run-1", "run-2"]
            assert third.run.supersedes == (key_of("run-1"), key_of("run-2"))
            runs = [await store.get_run(key_of(run_id)) for run_id in ("run-1", "run-2", "run-3")]
            assert [run and run.cancel_reason for run in runs] == ["superseded", "user", None]
            fourth = await waits(store, "run-4", multitask_strategy="interrupt")
            assert fourth.run.supersedes == third.run.supersedes
            assert await store.get_run(key_of("run-4")) == fourth.run

        play(backend, scenario)

    def test_what_the_thread_was_before_a_run_is_kept_with_the_run(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            await store.finish(first, [COMPLETE], Ending(status="interrupted", thread_status="interrupted"))
            await started(store, "run-2")
            for run_id, status in (("run-1", "idle"), ("run-2", "interrupted")):
                run = await store.get_run(key_of(run_id))
                assert run is not None
                assert run.thread_status == status

        play(backend, scenario)

    def test_an_owner_has_a_bound_of_his_own(self, backend: Backend) -> None:
        def new(number: int, owner: str) -> NewRun:
            return new_run(f"run-{number}", f"thread-{number}", owner=owner)

        async def scenario(store: Store) -> None:
            bound = Admission(max_active=10, max_active_of_owner=2)
            for number in range(2):
                await store.accept(new(number, "one"), worker="w1", start=START, admission=bound)
            with pytest.raises(TooManyRuns):
                await store.accept(new(2, "one"), worker="w1", start=START, admission=bound)
            await store.accept(new(2, "two"), worker="w1", start=START, admission=bound)

        play(backend, scenario)

    def test_leases_are_renewed_from_another_thread(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            backend.clock.advance(LEASE_SECONDS - 1)
            store.renew_now([lease])
            backend.clock.advance(2)
            assert await store.list_claimable(10) == []
            backend.clock.advance(LEASE_SECONDS)
            taken = await store.claim(key_of(), "w2")
            assert taken is not None
            store.renew_now([lease])
            await store.finish(taken, [COMPLETE], SUCCESS)
            with pytest.raises(LogClosed):
                await store.append(lease, tokens(1))

        play(backend, scenario)
