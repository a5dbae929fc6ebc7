"""A client of Runstream on httpx: `Client` and `AsyncClient`, frames as typed dicts, a mirror of the state.

Iterators give every frame once and in order, whatever the connection does: a drop or a stall is answered by coming back
with the id of the last frame that was whole, and a start that may have been lost is repeated under the run's own id, so
nothing runs twice.
"""

from runstream_client.async_client import AsyncClient
from runstream_client.client import Client
from runstream_client.error import ConnectionLost, PatchError, ProblemError, RunstreamClientError
from runstream_client.frame import (
    CancelledFrame,
    CompleteFrame,
    CustomFrame,
    DiscardFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    Interrupt,
    InterruptFrame,
    LangGraphFrame,
    NodeFrame,
    NodeStartFrame,
    Operation,
    ProgressFrame,
    RestartFrame,
    StartFrame,
    StateFrame,
    TokenFrame,
    ToolCallDeltaFrame,
    ToolCallFrame,
    ToolResultFrame,
    is_end,
)
from runstream_client.mirror import StateMirror, apply_patch
from runstream_client.request import RetryPolicy, RunBody, StreamMode, TokenPolicy, View
from runstream_client.result import InvokeResult, Run, ThreadState
from runstream_client.transcript import Transcript, text

__all__ = [
    "AsyncClient",
    "CancelledFrame",
    "Client",
    "CompleteFrame",
    "ConnectionLost",
    "CustomFrame",
    "DiscardFrame",
    "EndFrame",
    "ErrorFrame",
    "Frame",
    "Interrupt",
    "InterruptFrame",
    "InvokeResult",
    "LangGraphFrame",
    "NodeFrame",
    "NodeStartFrame",
    "Operation",
    "PatchError",
    "ProblemError",
    "ProgressFrame",
    "RestartFrame",
    "RetryPolicy",
    "Run",
    "RunBody",
    "RunstreamClientError",
    "StartFrame",
    "StateFrame",
    "StateMirror",
    "StreamMode",
    "ThreadState",
    "TokenFrame",
    "TokenPolicy",
    "ToolCallDeltaFrame",
    "ToolCallFrame",
    "ToolResultFrame",
    "Transcript",
    "View",
    "apply_patch",
    "is_end",
    "text",
]
