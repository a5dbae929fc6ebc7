"""Routes of which FastAPI keeps the description, and leaves the answering to their functions."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class PlainRoute(APIRoute):
    """A route whose function takes the request, and that alone, and gives a response.

    For those that begin runs: to find out what their functions' arguments are took FastAPI longer than all checks of a
    request together (docs/performance.md).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler
