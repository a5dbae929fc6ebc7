"""The threads that sync nodes run in.

They are the event loop's default executor, since that is where LangGraph sends a sync node. A node that is cancelled
goes on in its thread (fact 12), so a run has to know which of these are still its own before its thread is released.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

THREAD_NAME: Final = "node"
JOIN_SECONDS: Final = 0.2  # an idle thread of a pool that is shut down ends in no time

_calls_of_run: contextvars.ContextVar[set[Future[Any]] | None] = contextvars.ContextVar("calls_of_run", default=None)


class NodeThreads(ThreadPoolExecutor):
    """A thread pool that notes, for each run, the calls that have not returned."""

    def __init__(self, max_threads: int) -> None:
        super().__init__(max_threads, thread_name_prefix=THREAD_NAME)

    @property
    def waiting(self) -> int:
        """Calls for which there is no thread yet."""
        return self._work_queue.qsize()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        calls = _calls_of_run.get()
        if calls is not None:
            calls.add(future)
            future.add_done_callback(calls.discard)
        return future


def any_stuck() -> bool:
    """Whether, in a pool that is shut down, a node has not returned: Python would wait for its thread for ever."""
    for thread in threading.enumerate():
        if thread.name.startswith(THREAD_NAME):
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                return True
    return False


def note_calls() -> set[Future[Any]]:
    """From here on, in this task and those it starts, calls are noted in the set that is returned."""
    calls: set[Future[Any]] = set()
    _calls_of_run.set(calls)
    return calls


class NodeExited(Exception):
    """A node raised SystemExit or KeyboardInterrupt: it ends its run, not the server."""


def contain_exits(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """The loop's task factory. asyncio lets SystemExit and KeyboardInterrupt out of the loop: not those of nodes."""
    context = options.get("context")
    if context is None:
        context = contextvars.copy_context()
    if context.get(_calls_of_run) is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    contained = asyncio.Task(_contained(coroutine, context), loop=loop, **options)
    contained.add_done_callback(lambda _: coroutine.close())  # one that was cancelled before its first step never ran
    return contained


async def _contained(coroutine: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
    """`context` is the coroutine's own, for whoever looks at this frame (app/engine/culprit.py)."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise NodeExited(f"a node raised {type(error).__name__}") from error


CONTAINED: Final = _contained.__code__


async def returned(calls: set[Future[Any]], seconds: float) -> bool:
    """Wait, at most so long, until all of these calls have returned. False when one has not."""
    waiting = [asyncio.wrap_future(future) for future in list(calls)]
    if not waiting:
        return True
    _, late = await asyncio.wait(waiting, timeout=seconds)
    return not late
