"""What an `error` event says (wire contract, section 2): put together here, whoever finds that a run has failed."""

from typing import Any

import orjson

from app.runs.event import NewEvent
from app.runs.model import RunError


def error_fields(error: RunError, *, run_id: str, retryable: bool, node: str | None = None) -> dict[str, Any]:
    """What stands between the `event` and the `usage` of an `error` event, in the order of the wire.

    `retryable`: going on with the thread may succeed without any change to it; `node`: who failed, where that is shown.
    """
    return {"error": error.message, "code": error.code, "node": node, "run_id": run_id, "retryable": retryable}


def error_event(error: RunError, *, run_id: str, retryable: bool) -> NewEvent:
    """The end of a run of which no attempt says how it ended: no node failed, and what it used is not known."""
    fields = error_fields(error, run_id=run_id, retryable=retryable)
    return NewEvent("error", orjson.dumps({"event": "error", **fields, "usage": None}))
