"""Events that are too large to send: what a client needs to go on stays, the rest is read from the thread's state."""

from typing import Any, Final

import orjson

from app.engine.jsonable import dumps
from app.runs.event import NewEvent

# of the `data` of a message's frames: whose it is, and that it is over
KEPT: Final = ("id", "message_id", "name", "role", "index", "status", "last")
SPOKEN: Final = frozenset({"token", "tool_call", "tool_call_delta", "tool_result"})


def fitted(event: NewEvent, *, max_bytes: int, thread_id: str) -> NewEvent:
    """The event, or a short form of it that says `truncated` and where the state is (wire contract, section 2)."""
    if len(event.text) <= max_bytes:
        return event
    frame = orjson.loads(event.text)
    if "data" in frame:
        frame["data"] = kept_data(event.kind, frame["data"])
    if "interrupts" in frame:
        frame["interrupts"] = [{**asked, "value": None, "response_schema": None} for asked in frame["interrupts"]]
    if "partial" in frame:
        frame["partial"] = {}
    frame.pop("output", None)
    return NewEvent(event.kind, dumps({**frame, "truncated": True, "state_url": f"/threads/{thread_id}/state"}))


def kept_data(kind: str, data: Any) -> dict[str, Any]:
    if kind not in SPOKEN or not isinstance(data, dict):
        return {}
    kept = {key: data[key] for key in KEPT if key in data}
    if isinstance(block := data.get("block"), dict):
        kept["block"] = {"type": block.get("type")}
    return kept
