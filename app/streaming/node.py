"""What the decorators and helpers have in common: a node's stream writer, and a way to be round a call of it."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from langgraph.config import get_stream_writer

Node = TypeVar("Node", bound=Callable[..., Any])
Around = Callable[[tuple[Any, ...]], AbstractContextManager[Callable[[Any], None]]]


def writer() -> Callable[[Any], None] | None:
    """The stream writer of the node that runs; None outside of a running graph."""
    try:
        return get_stream_writer()
    except (RuntimeError, KeyError):
        return None


def wrapped(node: Node, around: Around) -> Node:
    """The same callable, sync or async, with a context round each call; the context is told what the call returned."""
    if is_async(node):

        @functools.wraps(node)
        async def call(*args: Any, **kwargs: Any) -> Any:
            with around(args) as done:
                result = await node(*args, **kwargs)
                done(result)
                return result
    else:

        @functools.wraps(node)
        def call(*args: Any, **kwargs: Any) -> Any:
            with around(args) as done:
                result = node(*args, **kwargs)
                done(result)
                return result

    return call  # type: ignore[return-value]  # the same signature as the node's


def is_async(node: Callable[..., Any]) -> bool:
    """Of functions, and of objects that are called like one."""
    return inspect.iscoroutinefunction(node) or inspect.iscoroutinefunction(getattr(node, "__call__", None))  # noqa: B004 its kind is asked for, not whether it is there
