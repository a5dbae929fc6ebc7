"""Limits on a request's body, as plain ASGI: a middleware that wraps requests would hide disconnects (fact 34)."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problem import problem_of
from app.errors import BodyTimeout, BodyTooLarge


class BodyLimit:
    """Refuses a body that is larger than `max_bytes`, or takes longer than `seconds` to arrive."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            await problem_of(self._too_large())(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"A body may have {self._max_bytes} bytes.")

    def _limited(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._seconds
        size = 0
        whole = False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeout(f"The body did not arrive within {self._seconds:g} seconds.") from None
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return limited
