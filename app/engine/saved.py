"""In which order the checkpoints of a run and the writes of its tasks get into the database.

What is saved under a checkpoint that is not there would be lost with it; and a checkpoint that has taken up what a task
wrote must not be there before the task's own record is: the task would be over, and nobody would know of it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig

from app.errors import LeaseLost, StoreUnavailable

T = TypeVar("T")


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
        self._saving: dict[str, Any] = {}  # of graphs in other threads: the checkpoints that tasks' writes belong to
        self._tasks: set[str] = set()  # those whose writes are saved
        self._is_task_lost = False
        self._changed = asyncio.Event()

    def add(self, config: RunnableConfig) -> None:
        """The checkpoint that a config names is saved."""
        self._ids.add(config["configurable"].get("checkpoint_id"))
        self._wake()

    @contextmanager
    def putting(self) -> Iterator[None]:
        """While a checkpoint is saved. Where one can't be, those after it never will be."""
        try:
            yield
        except BaseException:
            self._is_broken = True
            self._wake()
            raise

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

    @contextmanager
    def saving(self, task_id: str, config: RunnableConfig) -> Iterator[None]:
        """Until the writes of a task, which belong to a checkpoint, are saved or never will be."""
        self._saving[task_id] = config["configurable"].get("checkpoint_id")
        self._wake()
        try:
            yield
        except BaseException:
            self._is_task_lost = True
            raise
        finally:
            self._tasks.add(task_id)
            self._wake()

    async def wait_for_tasks(self, task_ids: Collection[str], config: RunnableConfig) -> None:
        """Return when the writes of those of these tasks that belong to this checkpoint are saved.

        Those of later tasks wait for the next checkpoint themselves. Raises StoreUnavailable when some never will be.
        """
        checkpoint_id = config["configurable"].get("checkpoint_id")
        while not self._is_task_lost:
            if all(id in self._tasks or self._saving.get(id, checkpoint_id) != checkpoint_id for id in task_ids):
                return
            await self._changed.wait()
        raise StoreUnavailable("What a task wrote could not be saved.")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Saves:
    """The saves of one attempt: each one that was begun is ended, whoever is cancelled, and none begins after it.

    LangGraph's own tasks outlive a graph that is cancelled while it waits for them, and would save one more checkpoint
    when the run has ended.
    """

    def __init__(self) -> None:
        self._begun: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    async def run(self, save: Callable[[], Awaitable[T]]) -> T:
        """What `save` gives. Raises LeaseLost when the attempt is over."""
        if self._is_closed:
            raise LeaseLost("This attempt has ended.")
        # cancelled between its start and its commit, a save would leave a step without its checkpoint (fact 26)
        begun = asyncio.ensure_future(save())  # noqa: TID251 it outlives who began it
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        return await asyncio.shield(begun)

    async def close(self) -> None:
        """Let nothing more begin, and return when all that was begun is saved or has failed."""
        self._is_closed = True
        if self._begun:
            await asyncio.wait(self._begun)
