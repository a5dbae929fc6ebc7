from collections.abc import Iterator

import pytest

from tests.storage.leak import no_thread_left


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield from no_thread_left()
