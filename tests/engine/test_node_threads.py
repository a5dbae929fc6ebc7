"""Threads of sync nodes: a run knows which calls are still its own."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from app.engine.node_threads import NodeThreads, contain_exits, note_calls, returned
from tests.engine.attempt import play


def with_threads(scenario: Callable[[], Awaitable[Any]]) -> Any:
    """Plays a scenario in a loop whose default executor is a NodeThreads."""
    threads = NodeThreads(4)

    async def inside() -> Any:
        asyncio.get_running_loop().set_default_executor(threads)
        return await scenario()

    try:
        return play(inside)
    finally:
        threads.shutdown(wait=True)


def test_a_call_is_noted_until_it_has_returned() -> None:
    async def scenario() -> None:
        calls, go_on = note_calls(), threading.Event()
        call = asyncio.ensure_future(asyncio.to_thread(go_on.wait, 10))  # noqa: TID251
        await asyncio.sleep(0)
        assert calls
        assert not await returned(calls, 0)
        go_on.set()
        assert await returned(calls, 10)
        await call
        assert not calls

    with_threads(scenario)


def test_a_call_whose_caller_was_cancelled_is_still_waited_for() -> None:
    async def scenario() -> None:
        calls, begun, go_on = note_calls(), asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(10)

        call = asyncio.ensure_future(asyncio.to_thread(work))  # noqa: TID251
        await begun.wait()
        call.cancel()
        await asyncio.wait({call})
        assert not await returned(calls, 0)
        go_on.set()
        assert await returned(calls, 10)

    with_threads(scenario)


def test_runs_do_not_see_each_others_calls() -> None:
    async def scenario() -> None:
        go_on = threading.Event()

        async def run() -> set[Any]:
            calls = note_calls()
            waiting = asyncio.ensure_future(asyncio.to_thread(go_on.wait, 10))  # noqa: TID251
            await asyncio.sleep(0)
            waiting.add_done_callback(lambda _: None)
            return calls

        first = await asyncio.ensure_future(run())  # noqa: TID251
        second = await asyncio.ensure_future(run())  # noqa: TID251
        assert len(first) == len(second) == 1
        assert first.isdisjoint(second)
        go_on.set()
        assert await returned(first | second, 10)

    with_threads(scenario)


def test_a_call_that_raises_has_returned_too() -> None:
    async def scenario() -> None:
        calls = note_calls()

        def fails() -> None:
            raise ValueError

        await asyncio.gather(asyncio.to_thread(fails), return_exceptions=True)
        assert await returned(calls, 10)

    with_threads(scenario)


def test_calls_outside_of_a_run_are_nobodys() -> None:
    async def scenario() -> int:
        return await asyncio.to_thread(lambda: 1)

    assert with_threads(scenario) == 1


def test_there_is_nothing_to_wait_for_when_nothing_was_called() -> None:
    assert play(lambda: returned(set(), 0))


def test_what_a_node_began_and_was_stopped_before_its_first_step_is_no_loose_end() -> None:
    async def never() -> None:
        raise AssertionError("it never begins")

    async def scene() -> str:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(contain_exits)  # type: ignore[arg-type] # as typeshed has it, it takes no options
        note_calls()
        coroutine = never()
        task = loop.create_task(coroutine)
        task.cancel()
        await asyncio.wait({task})
        return inspect.getcoroutinestate(coroutine)

    assert asyncio.run(scene()) == inspect.CORO_CLOSED
