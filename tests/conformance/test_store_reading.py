"""Reading a log and waiting for what comes: one suite over every store."""

import asyncio

import pytest

from app.errors import StoreUnavailable
from app.runs.model import Admission
from app.runs.store import Store, tail
from tests.conformance.harness import (
    COMPLETE,
    START,
    SUCCESS,
    Backend,
    is_gapless,
    key_of,
    log_of,
    new_run,
    outcome,
    play,
    spawn,
    started,
    token,
    tokens,
    turns,
    until,
)


class TestRead:
    def test_a_page_begins_after_the_cursor_and_is_bounded_by_events(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.append(lease, tokens(5))
            await store.append(lease, tokens(4))
            for after in range(11):
                page = await store.read(key_of(), after=after, max_events=3)
                assert [event.seq for event in page.events] == list(range(after + 1, min(after + 4, 11)))
                assert not page.closed

        play(backend, scenario)

    def test_a_page_is_bounded_by_bytes_yet_holds_one_event_at_the_least(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.append(lease, tokens(6))
            sizes = [len(event.text) for event in await log_of(store, key_of())]
            for limit, count in ((0, 1), (sizes[1], 1), (sizes[1] + sizes[2] - 1, 1), (sum(sizes[1:4]), 3)):
                page = await store.read(key_of(), after=1, max_bytes=limit)
                assert [event.seq for event in page.events] == list(range(2, 2 + count))

        play(backend, scenario)

    def test_a_log_is_closed_on_the_page_with_its_end_and_after_it(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.append(lease, tokens(2))
            await store.finish(lease, [COMPLETE], SUCCESS)
            closed = [(await store.read(key_of(), after=after, max_events=2)).closed for after in range(6)]
            assert closed == [False, False, True, True, True, True]

        play(backend, scenario)

    def test_an_unknown_run_has_an_empty_closed_log(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            page = await store.read(key_of("nobody"), after=0)
            assert (list(page.events), page.closed) == ([], True)
            await store.wait(key_of("nobody"), after=0)

        play(backend, scenario)

    def test_a_large_log_comes_whole_in_pages_whatever_its_events_weigh(self, backend: Backend) -> None:
        weights = (10, 300_000, 5, 90_000, 90_000, 90_000, 1, 600_000, 20)

        async def scenario(store: Store) -> None:
            lease = await started(store)
            for _ in range(3):
                await store.append(lease, [token("x" * weight) for weight in weights])
            await store.finish(lease, [COMPLETE], SUCCESS)
            events = await log_of(store, key_of())
            assert is_gapless(events)
            assert len(events) == 2 + 3 * len(weights)
            lengths = [len(event.text) for event in events[1:-1]]
            assert [round(length, -3) for length in lengths] == [round(weight, -3) for weight in weights] * 3

        play(backend, scenario)

    def test_every_reader_gets_the_same_bytes_early_or_late(self, backend: Backend) -> None:
        async def follow(store: Store, after: int) -> bytes:
            return b"".join([event.text async for page in tail(store, key_of(), after=after) for event in page.events])

        async def scenario(store: Store) -> None:
            lease = await started(store)
            early = [spawn(follow(store, 0)) for _ in range(3)]
            for number in range(40):
                await store.append(lease, tokens(number % 5, f"{number}-"))
                if number == 20:
                    early.append(spawn(follow(store, 0)))
            await store.finish(lease, [COMPLETE], SUCCESS)
            texts = {await until(task) for task in early} | {await follow(store, 0)}
            assert len(texts) == 1

        play(backend, scenario)


class TestWait:
    def test_it_returns_at_once_when_something_is_there(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await started(store)
            await store.wait(key_of(), after=0)

        play(backend, scenario)

    def test_it_returns_when_an_append_comes(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            waiting = spawn(store.wait(key_of(), after=1))
            await turns()
            assert not waiting.done()
            await store.append(lease, tokens(1))
            await until(waiting)

        play(backend, scenario)

    def test_it_returns_when_the_first_event_of_a_pending_run_comes(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            await store.accept(new_run(), worker=None, start=None, admission=Admission(max_active=10))
            waiting = spawn(store.wait(key_of(), after=0))
            await turns()
            lease = await store.claim(key_of(), "w1")
            assert lease is not None
            await store.append(lease, [START])
            await until(waiting)

        play(backend, scenario)

    def test_a_wait_that_begins_after_the_close_returns_at_any_cursor(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            await store.finish(lease, [COMPLETE], SUCCESS)
            for after in (0, 1, 2, 99):
                await store.wait(key_of(), after=after)

        play(backend, scenario)

    def test_a_wait_that_begins_before_the_close_returns(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            waiting = [spawn(store.wait(key_of(), after=after)) for after in (1, 1, 50)]
            await turns()
            await store.finish(lease, [COMPLETE], SUCCESS)
            await until(asyncio.gather(*waiting))

        play(backend, scenario)

    def test_readers_that_wait_while_appends_come_miss_nothing(self, backend: Backend) -> None:
        async def follow(store: Store, after: int) -> list[int]:
            return [event.seq async for page in tail(store, key_of(), after=after) for event in page.events]

        async def scenario(store: Store) -> None:
            lease = await started(store)
            readers = [spawn(follow(store, after)) for after in range(10)]
            for number in range(60):
                await store.append(lease, tokens(number % 3))
                await turns(number % 4)
            last = await store.finish(lease, [COMPLETE], SUCCESS)
            for after, reader in enumerate(readers):
                assert await until(reader) == list(range(after + 1, last + 1))

        play(backend, scenario)

    def test_waiters_that_leave_do_not_disturb_the_others(self, backend: Backend) -> None:
        async def scenario(store: Store) -> None:
            lease = await started(store)
            waiting = [spawn(store.wait(key_of(), after=1)) for _ in range(40)]
            await turns()
            for task in waiting[::2]:
                task.cancel()
            timed_out = [outcome(asyncio.wait_for(store.wait(key_of(), after=1), 0.001)) for _ in range(20)]
            assert all(isinstance(each, TimeoutError) for each in await asyncio.gather(*timed_out))
            await store.append(lease, tokens(1))
            await until(asyncio.gather(*waiting[1::2]))
            await store.wait(key_of(), after=1)

        play(backend, scenario)

    def test_a_store_that_is_closed_wakes_its_readers_and_tells_them(self, backend: Backend) -> None:
        async def follow(store: Store) -> None:
            async for _ in tail(store, key_of(), after=0):
                pass

        async def scenario(store: Store) -> None:
            await started(store)
            reading = spawn(follow(store))
            await turns()
            await store.aclose()
            with pytest.raises(StoreUnavailable):
                await until(reading)
            with pytest.raises(StoreUnavailable):
                await store.ping()

        play(backend, scenario)
