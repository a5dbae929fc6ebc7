"""Places to die at, or to be told to stop: a store and a backend of checkpoints that do so before or after a call.

They are put round the real ones where a process is composed (tests/faults/child.py); the product knows nothing of them.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from app.engine.checkpoints import Backend
from app.runs.store import Store

T = TypeVar("T")

Operation = Literal["accept", "claim", "append", "finish", "save"]
Phase = Literal["before", "after"]
Ending = Literal["die", "stop"]  # as SIGKILL does, at once; as SIGTERM does, when all is closed

DIED: Final = 9  # the exit code of a process that came to its failpoint
STORE_OPERATIONS: Final = frozenset({"accept", "claim", "append", "finish"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Failpoint:
    """Before the `number`th call of an operation takes place, or after it has and nobody knows; the first is 1."""

    operation: Operation
    number: int
    phase: Phase
    ending: Ending = "die"

    def __str__(self) -> str:
        return f"{self.operation}-{self.number}-{self.phase}"


class Trap:
    """Counts calls once it is armed, and at the failpoint ends the process, or calls `on_stop` as a signal would."""

    def __init__(self, failpoint: Failpoint | None) -> None:
        self._failpoint = failpoint
        self._armed = False
        self.counts: Counter[str] = Counter()
        self.on_stop: Callable[[], None] = lambda: None

    def arm(self) -> None:
        self._armed = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        armed, self._armed = self._armed, False
        yield
        self._armed = armed

    def reach(self, operation: str, phase: Phase) -> None:
        if not self._armed:
            return
        self.counts[operation] += phase == "before"
        point = self._failpoint
        # of calls that run at once, the first that is over is the one after which it dies
        if point is None or (point.operation, point.number, point.phase) != (operation, self.counts[operation], phase):
            return
        if point.ending == "die":
            os._exit(DIED)
        self.on_stop()


class FailingStore:
    """A store, and the trap round what it writes; `claims` is a file that says which process claimed which attempt."""

    def __init__(self, store: Store, trap: Trap, claims: Path) -> None:
        self._store = store
        self._trap = trap
        self._claims = claims

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._watched(name, method) if name in STORE_OPERATIONS else method

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._trap.reach(name, "before")
            result = await method(*args, **kwargs)
            self._note(name, result)
            self._trap.reach(name, "after")
            return result

        return call

    def _note(self, name: str, result: Any) -> None:
        lease = result.lease if name == "accept" else result if name == "claim" else None
        if lease is not None:
            with self._claims.open("a") as file:
                file.write(f"{os.environ['FAULTS_PROCESS']} {lease.run_key} {lease.attempt}\n")


def failing(store: Store, trap: Trap, claims: Path) -> Store:
    return cast(Store, FailingStore(store, trap, claims))


class FailingBackend:
    """The trap round each transaction of the checkpoints: a checkpoint, the writes of a task, an answer."""

    def __init__(self, backend: Backend, trap: Trap) -> None:
        self._backend = backend
        self._trap = trap

    async def read(self, operation: Callable[..., T]) -> T:
        return await self._backend.read(operation)

    async def write(self, operation: Callable[..., T]) -> T:
        self._trap.reach("save", "before")
        result = await self._backend.write(operation)
        self._trap.reach("save", "after")
        return result

    async def reclaim(self) -> bool:
        return await self._backend.reclaim()

    async def aclose(self) -> None:
        await self._backend.aclose()
