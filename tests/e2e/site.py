"""A web site of an origin of its own: an empty page, and a client library as a browser loads it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.e2e.machine import NODE_DIR

PAGE = b"<!doctype html><meta charset=utf-8><title>A page of another origin</title>"
LIBRARY = NODE_DIR / "node_modules" / "@microsoft" / "fetch-event-source" / "lib" / "esm"


class SiteHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/":
                self._answer(PAGE, "text/html")
            case "/library/index" | "/library/fetch" | "/library/parse":
                # its modules import each other without the ending, as a bundler allows
                self._answer((LIBRARY / f"{self.path.rpartition('/')[2]}.js").read_bytes(), "text/javascript")
            case _:
                self.send_error(404)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Site:
    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), SiteHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=10)
        self._server.server_close()
