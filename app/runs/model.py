"""What a thread, a run and a lease are, and which changes of status are allowed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

RunStatus = Literal["pending", "running", "success", "interrupted", "cancelled", "error", "timeout"]
EndStatus = Literal["success", "interrupted", "cancelled", "error", "timeout"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
CancelReason = Literal["user", "disconnect", "superseded", "timeout", "idle_timeout", "limit_exceeded", "shutdown"]
MultitaskStrategy = Literal["reject", "enqueue", "interrupt", "rollback"]
OnDisconnect = Literal["cancel", "continue"]

ACTIVE: Final = frozenset[RunStatus]({"pending", "running"})
ENDED: Final = frozenset[RunStatus](get_args(EndStatus))

# from what a run may become what: a claim keeps a running one running (another epoch), every end is for ever
TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    "pending": frozenset[RunStatus]({"running", "cancelled", "error"}),
    "running": ENDED.union({"running"}),
    "success": frozenset[RunStatus](),
    "interrupted": frozenset[RunStatus](),
    "cancelled": frozenset[RunStatus](),
    "error": frozenset[RunStatus](),
    "timeout": frozenset[RunStatus](),
}


def scoped(owner: str, id: str) -> str:
    """The key of a thread or a run in the stores: two owners may use the same id without meeting.

    An id holds no `/`, so the last one of a key always ends the owner.
    """
    return f"{owner}/{id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """A conversation: the scope of checkpoints."""

    owner: str
    thread_id: str
    graph: str | None  # None until its first run
    status: ThreadStatus
    metadata: Mapping[str, Any]
    version: int  # grows with every claim and every change of its state; see Store.accept
    created_at: datetime
    updated_at: datetime
    rest_status: ThreadStatus = "idle"  # what its status is without an active run

    @property
    def key(self) -> str:
        return scoped(self.owner, self.thread_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run as a client asks for it, checked, not yet stored."""

    owner: str
    run_id: str
    thread_id: str
    graph: str
    request: Mapping[str, Any]  # plain JSON: all that an attempt needs to start from, the input included
    fingerprint: str  # of the body, to tell a repetition from another request with the same key
    idempotency_key: str | None = None
    stream_modes: tuple[str, ...] = ("updates", "messages", "custom")
    metadata: Mapping[str, Any] = field(default_factory=dict)
    multitask_strategy: MultitaskStrategy = "reject"
    on_disconnect: OnDisconnect = "cancel"
    create_thread: bool = True  # False: an unknown thread is ThreadNotFound
    thread_version: int | None = None  # the version the request was checked against; None: not checked

    @property
    def key(self) -> str:
        return scoped(self.owner, self.run_id)

    @property
    def thread_key(self) -> str:
        return scoped(self.owner, self.thread_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunError:
    """Why a run failed: a code of the contract (section 2) and a sentence that is safe to show."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of a graph on a thread, as its row says."""

    owner: str
    run_id: str
    thread_id: str
    graph: str
    status: RunStatus
    request: Mapping[str, Any]
    fingerprint: str
    idempotency_key: str | None
    stream_modes: tuple[str, ...]
    metadata: Mapping[str, Any]
    multitask_strategy: MultitaskStrategy
    on_disconnect: OnDisconnect
    epoch: int  # grows with every claim; 0 before the first
    attempt: int  # 0 before the first claim
    crashes: int  # attempts that ended without a word
    last_seq: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    usage: Mapping[str, Any] | None = None
    error: RunError | None = None
    checkpoint_id: str | None = None  # the thread's checkpoint when the run ended
    cancel_reason: CancelReason | None = None  # asked for, not yet carried out
    expired: bool = False  # only this row is left: the request and the events were deleted, see Store.expire_runs
    supersedes: tuple[str, ...] = ()  # the keys of the runs whose steps are undone before this one begins
    thread_status: ThreadStatus = "idle"  # the thread's rest status that it begins from, or was let in at

    @property
    def key(self) -> str:
        return scoped(self.owner, self.run_id)

    @property
    def thread_key(self) -> str:
        return scoped(self.owner, self.thread_id)

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to write for a run: void as soon as another claim has made a higher epoch."""

    run_key: str
    thread_key: str
    worker: str
    epoch: int
    attempt: int
    version: int  # the thread's, which every claim grows: a later claim of the thread has a higher one
    is_new_thread: bool = False  # the claim made the thread: nothing was ever saved on it


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """What became of a NewRun."""

    run: Run
    created: bool  # False: the key was used before, `run` is the earlier one
    lease: Lease | None  # given when the run was claimed in the same transaction
    to_stop: tuple[Run, ...] = ()  # the active runs that it supersedes; asked to stop in the same transaction


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a pending run begins with: made when its turn has come, of what the runs before it left."""

    request: Mapping[str, Any]  # as NewRun.request
    thread_version: int  # the version that it was made from
    thread_status: ThreadStatus  # the thread's rest status then, without the steps that it undid


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """How many active runs there may be: of all owners, and of one (None: no bound of its own)."""

    max_active: int
    max_active_of_owner: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a run ends: what is written with its terminal event, in one transaction."""

    status: EndStatus
    thread_status: ThreadStatus
    usage: Mapping[str, Any] | None = None
    error: RunError | None = None
    checkpoint_id: str | None = None
