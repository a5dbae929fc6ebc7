"""In which order the checkpoints of a run and the writes of its tasks get into the database.

What is saved under a checkpoint that is not there would be lost with it; and a checkpoint that has taken up what a task
wrote must not be there before the task's own record is: the task would be over, and nobody would know of it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig

from app.errors import StoreUnavailable


class SavedCheckpoints:
    """For the loop's own thread.

    With durability `async` LangGraph goes on while it saves a checkpoint, and saves one after the other: the writes of
    a node may come before the checkpoint they belong to. A crash between the two would run the node again.
    """

    def __init__(self) -> None:
        self._ids: set[Any] = set()
        self._is_broken = False
        self._to_submit: Counter[Any] = Counter()  # writes that wait for their turn, by the checkpoint they belong to
        self._unwritten: set[Any] = set()  # the checkpoints whose writes never had theirs
        self._changed = asyncio.Event()

    def add(self, config: RunnableConfig) -> None:
        """The checkpoint that a config names is saved."""
        self._ids.add(config["configurable"].get("checkpoint_id"))
        self._wake()

    def break_off(self) -> None:
        """One could not be saved, so those after it never will be."""
        self._is_broken = True
        self._wake()

    async def wait(self, config: RunnableConfig) -> None:
        """Return when the checkpoint that a config names is saved, and those of the graphs round it.

        Raises StoreUnavailable when they never will be.
        """
        configurable = config["configurable"]
        needed = {configurable.get("checkpoint_id"), *configurable.get("checkpoint_map", {}).values()} - {None, ""}
        while not needed <= self._ids:
            if self._is_broken:
                raise StoreUnavailable("A checkpoint could not be saved.")
            await self._changed.wait()

    @contextmanager
    def writing(self, config: RunnableConfig) -> Iterator[None]:
        """Until writes that belong to a checkpoint are handed to the database, which keeps the order."""
        checkpoint_id = config["configurable"].get("checkpoint_id")
        self._to_submit[checkpoint_id] += 1
        try:
            yield
        except BaseException:
            self._unwritten.add(checkpoint_id)
            raise
        finally:
            self._to_submit[checkpoint_id] -= 1
            self._wake()

    async def wait_for_writes(self, config: RunnableConfig) -> None:
        """Return when all writes that belong to this checkpoint, and were begun, are handed over.

        Raises StoreUnavailable when one of them never will be.
        """
        checkpoint_id = config["configurable"].get("checkpoint_id")
        while self._to_submit[checkpoint_id]:
            await self._changed.wait()
        if checkpoint_id in self._unwritten:
            raise StoreUnavailable("What a task wrote could not be saved.")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
