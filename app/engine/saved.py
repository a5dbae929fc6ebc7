"""Which checkpoints of a run are in the database: what is saved under one that is not would be lost with it."""

import asyncio
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

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
