from collections.abc import Iterator

import httpx
import pytest

from tests.server import RunningServer, running


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One for all modules here: each test waits for the end of its runs, so the trace goes on with the next one's."""
    with running(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture(scope="package")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
