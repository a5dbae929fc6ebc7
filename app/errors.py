"""The errors that a client is told about, as a tree.

    RunstreamError                    has a `code`, a sentence that is safe to show, and fields for the problem body
    ├── NotFound
    │   ├── GraphNotFound             graph_not_found        names under `graphs`
    │   ├── ThreadNotFound            thread_not_found
    │   ├── CheckpointNotFound        checkpoint_not_found
    │   └── RunNotFound               run_not_found
    ├── Conflict
    │   ├── GraphMismatch             graph_mismatch
    │   ├── ThreadBusy                thread_busy            the other run under `run_id`
    │   ├── ThreadExists              thread_exists
    │   ├── ThreadInterrupted         thread_interrupted     pending interrupts under `interrupts`
    │   ├── NothingToContinue         nothing_to_continue
    │   ├── NothingToResume           nothing_to_resume
    │   ├── UnknownInterrupt          unknown_interrupt      pending interrupts under `interrupts`
    │   ├── AmbiguousResume           ambiguous_resume       pending interrupts under `interrupts`
    │   ├── IdempotencyConflict       idempotency_conflict
    │   ├── EventIdAhead              event_id_ahead
    │   └── RunNotFinished            run_not_finished
    ├── Invalid                       invalid_request        `errors: [{loc, msg}]`
    │   ├── NotSupported              not_supported
    │   └── ModeNotRecorded           mode_not_recorded
    ├── BadEventId                    bad_event_id
    ├── EventsExpired                 events_expired         the thread's state is at `state_url`
    ├── Unauthorized                  unauthorized           comes with WWW-Authenticate
    ├── Forbidden                     forbidden
    ├── AuthUnavailable               auth_unavailable       comes with Retry-After
    ├── RateLimited                   rate_limited           comes with Retry-After
    ├── HostNotAllowed                host_not_allowed
    ├── OriginNotAllowed              origin_not_allowed
    ├── NotAcceptable                 not_acceptable
    ├── UnsupportedMediaType          unsupported_media_type
    ├── BodyTooLarge                  body_too_large
    ├── BodyTimeout                   body_timeout
    ├── HeaderTimeout                 header_timeout
    ├── HeadersTooLarge               headers_too_large
    ├── TooManyRuns                   too_many_runs          comes with Retry-After
    ├── TooManyStreams                too_many_streams       comes with Retry-After
    ├── GraphUnavailable              graph_unavailable      the reason under `reason`
    ├── ShuttingDown                  shutting_down          comes with Retry-After
    ├── StoreUnavailable              store_unavailable      comes with Retry-After
    └── RunFailed                     what a failed run answers to an invoke; its code is the run's

    LimitExceeded                     not for clients: raised in a node that says more than its run may
    LeaseLost                         not for clients: this process does not own the run any more
    LogClosed                         not for clients: an append after the terminal event
    ConfigInvalid                     not for clients: a configuration that can't be used, as a sentence
    StaleThread                       not for clients: a thread changed under a check, which is made again

Nothing here knows HTTP: `app.api.problem` has the one table from an error to its status.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class RunstreamError(Exception):
    """Something a client is told. `str(error)` is the sentence; `fields` go into the problem body as they are."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields: Mapping[str, Any] = fields


class NotFound(RunstreamError):
    code = "not_found"


class GraphNotFound(NotFound):
    code = "graph_not_found"

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"No graph is named {name!r}.", graphs=list(names))


class ThreadNotFound(NotFound):
    code = "thread_not_found"

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"There is no thread {thread_id!r}.")


class CheckpointNotFound(NotFound):
    code = "checkpoint_not_found"

    def __init__(self, checkpoint_id: str) -> None:
        super().__init__(f"The thread has no checkpoint {checkpoint_id!r}.")


class RunNotFound(NotFound):
    code = "run_not_found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"There is no run {run_id!r}.")


class Conflict(RunstreamError):
    code = "conflict"


class GraphMismatch(Conflict):
    code = "graph_mismatch"

    def __init__(self, thread_id: str, graph: str) -> None:
        super().__init__(f"Thread {thread_id!r} belongs to the graph {graph!r}.", graph=graph)


class ThreadBusy(Conflict):
    code = "thread_busy"

    def __init__(self, thread_id: str, run_id: str | None) -> None:
        super().__init__(f"Thread {thread_id!r} is busy with another run.", run_id=run_id)


class ThreadExists(Conflict):
    code = "thread_exists"

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"Thread {thread_id!r} exists already.")


