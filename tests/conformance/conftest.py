from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.harness import Backend, MemoryBackend, SqliteBackend
from tests.storage.leak import no_thread_left


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield from no_thread_left()


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return MemoryBackend() if request.param == "memory" else SqliteBackend(tmp_path / "data")


@pytest.fixture
def durable(tmp_path: Path) -> SqliteBackend:
    return SqliteBackend(tmp_path / "data")
