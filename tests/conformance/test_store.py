"""Accepting, claiming, appending and finishing: one suite over every store."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.errors import (
    GraphMismatch,
    LeaseLost,
    LogClosed,
    StaleThread,
    ThreadBusy,
    ThreadNotFound,
    TooManyRuns,
)
from app.runs.event import NewEvent
from app.runs.model import Accepted, Admission, Ending, Lease, RunError
from app.runs.store import RunQuery, Store, tail
from tests.conformance.harness import (
    COMPLETE,
    LEASE_SECONDS,
    START,
    SUCCESS,
    Backend,
    is_gapless,
    key_of,
    log_of,
    new_run,
    new_thread,
    outcome,
    play,
    spawn,
    started,
    thread_key_of,
    token,
    tokens,
    turns,
)

INTERRUPT = NewEvent("interrupt", b'{"event":"interrupt","next":["ask"]}')
PAUSED = Ending(status="interrupted", thread_status="interrupted")


class TestAccept:
    def test_a_run_with_a_worker_is_running_and_its_first_event_is_the_start(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            accepted = await store.accept(new_run(), worker="w1", start=START, admission=Admission(max_active=10))
            run = accepted.run
            assert accepted.created
            assert accepted.lease is not None
            assert accepted.lease.is_new_thread is True
            assert (run.status, run.epoch, run.attempt, run.crashes, run.last_seq) == ("running", 1, 1, 0, 1)
            assert accepted.lease == Lease(
                run_key=run.key,
                thread_key=run.thread_key,
                worker="w1",
                epoch=1,
                attempt=1,
                version=1,
                is_new_thread=True,
            )
            assert run.started_at == run.created_at
            assert await store.get_run(run.key) == run
            (start,) = await log_of(store, run.key)
            assert start.text == b'{"event":"start","run_id":"r","seq":1}'

        play(backend, scenario)

    def test_a_run_without_a_worker_is_pending_with_an_empty_log(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            accepted = await store.accept(new_run(), worker=None, start=None, admission=Admission(max_active=10))
            run = accepted.run
            assert accepted.lease is None
            assert (run.status, run.epoch, run.attempt, run.last_seq, run.started_at) == ("pending", 0, 0, 0, None)
            page = await store.read(run.key, after=0)
            assert (list(page.events), page.closed) == ([], False)
            thread = await store.get_thread(run.thread_key)
            assert thread is not None
            assert (thread.status, thread.version) == ("busy", 0)

        play(backend, scenario)

    def test_a_run_is_given_back_as_it_was_stored(self, backend: Backend) -> None:
        new = new_run(
            request={"input": {"text": "é\u2028", "none": None, "deep": [{"n": 1.5}]}},
            metadata={"tag": ["a", True]},
            idempotency_key="k",
            stream_modes=("values", "custom"),
            multitask_strategy="enqueue",
            on_disconnect="continue",
            fingerprint="abc",
        )

        async def scenario(store: Store) -> None:
            await store.accept(new, worker="w1", start=START, admission=Admission(max_active=10))
            run = await store.get_run(new.key)
            assert run is not None
            for name in ("request", "metadata", "idempotency_key", "stream_modes", "multitask_strategy"):
                assert getattr(run, name) == getattr(new, name)
            assert (run.on_disconnect, run.fingerprint, run.graph) == ("continue", "abc", "chat")
            assert run.created_at.utcoffset() == timedelta(0)

        play(backend, scenario)

    def test_a_run_id_that_was_used_gives_the_earlier_run_and_writes_nothing(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store)
            other = new_run(graph="another", thread_id="thread-2", fingerprint="f2")
            again = await store.accept(other, worker="w2", start=START, admission=Admission(max_active=0))
            assert (again.created, again.lease, again.run.fingerprint) == (False, None, "f1")
            assert len(await log_of(store, key_of())) == 1
            assert await store.get_thread(thread_key_of("thread-2")) is None

        play(backend, scenario)

    def test_an_idempotency_key_that_was_used_gives_the_earlier_run(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store, idempotency_key="k")
            again = await store.accept(
                new_run("run-2", idempotency_key="k"), worker="w1", start=START, admission=Admission(max_active=10)
            )
            assert (again.created, again.run.run_id) == (False, "run-1")
            found = await store.find_run("owner", "k")
            assert found is not None
            assert found.run_id == "run-1"

        play(backend, scenario)

    def test_two_owners_use_the_same_ids_and_keys_without_meeting(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store, idempotency_key="k")
            other = await store.accept(
                new_run(owner="other", idempotency_key="k"),
                worker="w1",
                start=START,
                admission=Admission(max_active=10),
            )
            assert other.created
            assert await store.find_run("third", "k") is None

        play(backend, scenario)

    def test_a_thread_that_must_exist_and_does_not_is_refused(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(ThreadNotFound):
                await store.accept(
                    new_run(create_thread=False), worker="w1", start=START, admission=Admission(max_active=10)
                )
            assert await store.get_thread(thread_key_of()) is None

        play(backend, scenario)

    def test_each_refusal_comes_before_the_next_one_in_the_order_of_the_interface(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            with pytest.raises(GraphMismatch):  # though the thread is busy, too
                await store.accept(
                    new_run("run-2", graph="other"), worker="w1", start=START, admission=Admission(max_active=0)
                )
            with pytest.raises(ThreadBusy) as busy:  # though the version is stale, too
                await store.accept(
                    new_run("run-2", thread_version=99), worker="w1", start=START, admission=Admission(max_active=0)
                )
            assert busy.value.fields["run_id"] == "run-1"
            await store.finish(lease, [COMPLETE], SUCCESS)
            with pytest.raises(StaleThread):  # though there are too many, too
                await store.accept(
                    new_run("run-2", thread_version=99), worker="w1", start=START, admission=Admission(max_active=0)
                )
            with pytest.raises(TooManyRuns):
                await store.accept(
                    new_run("run-2", thread_version=2), worker="w1", start=START, admission=Admission(max_active=0)
                )
            accepted = await store.accept(
                new_run("run-2", thread_version=2), worker="w1", start=START, admission=Admission(max_active=1)
            )
            assert accepted.created
            assert accepted.lease is not None
            assert accepted.lease.is_new_thread is False

        play(backend, scenario)

    def test_a_refused_run_leaves_no_trace(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(TooManyRuns):
                await store.accept(new_run(), worker="w1", start=START, admission=Admission(max_active=0))
            assert await store.get_run(key_of()) is None
            assert await store.get_thread(thread_key_of()) is None

        play(backend, scenario)

    def test_a_held_thread_is_busy_with_no_run(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread())
            await store.hold(thread_key_of(), "w1")
            with pytest.raises(ThreadBusy) as busy:
                await store.accept(new_run(), worker="w1", start=START, admission=Admission(max_active=10))
            assert busy.value.fields["run_id"] is None

        play(backend, scenario)

    def test_a_thread_without_a_graph_gets_the_runs(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread(metadata={"a": 1}))
            accepted = await store.accept(new_run(), worker="w1", start=START, admission=Admission(max_active=10))
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert (thread.graph, thread.status, thread.metadata) == ("chat", "busy", {"a": 1})
            assert accepted.lease is not None
            assert accepted.lease.version == thread.version == 1
            assert not accepted.lease.is_new_thread

        play(backend, scenario)

    def test_only_active_runs_count_for_the_maximum(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            await store.accept(new_run("run-2"), worker=None, start=None, admission=Admission(max_active=1))
            with pytest.raises(TooManyRuns):
                await store.accept(
                    new_run("run-3", "thread-3"), worker="w1", start=START, admission=Admission(max_active=1)
                )

        play(backend, scenario)

    def test_of_ten_at_once_on_one_thread_one_is_let_in(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            outcomes = await asyncio.gather(
                *(
                    outcome(
                        store.accept(
                            new_run(f"run-{number}"), worker="w1", start=START, admission=Admission(max_active=100)
                        )
                    )
                    for number in range(10)
                )
            )
            assert sum(isinstance(each, Accepted) and each.created for each in outcomes) == 1
            assert sum(isinstance(each, ThreadBusy) for each in outcomes) == 9
            assert len((await store.list_runs(_all_runs()))[0]) == 1

        play(backend, scenario)

    def test_of_two_at_once_with_one_key_one_is_created_and_both_get_it(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first, second = await asyncio.gather(
                *(
                    store.accept(
                        new_run(f"run-{number}", idempotency_key="k"),
                        worker="w1",
                        start=START,
                        admission=Admission(max_active=10),
                    )
                    for number in range(2)
                )
            )
            assert sorted([first.created, second.created]) == [False, True]
            assert first.run.key == second.run.key

        play(backend, scenario)

    def test_what_the_caller_changes_afterwards_is_not_in_the_store(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            request = {"input": {"n": 1}}
            await started(store, request=request)
            request["input"]["n"] = 2
            run = await store.get_run(key_of())
            assert run is not None
            assert run.request == {"input": {"n": 1}}

        play(backend, scenario)


class TestClaim:
    def test_a_pending_run_is_claimed_once(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.accept(new_run(), worker=None, start=None, admission=Admission(max_active=10))
            leases = await asyncio.gather(*(store.claim(key_of(), f"w{number}") for number in range(5)))
            (lease,) = [lease for lease in leases if lease is not None]
            assert (lease.epoch, lease.attempt, lease.version) == (1, 1, 1)
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.status, run.crashes, run.epoch) == ("running", 0, 1)
            assert run.started_at is not None
            assert await store.append(lease, [START]) == 1

        play(backend, scenario)

    def test_a_run_with_a_living_lease_an_ended_one_and_an_unknown_one_are_not_claimed(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            backend.clock.advance(LEASE_SECONDS - 1)
            assert await store.claim(key_of(), "w2") is None
            await store.finish(lease, [COMPLETE], SUCCESS)
            backend.clock.advance(LEASE_SECONDS)
            assert await store.claim(key_of(), "w2") is None
            assert await store.claim(key_of("nobody"), "w2") is None

        play(backend, scenario)

    def test_a_lease_that_ran_out_is_taken_over_and_counts_a_crash(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            backend.clock.advance(LEASE_SECONDS)
            second = await store.claim(key_of(), "w2")
            assert second is not None
            assert (second.epoch, second.attempt, second.worker) == (2, 2, "w2")
            assert second.version == first.version + 1
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.status, run.epoch, run.attempt, run.crashes) == ("running", 2, 2, 1)
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert (thread.status, thread.version) == ("busy", second.version)

        play(backend, scenario)

    def test_a_renewed_lease_lives_on_and_a_lost_one_is_not_renewed(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            backend.clock.advance(LEASE_SECONDS - 1)
            assert await store.renew(lease)
            backend.clock.advance(LEASE_SECONDS - 1)
            assert await store.claim(key_of(), "w2") is None
            backend.clock.advance(1)
            assert await store.claim(key_of(), "w2") is not None
            assert not await store.renew(lease)

        play(backend, scenario)

    def test_the_lease_of_an_ended_run_is_not_renewed(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.finish(lease, [COMPLETE], SUCCESS)
            assert not await store.renew(lease)

        play(backend, scenario)

    def test_an_abandoned_run_is_claimed_at_once_and_counts_no_crash(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            await store.abandon(first)
            assert [run.key for run in await store.list_claimable(10)] == [key_of()]
            with pytest.raises(LeaseLost):
                await store.append(first, [token("late")])
            second = await store.claim(key_of(), "w1")
            assert second is not None
            assert second.epoch == 2
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.attempt, run.crashes) == (2, 0)

        play(backend, scenario)

    def test_abandoning_a_lost_lease_does_nothing_to_the_new_owner(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            backend.clock.advance(LEASE_SECONDS)
            second = await store.claim(key_of(), "w2")
            assert second is not None
            await store.abandon(first)
            assert await store.append(second, [token("mine")]) == 2

        play(backend, scenario)

    def test_claimable_are_pending_runs_and_those_whose_lease_ran_out_oldest_first(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store, "run-1", "thread-1")
            await store.accept(
                new_run("run-2", "thread-2"), worker=None, start=None, admission=Admission(max_active=10)
            )
            assert [run.run_id for run in await store.list_claimable(10)] == ["run-2"]
            backend.clock.advance(LEASE_SECONDS)
            await started(store, "run-3", "thread-3")
            assert [run.run_id for run in await store.list_claimable(10)] == ["run-1", "run-2"]
            assert [run.run_id for run in await store.list_claimable(1)] == ["run-1"]

        play(backend, scenario)


class TestAppend:
    def test_events_are_numbered_without_a_gap_and_the_last_seq_is_returned(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            assert await store.append(lease, tokens(3)) == 4
            assert await store.append(lease, []) == 4
            assert await store.append(lease, [token("end")]) == 5
            events = await log_of(store, lease.run_key)
            assert is_gapless(events)
            assert events[4].text == b'{"event":"token","data":{"content":"end"},"seq":5}'
            run = await store.get_run(lease.run_key)
            assert run is not None
            assert run.last_seq == 5

        play(backend, scenario)

    def test_many_writers_at_once_each_get_their_own_gapless_log(self, backend: Backend) -> None:
        async def write(store: Store, lease: Lease) -> None:
            for turn in range(10):
                last = await store.append(lease, tokens(turn % 4 + 1, f"{lease.run_key}-{turn}-"))
                assert last >= turn

        async def scenario(store: Store) -> None:
            leases = [await started(store, f"run-{number}", f"thread-{number}") for number in range(20)]
            await asyncio.gather(*(write(store, lease) for lease in leases))
            for lease in leases:
                events = await log_of(store, lease.run_key)
                assert is_gapless(events)
                contents = [event.text.split(b'"')[9] for event in events[1:]]
                expected = [f"{lease.run_key}-{turn}-{n}" for turn in range(10) for n in range(turn % 4 + 1)]
                assert [content.decode() for content in contents] == expected

        play(backend, scenario)

    def test_many_appends_at_once_to_one_run_each_stay_together(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            lasts = await asyncio.gather(*(store.append(lease, tokens(3, f"{n}-")) for n in range(20)))
            assert sorted(lasts) == list(range(4, 62, 3))
            events = await log_of(store, lease.run_key)
            assert is_gapless(events)
            for n, last in enumerate(lasts):
                texts = [event.text for event in events[last - 3 : last]]
                assert all(b'"%d-%d"' % (n, place) in text for place, text in enumerate(texts))

        play(backend, scenario)

    def test_a_stale_epoch_writes_nothing(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            first = await started(store)
            backend.clock.advance(LEASE_SECONDS)
            second = await store.claim(key_of(), "w1")  # the same worker, another epoch
            assert second is not None
            with pytest.raises(LeaseLost):
                await store.append(first, tokens(2))
            with pytest.raises(LeaseLost):
                await store.finish(first, [COMPLETE], SUCCESS)
            assert len(await log_of(store, key_of())) == 1
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.status, run.last_seq) == ("running", 1)
            assert await store.append(second, tokens(1)) == 2

        play(backend, scenario)

    def test_another_worker_and_an_unknown_run_write_nothing(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            for wrong in (_changed(lease, worker="w9"), _changed(lease, run_key=key_of("nobody"))):
                with pytest.raises(LeaseLost):
                    await store.append(wrong, tokens(1))
            assert len(await log_of(store, key_of())) == 1

        play(backend, scenario)

    def test_a_stale_append_among_good_ones_fails_alone(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            leases = [await started(store, f"run-{number}", f"thread-{number}") for number in range(5)]
            stale = _changed(leases[2], epoch=7)
            outcomes = await asyncio.gather(
                *(outcome(store.append(lease, tokens(2))) for lease in [*leases, stale, *leases])
            )
            assert isinstance(outcomes[5], LeaseLost)
            assert outcomes[:5] + outcomes[6:] == [3] * 5 + [5] * 5

        play(backend, scenario)

    def test_a_lease_that_ran_out_and_that_nobody_took_still_writes(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            backend.clock.advance(LEASE_SECONDS * 2)
            assert await store.append(lease, tokens(1)) == 2

        play(backend, scenario)

    def test_after_the_terminal_event_the_log_is_closed_to_everyone(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.finish(lease, [COMPLETE], SUCCESS)
            with pytest.raises(LogClosed):
                await store.append(lease, tokens(1))
            with pytest.raises(LogClosed):
                await store.finish(lease, [COMPLETE], SUCCESS)
            assert len(await log_of(store, key_of())) == 2

        play(backend, scenario)

    def test_a_terminal_event_is_not_appended_and_a_text_of_two_lines_neither(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            for bad in (COMPLETE, NewEvent("custom", b'{"event":"custom",\n"data":1}')):
                with pytest.raises(ValueError, match="event"):
                    await store.append(lease, [bad])
            assert len(await log_of(store, key_of())) == 1

        play(backend, scenario)

    def test_what_is_submitted_is_written_in_the_order_of_the_calls_and_refused_without_the_lease(
        self, backend: Backend
    ) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            submitted = [store.submit(lease, tokens(2, f"{n}-")) for n in range(3)]
            refused = store.submit(replace(lease, epoch=lease.epoch + 1), tokens(1))
            assert [await each for each in submitted] == [3, 5, 7]
            with pytest.raises(LeaseLost):
                await refused
            assert [event.seq for event in await log_of(store, key_of())] == list(range(1, 8))

        play(backend, scenario)

    def test_a_cancelled_caller_disturbs_nobody_and_its_events_are_whole_or_absent(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            tasks = [spawn(store.append(lease, tokens(2, f"{n}-"))) for n in range(6)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[3].cancel()
            await asyncio.wait(tasks)
            assert [tasks[n].result() for n in (1, 2, 4, 5)] == [5, 7, 11, 13]
            last = await store.append(lease, [token("last")])
            events = await log_of(store, lease.run_key)
            assert is_gapless(events)
            assert len(events) == last == 1 + 6 * 2 + 1

        play(backend, scenario)


class TestFinish:
    def test_the_terminal_event_the_status_and_the_release_come_together(self, backend: Backend) -> None:
        ending = Ending(
            status="error",
            thread_status="error",
            usage={"m": {"total_tokens": 3}},
            error=RunError(code="graph_error", message="It failed."),
            checkpoint_id="c1",
        )
        failure = NewEvent("error", b'{"event":"error","code":"graph_error"}')

        async def scenario(store: Store) -> None:
            lease = await started(store)
            assert await store.finish(lease, [token("a"), failure], ending) == 3
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.status, run.last_seq, run.checkpoint_id) == ("error", 3, "c1")
            assert (run.usage, run.error) == (ending.usage, ending.error)
            assert run.finished_at is not None
            assert run.finished_at > run.created_at
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert (thread.status, thread.version) == ("error", lease.version + 1)
            page = await store.read(key_of(), after=0)
            assert page.closed
            assert page.events[-1].kind == "error"

        play(backend, scenario)

    def test_the_thread_takes_its_next_run_at_once(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in range(20):
                lease = await started(store, f"run-{number}")
                await store.finish(lease, [INTERRUPT], PAUSED)

        play(backend, scenario)

    def test_a_reader_that_sees_the_end_finds_the_thread_released(self, backend: Backend) -> None:
        async def follow(store: Store) -> None:
            async for page in tail(store, key_of(), after=0):
                if page.events[-1].is_terminal:
                    run, thread = await store.get_run(key_of()), await store.get_thread(thread_key_of())
                    assert run is not None
                    assert thread is not None
                    assert (run.status, thread.status) == ("success", "idle")

        async def scenario(store: Store) -> None:
            lease = await started(store)
            readers = [spawn(follow(store)) for _ in range(5)]
            await turns()
            await store.finish(lease, [COMPLETE], SUCCESS)
            await asyncio.gather(*readers)

        play(backend, scenario)

    def test_nobody_ever_sees_the_status_without_the_terminal_event(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            finish = spawn(store.finish(lease, [COMPLETE], SUCCESS))
            while not finish.done():
                run = await store.get_run(key_of())
                page = await store.read(key_of(), after=0)
                assert run is not None
                assert not run.is_ended or page.closed
                assert not page.closed or page.events[-1].is_terminal
                await asyncio.sleep(0)
            await finish

        play(backend, scenario)

    @pytest.mark.parametrize(
        "events",
        [[], [token("a")], [COMPLETE, token("a")], [COMPLETE, COMPLETE]],
        ids=["none", "other", "early", "two"],
    )
    def test_an_end_without_exactly_one_terminal_event_at_its_end_is_refused(
        self, backend: Backend, events: list[NewEvent]
    ) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            with pytest.raises(ValueError, match="terminal"):
                await store.finish(lease, events, SUCCESS)
            assert len(await log_of(store, key_of())) == 1

        play(backend, scenario)

    def test_of_two_ends_at_once_one_is_written(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            outcomes = await asyncio.gather(
                outcome(store.finish(lease, [COMPLETE], SUCCESS)),
                outcome(store.append(lease, [token("between")])),
                outcome(store.finish(lease, [INTERRUPT], PAUSED)),
            )
            assert outcomes[0] == 2
            assert isinstance(outcomes[1], LogClosed)
            assert isinstance(outcomes[2], LogClosed)
            run = await store.get_run(key_of())
            assert run is not None
            assert (run.status, run.last_seq) == ("success", 2)

        play(backend, scenario)


def _changed(lease: Lease, **changes: Any) -> Lease:
    return replace(lease, **changes)


def _all_runs() -> RunQuery:
    return RunQuery(owner="owner")
