import functools
import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.server import ROOT, RunningServer, running


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="package")
def site() -> Iterator[str]:
    """The directory `examples`, served from an origin of its own."""
    handler = functools.partial(QuietHandler, directory=str(ROOT / "examples"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def examples(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The example graphs, as `make run` serves them, a little faster; pages of `site` may call it."""
    env = {"RUNSTREAM_CORS_ORIGINS": site, "SCRIPTED_DELAY_SECONDS": "0.02", "OPENAI_API_KEY": ""}
    with running(tmp_path_factory.mktemp("docs") / "data", config=ROOT / "langgraph.json", env=env) as server:
        yield server
