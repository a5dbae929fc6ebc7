"""Whose code it is that the event loop's thread runs, as seen from another thread."""

from contextvars import Context
from types import FrameType

from langchain_core.runnables.config import var_child_runnable_config

from app.engine.node_threads import CONTAINED
from app.runs.label import RunLabel, current_run


def who_runs(frame: FrameType) -> tuple[RunLabel, str | None] | None:
    """The run and the node whose task a frame belongs to; None when it is no run's.

    A task's context can't be read from outside before Python 3.12, so the one round it holds it (`contain_exits`).
    """
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code is CONTAINED:
            return read(outer.f_locals["context"])
        outer = outer.f_back
    return None


def read(context: Context) -> tuple[RunLabel, str | None] | None:
    label = context.get(current_run)
    if label is None:
        return None
    config = context.get(var_child_runnable_config) or {}
    return label, config.get("metadata", {}).get("langgraph_node")
