"""New ids for what a client has not named."""

import os
from typing import Final
from uuid import UUID

UUID_BYTES: Final = 16
MADE_AT_ONCE: Final = 256


class RandomIds:
    """UUIDs of version 4, of random bytes that the system gives for many at once. To be used in one thread.

    Each question to the system lets go of the GIL. A thread that waits for it takes it then, and the event loop waits
    in its turn, in the middle of a request: two ids were a twentieth of what a short run costs.
    """

    def __init__(self) -> None:
        self._unused: list[bytes] = []

    def new(self) -> str:
        if not self._unused:
            given = os.urandom(UUID_BYTES * MADE_AT_ONCE)
            self._unused = [given[at : at + UUID_BYTES] for at in range(0, len(given), UUID_BYTES)]
        return str(UUID(bytes=self._unused.pop(), version=4))
