"""A check after each test that no thread is left behind."""

import threading
from collections.abc import Iterator


def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left, f"threads left behind: {sorted(thread.name for thread in left)}"