class ThreadInterrupted(Conflict):
    code = "thread_interrupted"

    def __init__(self, interrupts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(
            "The thread waits for a human: answer with resume, or send on_interrupted: discard.",
            interrupts=list(interrupts),
        )


class NothingToContinue(Conflict):
    code = "nothing_to_continue"

    def __init__(self) -> None:
        super().__init__("The thread is neither paused nor failed, so there is nothing to continue.")


class NothingToResume(Conflict):
    code = "nothing_to_resume"

    def __init__(self) -> None:
        super().__init__("The thread is not paused, so there is nothing to resume.")


class UnknownInterrupt(Conflict):
    code = "unknown_interrupt"

    def __init__(self, unknown: Sequence[str], interrupts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"Not pending: {', '.join(unknown)}.", interrupts=list(interrupts))


class AmbiguousResume(Conflict):
    code = "ambiguous_resume"

    def __init__(self, interrupts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(
            "Several interrupts are pending: answer with {interrupt_id: value}.", interrupts=list(interrupts)
        )


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"

    def __init__(self, run_id: str) -> None:
        super().__init__("The same key was used with another body.", run_id=run_id)


class EventIdAhead(Conflict):
    code = "event_id_ahead"

    def __init__(self, seq: int, last_seq: int) -> None:
        super().__init__(f"The log ends at {last_seq}, before {seq}.", last_seq=last_seq)


class RunNotFinished(Conflict):
    code = "run_not_finished"


class Invalid(RunstreamError):
    """A request that can't be understood; `errors` is `[{loc: [...], msg}]`."""

    code = "invalid_request"

    def __init__(self, detail: str, *, loc: Sequence[str | int] = ("body",), **fields: Any) -> None:
        fields.setdefault("errors", [{"loc": list(loc), "msg": detail}])
        super().__init__(detail, **fields)


class NotSupported(Invalid):
    code = "not_supported"


class ModeNotRecorded(Invalid):
    code = "mode_not_recorded"

    def __init__(self, modes: Sequence[str], recorded: Sequence[str]) -> None:
        super().__init__(
            f"The run did not record: {', '.join(modes)}.", loc=("query", "stream_mode"), recorded=list(recorded)
        )


class BadEventId(RunstreamError):
    code = "bad_event_id"


class EventsExpired(RunstreamError):
    code = "events_expired"

    def __init__(self, run_id: str, thread_id: str) -> None:
        super().__init__(
            f"The events of run {run_id!r} were deleted, since it ended long ago; the thread's state has its result.",
            run_id=run_id,
            thread_id=thread_id,
            state_url=f"/threads/{thread_id}/state",
        )


class Unauthorized(RunstreamError):
    """Nobody knows who asks, or what shows it is over. The sentence says nothing about anybody else."""

    code = "unauthorized"


class Forbidden(RunstreamError):
    """An authentication of the user's own knows who asks, and does not let him in."""

    code = "forbidden"


class AuthUnavailable(RunstreamError):
    """It can't be found out who asks; never taken for an answer."""

    code = "auth_unavailable"


class RateLimited(RunstreamError):
    """An owner, or an address, has sent more requests than it may."""

    code = "rate_limited"


class HostNotAllowed(RunstreamError):
    code = "host_not_allowed"


class OriginNotAllowed(RunstreamError):
    code = "origin_not_allowed"


class NotAcceptable(RunstreamError):
    code = "not_acceptable"


class UnsupportedMediaType(RunstreamError):
    code = "unsupported_media_type"


class BodyTooLarge(RunstreamError):
    code = "body_too_large"


class BodyTimeout(RunstreamError):
    code = "body_timeout"


class HeaderTimeout(RunstreamError):
    code = "header_timeout"


class HeadersTooLarge(RunstreamError):
    code = "headers_too_large"


class TooManyRuns(RunstreamError):
    code = "too_many_runs"


class TooManyStreams(RunstreamError):
    code = "too_many_streams"


class GraphUnavailable(RunstreamError):
    code = "graph_unavailable"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The graph {name!r} can't be served: {reason}", reason=reason)


class ShuttingDown(RunstreamError):
    code = "shutting_down"


class StoreUnavailable(RunstreamError):
    code = "store_unavailable"


class LimitExceeded(Exception):
    """The run has said more than it may and is being stopped: what the node still says is not taken."""


class LeaseLost(Exception):
    """Another process owns the run now, or it has ended: whoever holds this lease may write nothing more."""


class LogClosed(LeaseLost):
    """An append after the terminal event."""


class ConfigInvalid(Exception):
    """A configuration that can't be used; `str(error)` is a sentence for the person who wrote it."""


class StaleThread(Exception):
    """The thread changed between the check of a request and its acceptance: check again."""
