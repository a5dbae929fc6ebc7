"""A coroutine in a loop of its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def ran(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)
