"""Mends a gap of LangGraph's (1.2.22): with durability `sync`, a subgraph that was compiled with `checkpointer=False`
raises AttributeError after its first step, since its loop waits for a save that it never began.
"""

from collections.abc import Iterator

from langgraph.pregel._loop import AsyncPregelLoop, SyncPregelLoop


class NothingSaved:
    """Stands where a loop keeps its save under way, as long as there was none: there is nothing to wait for."""

    def __await__(self) -> Iterator[None]:
        return iter(())

    def result(self) -> None:
        return None


def mend_loops() -> None:
    """Give both loops of LangGraph a save that is over. Does nothing where they have one."""
    for loop in (AsyncPregelLoop, SyncPregelLoop):
        if not hasattr(loop, "_put_checkpoint_fut"):
            loop._put_checkpoint_fut = NothingSaved()  # type: ignore[assignment]
