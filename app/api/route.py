"""Routes of which FastAPI keeps the description, and leaves the answering to their functions."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import request_response


class PlainRoute(APIRoute):
    """A route whose function takes the request, and that alone, and gives a response.

    For those that begin runs: to find out what their functions' arguments are, and to keep open what these might
    hold, took FastAPI longer than all checks of a request together (docs/performance.md).
    """

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **description: Any) -> None:
        super().__init__(path, endpoint, **description)
        self.app = request_response(endpoint)
