"""In which order the checkpoints of a run and the writes of its tasks get into the database.

What is saved under a checkpoint that is not there would be lost with it; and a checkpoint that has taken up what a task
wrote must not be there before the task's own record is: the task would be over, and nobody would know of it.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from app.engine.backend import Backend
from app.engine.fence import pass_fence
from app.errors import LeaseLost, StoreUnavailable
from app.runs.model import Lease

Save = Callable[[sqlite3.Connection], object]


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
        self._orders: dict[Any, asyncio.Lock] = {}  # of those writes
        self._followers: dict[Any, Follower] = {}  # by the checkpoints whose writes they have taken up
        self._saving: dict[str, Any] = {}  # of graphs in other threads: the checkpoints that tasks' writes belong to
        self._tasks: set[str] = set()  # those whose writes are saved
        self._is_task_lost = False
        self._changed = asyncio.Event()
        self.newest: CheckpointTuple | None = None  # of the graph itself, as long as nothing was written to it

    def add(self, config: RunnableConfig) -> None:
        """The checkpoint that a config names is saved."""
        self._ids.add(config["configurable"].get("checkpoint_id"))
        self._wake()

    def write_to(self, config: RunnableConfig) -> None:
        """Something is to be saved with the checkpoint that a config names."""
        if self.newest is not None and self.newest.checkpoint["id"] == config["configurable"].get("checkpoint_id"):
            self.newest = None

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
            if not self._to_submit[checkpoint_id]:
                self._orders.pop(checkpoint_id, None)
            self._wake()

    def order(self, config: RunnableConfig) -> asyncio.Lock:
        """Writes that belong to one checkpoint are handed over in the order in which they come here, one by one.

        A function that calls tasks is over when its own writes are saved: a crash would lose the events of those that
        they have overtaken. Only for who is `writing`; those of other checkpoints must not be waited for, since this
        one's may wait for them.
        """
        return self._orders.setdefault(config["configurable"].get("checkpoint_id"), asyncio.Lock())

    @contextmanager
    def following(self, config: RunnableConfig, follower: "Follower") -> Iterator[None]:
        """While a checkpoint waits for the writes that it has taken up."""
        checkpoint_id = config["configurable"].get("checkpoint_id")
        self._followers[checkpoint_id] = follower
        try:
            yield
        finally:
            if self._followers.get(checkpoint_id) is follower:  # children that share their state may save at one place
                del self._followers[checkpoint_id]

    def follower(self, config: RunnableConfig) -> "Follower | None":
        """The checkpoint that waits for nothing but these writes, if one does; for who is `writing` them."""
        checkpoint_id = config["configurable"].get("checkpoint_id")
        if self._to_submit[checkpoint_id] > 1 or checkpoint_id in self._unwritten:
            return None
        return self._followers.get(checkpoint_id)

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


@dataclass(slots=True, eq=False)
class Follower:
    """A checkpoint that waits for writes. The last of them take it along: both are one transaction then.

    So it is after each step of one task. After one of several LangGraph begins to save it some turns of the loop later.
    Where the checkpoint can't be saved, the writes are not either: the task is not done, and nobody was told it is.
    """

    save: Save
    begun: asyncio.Future[None] | None = None  # there when it was taken along


class Saves:
    """The saves of one attempt, each in a transaction that its lease fences.

    Each one that was begun is ended, whoever is cancelled, and none begins after it: LangGraph's own tasks outlive a
    graph that is cancelled while it waits for them, and would save one more checkpoint when the run has ended.

    A save that need not be durable before the next one is deferred until then. Such is a graph's input: LangGraph saves
    it, then what its entry makes of it, and then the state that the first node begins from, which alone must be there
    before the node does. Until then a crash finds the input in the run's row.
    """

    def __init__(self, backend: Backend, lease: Lease | None) -> None:
        self._backend = backend
        self._lease = lease
        self._deferred: list[Save] = []
        self._deferred_ids: set[str] = set()
        self._begun: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    @property
    def has_deferred(self) -> bool:
        return bool(self._deferred)

    def defers(self, checkpoint_id: str) -> bool:
        """Whether this checkpoint is yet to be saved, with the next save."""
        return checkpoint_id in self._deferred_ids

    def defer(self, save: Save, checkpoint_id: str) -> None:
        """Carry a save out in the transaction of the next one. `checkpoint_id`: the checkpoint that it belongs to.

        Raises LeaseLost when the attempt is over.
        """
        self._require_open()
        self._deferred.append(save)
        self._deferred_ids.add(checkpoint_id)

    async def run(self, *saves: Save) -> None:
        """Return when what was deferred and then these are saved, in one transaction.

        Raises LeaseLost when the attempt is over.
        """
        await self.finished(self.begin(*saves))

    def begin(self, *saves: Save) -> asyncio.Future[None]:
        """The same, for who waits with `finished`."""
        self._require_open()
        return self._begin(saves)

    async def finished(self, begun: asyncio.Future[None]) -> None:
        """Return when what was begun is saved."""
        # cancelled between its start and its commit, a save would leave a step without its checkpoint (fact 26)
        await asyncio.shield(begun)

    async def close(self) -> None:
        """Let nothing more begin, and return when all that was begun is saved or has failed.

        Raises what kept the deferred ones from being saved.
        """
        last = self._begin(()) if self._deferred else None
        self._is_closed = True
        if self._begun:
            await asyncio.wait(self._begun)
        if last is not None:
            last.result()

    def _begin(self, saves: Sequence[Save]) -> asyncio.Future[None]:
        """Hand them to the database, which keeps the order."""
        lease, together = self._lease, [*self._deferred, *saves]
        self._deferred.clear()
        self._deferred_ids.clear()

        def fenced(connection: sqlite3.Connection) -> None:
            if lease is not None:
                pass_fence(connection, lease)
            for save in together:
                save(connection)

        # it outlives who began it; where it is a future already, there is no task
        begun = asyncio.ensure_future(self._backend.write(fenced))  # noqa: TID251
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)
        return begun

    def _require_open(self) -> None:
        if self._is_closed:
            raise LeaseLost("This attempt has ended.")
