"""Threads, holds, lists and cancelling: one suite over every store."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.errors import Invalid, LeaseLost, ThreadBusy, ThreadNotFound
from app.runs.model import Admission, Run, Thread, scoped
from app.runs.store import RunQuery, Store, ThreadQuery
from tests.conformance.harness import (
    COMPLETE,
    START,
    SUCCESS,
    Backend,
    key_of,
    log_of,
    new_run,
    new_thread,
    outcome,
    play,
    spawn,
    started,
    thread_key_of,
    turns,
    until,
)


class TestCancel:
    def test_the_first_reason_stays(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            for reason in ("user", "disconnect"):
                run = await store.request_cancel(key_of(), reason)
                assert run is not None
                assert (run.status, run.cancel_reason) == ("running", "user")
            await store.append(lease, [])  # it is a note, the run still writes

        play(backend, scenario)

    def test_a_pending_run_notes_it_and_stays_pending(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.accept(new_run(), worker=None, start=None, admission=Admission(max_active=10))
            run = await store.request_cancel(key_of(), "user")
            assert run is not None
            assert (run.status, run.cancel_reason) == ("pending", "user")

        play(backend, scenario)

    def test_an_ended_run_and_an_unknown_one_are_left_alone(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            run = await store.request_cancel(key_of(), "user")
            assert run is not None
            assert (run.status, run.cancel_reason) == ("success", None)
            assert await store.request_cancel(key_of("nobody"), "user") is None

        play(backend, scenario)


class TestListRuns:
    def test_runs_come_newest_first_page_by_page(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await _runs(store, 7)
            seen: list[str] = []
            cursor: str | None = None
            for size in (3, 3, 1):
                runs, cursor = await store.list_runs(RunQuery(owner="owner", limit=3, cursor=cursor))
                assert len(runs) == size
                seen += [run.run_id for run in runs]
            assert cursor is None
            assert seen == [f"run-{number}" for number in reversed(range(7))]

        play(backend, scenario)

    def test_a_full_last_page_has_no_cursor(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await _runs(store, 2)
            runs, cursor = await store.list_runs(RunQuery(owner="owner", limit=2))
            assert (len(runs), cursor) == (2, None)

        play(backend, scenario)

    def test_they_are_filtered_by_owner_thread_and_status(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store, "other", owner="other")
            await store.finish(await started(store, "first"), [COMPLETE], SUCCESS)
            await started(store, "second")
            await started(store, "third", "thread-2")

            async def ids(**filters: Any) -> Sequence[str]:
                runs, _ = await store.list_runs(RunQuery(owner="owner", **filters))
                return [run.run_id for run in runs]

            assert await ids() == ["third", "second", "first"]
            assert await ids(thread_id="thread-1") == ["second", "first"]
            assert await ids(status="running") == ["third", "second"]
            assert await ids(thread_id="thread-1", status="success") == ["first"]
            assert await ids(thread_id="thread-9") == []

        play(backend, scenario)

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "1" * 30, "١"])
    def test_a_cursor_that_no_page_gave_is_invalid(self, backend: Backend, cursor: str) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(Invalid):
                await store.list_runs(RunQuery(owner="owner", cursor=cursor))

        play(backend, scenario)

    def test_the_active_run_of_a_thread_is_found_while_it_is_active(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            assert await store.active_run(thread_key_of()) is None
            lease = await started(store)
            active = await store.active_run(thread_key_of())
            assert active is not None
            assert active.run_id == "run-1"
            await store.finish(lease, [COMPLETE], SUCCESS)
            assert await store.active_run(thread_key_of()) is None

        play(backend, scenario)


class TestNextRun:
    def test_a_threads_runs_come_one_after_the_other_in_the_order_of_acceptance(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            assert await store.next_run(thread_key_of(), after=None) is None
            for number in range(3):
                await store.finish(await started(store, f"run-{number}"), [COMPLETE], SUCCESS)
                await store.finish(await started(store, f"other-{number}", "thread-2"), [COMPLETE], SUCCESS)
            await started(store, "run-3")
            following = [await store.next_run(thread_key_of(), after=key_of(f"run-{n}")) for n in range(4)]
            assert [None if run is None else run.run_id for run in following] == ["run-1", "run-2", "run-3", None]

        play(backend, scenario)

    def test_without_a_run_to_begin_after_it_is_the_threads_first_one_over_or_not(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store, "other", "thread-2")
            assert await store.next_run(thread_key_of(), after=None) is None
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            await started(store, "run-2")
            run = await store.next_run(thread_key_of(), after=None)
            assert run is not None
            assert run.run_id == "run-1"

        play(backend, scenario)

    def test_a_wait_returns_when_the_thread_gets_a_run_and_not_for_another_threads(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            again = spawn(store.wait_run(thread_key_of(), after=key_of()))
            first = spawn(store.wait_run(thread_key_of("thread-3"), after=None))
            await turns()
            await started(store, "other", "thread-2")
            await turns()
            assert not again.done()
            assert not first.done()
            await store.accept(new_run("run-2"), worker=None, start=None, admission=Admission(max_active=10))
            await until(again)
            assert not first.done()
            await store.accept(
                new_run("run-3", "thread-3"), worker=None, start=None, admission=Admission(max_active=10)
            )
            await until(first)
            await store.wait_run(thread_key_of(), after=key_of())

        play(backend, scenario)

    def test_one_who_follows_a_thread_misses_no_run(self, backend: Backend) -> None:
        async def follow(store: Store) -> list[str]:
            seen = ["run-0"]
            while len(seen) < 10:
                run = await store.next_run(thread_key_of(), after=key_of(seen[-1]))
                if run is None:
                    await store.wait_run(thread_key_of(), after=key_of(seen[-1]))
                else:
                    seen.append(run.run_id)
            return seen

        async def scenario(store: Store) -> None:
            followers = [spawn(follow(store)) for _ in range(3)]
            for number in range(10):
                await store.finish(await started(store, f"run-{number}"), [COMPLETE], SUCCESS)
                await turns(number)
            for follower in followers:
                assert await until(follower) == [f"run-{number}" for number in range(10)]

        play(backend, scenario)


class TestThread:
    def test_a_thread_is_stored_once_and_given_back_as_it_is(self, backend: Backend) -> None:
        thread = new_thread(graph="chat", metadata={"a": [1, {"b": None}]}, version=4, status="interrupted")

        async def scenario(store: Store) -> None:
            assert await store.create_thread(thread) == thread
            assert await store.create_thread(new_thread(metadata={"other": True})) is None
            assert await store.get_thread(thread.key) == thread
            assert await store.get_thread(thread_key_of("nobody")) is None

        play(backend, scenario)

    def test_metadata_is_merged_key_by_key_and_is_no_change_of_the_state(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread(metadata={"a": {"x": 1}, "b": 2}))
            thread = await store.update_thread(thread_key_of(), metadata={"a": {"y": 1}, "c": None})
            assert thread is not None
            assert thread.metadata == {"a": {"y": 1}, "b": 2, "c": None}
            assert (thread.version, thread.updated_at > thread.created_at) == (0, True)
            assert await store.get_thread(thread_key_of()) == thread
            assert await store.update_thread(thread_key_of("nobody"), metadata={}) is None

        play(backend, scenario)

    def test_two_updates_at_once_both_stay(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread())
            await asyncio.gather(*(store.update_thread(thread_key_of(), metadata={f"k{n}": n}) for n in range(10)))
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert thread.metadata == {f"k{n}": n for n in range(10)}

        play(backend, scenario)

    def test_a_held_thread_is_deleted_with_its_runs_and_their_logs(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            for number in range(3):
                await store.finish(await started(store, f"run-{number}"), [COMPLETE], SUCCESS)
            kept = await started(store, "kept", "thread-2")
            await store.hold(thread_key_of(), "w1")
            assert not await store.delete_thread(thread_key_of(), "w2")
            assert await store.delete_thread(thread_key_of(), "w1")
            assert await store.get_thread(thread_key_of()) is None
            for number in range(3):
                assert await store.get_run(key_of(f"run-{number}")) is None
                page = await store.read(key_of(f"run-{number}"), after=0)
                assert (list(page.events), page.closed) == ([], True)
                await store.wait(key_of(f"run-{number}"), after=2)
            assert len(await log_of(store, kept.run_key)) == 1

        play(backend, scenario)

    def test_a_thread_that_nobody_holds_is_not_deleted(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread())
            assert not await store.delete_thread(thread_key_of(), "w1")
            assert not await store.delete_thread(thread_key_of("nobody"), "w1")
            assert await store.get_thread(thread_key_of()) is not None

        play(backend, scenario)

    def test_after_a_delete_the_same_ids_begin_anew(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.finish(await started(store), [COMPLETE], SUCCESS)
            await store.hold(thread_key_of(), "w1")
            await store.delete_thread(thread_key_of(), "w1")
            accepted = await store.accept(new_run(), worker="w1", start=START, admission=Admission(max_active=10))
            assert accepted.created
            assert accepted.lease is not None
            assert accepted.lease.is_new_thread is True
            assert [event.seq for event in await log_of(store, key_of())] == [1]

        play(backend, scenario)


class TestHold:
    def test_a_hold_needs_a_thread_without_a_run_and_without_a_hold(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(ThreadNotFound):
                await store.hold(thread_key_of(), "w1")
            lease = await started(store)
            with pytest.raises(ThreadBusy) as busy:
                await store.hold(thread_key_of(), "w1")
            assert busy.value.fields["run_id"] == "run-1"
            await store.finish(lease, [COMPLETE], SUCCESS)
            held = await store.hold(thread_key_of(), "w1")
            assert (held.thread_id, held.status, held.version) == ("thread-1", "idle", 2)
            with pytest.raises(ThreadBusy):
                await store.hold(thread_key_of(), "w1")  # its own second edit waits, too

        play(backend, scenario)

    def test_of_ten_holds_and_runs_at_once_one_gets_the_thread(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread())
            runs = [
                store.accept(new_run(f"run-{n}"), worker="w1", start=START, admission=Admission(max_active=100))
                for n in range(5)
            ]
            holds = [store.hold(thread_key_of(), "w1") for _ in range(5)]
            outcomes = await asyncio.gather(*map(outcome, [*holds, *runs]))
            assert sum(isinstance(each, ThreadBusy) for each in outcomes) == 9

        play(backend, scenario)

    def test_a_release_without_a_status_changes_nothing_but_the_hold(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            before = await store.create_thread(new_thread(status="interrupted", version=3))
            await store.hold(thread_key_of(), "w1")
            await store.release(thread_key_of(), "w1", status=None)
            assert await store.get_thread(thread_key_of()) == before
            await started(store)

        play(backend, scenario)

    def test_a_release_with_a_status_sets_it_and_grows_the_version(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread(version=3))
            await store.hold(thread_key_of(), "w1")
            await store.release(thread_key_of(), "w1", status="interrupted", graph="essay")
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert (thread.status, thread.version, thread.graph) == ("interrupted", 4, "essay")

        play(backend, scenario)

    def test_a_release_gives_no_other_graph_to_a_thread_that_has_one(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread(graph="chat"))
            await store.hold(thread_key_of(), "w1")
            await store.release(thread_key_of(), "w1", status=None, graph="essay")
            await store.hold(thread_key_of(), "w1")
            await store.release(thread_key_of(), "w1", status="idle", graph="essay")
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert thread.graph == "chat"

        play(backend, scenario)

    def test_only_the_holder_releases(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.create_thread(new_thread())
            await store.hold(thread_key_of(), "w1")
            await store.release(thread_key_of(), "w2", status="error")
            with pytest.raises(ThreadBusy):
                await store.hold(thread_key_of(), "w2")
            thread = await store.get_thread(thread_key_of())
            assert thread is not None
            assert (thread.status, thread.version) == ("idle", 0)

        play(backend, scenario)


class TestSearchThreads:
    def test_threads_are_sorted_by_any_of_their_fields_both_ways(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await _threads(store)
            assert await _ids(store) == ["d", "c", "b", "a"]
            assert await _ids(store, descending=False) == ["a", "b", "c", "d"]
            assert await _ids(store, sort_by="thread_id") == ["d", "c", "b", "a"]
            assert await _ids(store, sort_by="status", descending=False) == ["c", "a", "b", "d"]
            await store.update_thread(thread_key_of("b"), metadata={})
            assert (await _ids(store, sort_by="updated_at"))[0] == "b"

        play(backend, scenario)

    def test_they_are_filtered_by_status_ids_and_metadata(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await _threads(store)
            await store.create_thread(new_thread("a", owner="other", metadata={"n": 1}))
            assert await _ids(store, status="idle") == ["d", "b", "a"]
            assert await _ids(store, ids=["a", "c", "nobody"]) == ["c", "a"]
            assert await _ids(store, ids=[]) == []
            assert await _ids(store, metadata={"n": 1}) == ["b", "a"]
            assert await _ids(store, metadata={"n": True}) == ["c"]
            assert await _ids(store, metadata={"n": 1, "deep": {"y": 2, "x": 1}}) == ["b"]
            assert await _ids(store, metadata={"missing": None}) == []
            assert await _ids(store, ids=["a", "b"], metadata={"deep": {"x": 1, "y": 2}}) == ["b"]

        play(backend, scenario)

    def test_they_come_in_pages_and_are_counted_without_them(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await _threads(store)
            assert await _ids(store, limit=2) == ["d", "c"]
            assert await _ids(store, limit=2, offset=3) == ["a"]
            assert await store.count_threads(ThreadQuery(owner="owner", limit=1, offset=3)) == 4
            assert await store.count_threads(ThreadQuery(owner="owner", metadata={"n": 1})) == 2
            assert await store.count_threads(ThreadQuery(owner="nobody")) == 0

        play(backend, scenario)

    def test_a_field_that_threads_are_not_sorted_by_is_invalid(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(Invalid):
                await store.search_threads(ThreadQuery(owner="owner", sort_by="metadata; DROP TABLE threads"))

        play(backend, scenario)


def test_a_store_that_works_answers_a_ping(backend: Backend) -> None:
    async def scenario(store: Store) -> None:
        await store.ping()

    play(backend, scenario)


def test_it_can_be_closed_twice(backend: Backend) -> None:
    async def scenario(store: Store) -> None:
        await store.aclose()
        await store.aclose()

    play(backend, scenario)


def test_a_lease_of_a_deleted_run_writes_nothing(backend: Backend) -> None:
    async def scenario(store: Store) -> None:
        lease = await started(store)
        await store.finish(lease, [COMPLETE], SUCCESS)
        await store.hold(thread_key_of(), "w1")
        await store.delete_thread(thread_key_of(), "w1")
        with pytest.raises(LeaseLost):
            await store.append(lease, [])

    play(backend, scenario)


async def _runs(store: Store, count: int) -> Sequence[Run]:
    return [
        (
            await store.accept(
                new_run(f"run-{n}", f"thread-{n}"), worker=None, start=None, admission=Admission(max_active=100)
            )
        ).run
        for n in range(count)
    ]


async def _threads(store: Store) -> None:
    rows: Sequence[tuple[str, Any, Any]] = (
        ("a", "idle", {"n": 1}),
        ("b", "idle", {"n": 1, "deep": {"x": 1, "y": 2}}),
        ("c", "error", {"n": True}),
        ("d", "idle", {"n": "1"}),
    )
    first: Thread = new_thread()
    for place, (thread_id, status, metadata) in enumerate(rows):
        moment = first.created_at.replace(minute=place)
        thread = new_thread(thread_id, status=status, metadata=metadata, created_at=moment, updated_at=moment)
        assert await store.create_thread(thread) == thread
        assert thread.key == scoped("owner", thread_id)


async def _ids(store: Store, **filters: Any) -> Sequence[str]:
    return [thread.thread_id for thread in await store.search_threads(ThreadQuery(owner="owner", **filters))]
