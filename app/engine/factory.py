"""Factories: functions that make a graph when it is needed, and may hold something open while it is used.

Every kind is told by what a call gives, so decorated, partial and undecorated ones are all the same: a coroutine is
awaited; an async generator or context manager is entered in the loop; a sync one in a thread; the rest is the graph.

Sync code runs in a thread of its own, because a factory that opens a connection or asks a service which models it has
would hold up every stream of the server while it waits. A factory that needs the running loop is an `async def`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

Factory = Callable[..., object]


def is_factory(value: object) -> bool:
    """Whether a value can be called for a graph; of classes, only context managers can."""
    if isinstance(value, type):
        return issubclass(value, AbstractAsyncContextManager | AbstractContextManager)
    return callable(value)


def argument(factory: Factory) -> inspect.Parameter | None:
    """The parameter that takes the config: the only one without a default, or an optional one that is a config by its
    name or its type. None when the factory is called with nothing. Raises `TypeError` when it wants more than that."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a builtin that does not tell
        return None
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    required = [each for each in named if each.default is each.empty]
    if len(required) > 1:
        names = ", ".join(each.name for each in required)
        raise TypeError(f"it takes {len(required)} arguments ({names}); a factory takes none, or the config")
    return next(iter(required or [each for each in named if _is_config(each)]), None)


def _is_config(parameter: inspect.Parameter) -> bool:
    return parameter.name == "config" or parameter.annotation in (RunnableConfig, "RunnableConfig")


async def make(factory: Factory, config: Mapping[str, Any], stack: AsyncExitStack) -> object:
    """Calls a factory, and enters what it gives if that is to be entered: it stays open until `stack` closes.

    Returns the graph, or whatever the user's code made instead. Raises what that raises.
    """
    call = _call(factory, config)
    thread = await stack.enter_async_context(_own_thread())
    if inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory):
        made = call()
    else:
        made = await asyncio.get_running_loop().run_in_executor(thread, _contained, call)
    if inspect.isawaitable(made):
        made = await made
    return await _entered(made, thread, stack)


def _call(factory: Factory, config: Mapping[str, Any]) -> Callable[[], object]:
    parameter = argument(factory)
    if parameter is None:
        return factory
    given = {"tags": [], "metadata": {}, **config, "configurable": dict(config.get("configurable") or {})}
    first = next(iter(inspect.signature(factory).parameters))
    if parameter.kind is parameter.KEYWORD_ONLY or parameter.name != first:
        return partial(factory, **{parameter.name: given})
    return partial(factory, given)


async def _entered(made: object, thread: ThreadPoolExecutor, stack: AsyncExitStack) -> object:
    if isinstance(made, Pregel | StateGraph):
        return made
    if inspect.isasyncgen(made):
        return await stack.enter_async_context(asynccontextmanager(lambda: made)())
    if inspect.isgenerator(made):
        return await stack.enter_async_context(_in_thread(contextmanager(lambda: made)(), thread))
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(made)
    if isinstance(made, AbstractContextManager):
        return await stack.enter_async_context(_in_thread(made, thread))
    return made


@asynccontextmanager
async def _own_thread() -> AsyncIterator[ThreadPoolExecutor]:
    """One thread for all sync parts of one opening: a lock or a SQLite connection is left where it was entered."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="graph-factory")
    try:
        yield executor
    finally:
        executor.shutdown(wait=False)


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[object], thread: ThreadPoolExecutor) -> AsyncIterator[object]:
    inner = ExitStack()
    try:
        made = await asyncio.get_running_loop().run_in_executor(thread, _contained, inner.enter_context, manager)
    except BaseException:
        thread.submit(inner.close)  # cancelled while it enters: the thread goes on, and leaves when it has entered
        raise
    error: BaseException | None = None
    try:
        yield made
    except BaseException as raised:
        error = raised
        raise
    finally:
        leave = thread.submit(_contained, inner.__exit__, type(error) if error else None, error, None)
        await asyncio.shield(asyncio.wrap_future(leave))  # a second cancel may stop the waiting, not the leaving


def _contained(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except StopIteration as error:  # asyncio's futures refuse it, and whoever waits would wait for ever
        raise RuntimeError("StopIteration was raised") from error
