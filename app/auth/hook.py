"""An authentication of the user's own: a function, or LangGraph's `Auth` object with its `authenticate` handler.

Parameters are given by name, as LangGraph does: `request`, `headers`, `authorization`, `method`, `path`,
`query_params`, `path_params`. An answer is a text, or something with an `identity`, by key or by attribute.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import httpx
from langgraph_sdk import Auth
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.auth.identity import Credentials, Identity, owner_of
from app.errors import AuthUnavailable, ConfigInvalid, Forbidden, RunstreamError, Unauthorized

logger = logging.getLogger(__name__)

HOOK_SECONDS: Final = 10.0
NAMES: Final = frozenset({"request", "headers", "authorization", "method", "path", "query_params", "path_params"})


class Hook:
    """Asks the user's own code. `is_langgraph`: headers are bytes there."""

    def __init__(self, function: Callable[..., Any], parameters: tuple[str, ...], *, is_langgraph: bool) -> None:
        self._function = function
        self._parameters = parameters
        self._is_langgraph = is_langgraph
        self._is_async = is_coroutine(function)

    async def identify(self, credentials: Credentials) -> Identity:
        """Raises Unauthorized, Forbidden, and AuthUnavailable."""
        given = self._given(request_of(credentials))
        try:
            with anyio.fail_after(HOOK_SECONDS):
                answer = await self._ask(given)
            return Identity(owner=owner_of(identity_in(answer)), is_rechecked=True)
        except RunstreamError:
            raise
        except Exception as error:
            raise refusal(error) from None

    async def _ask(self, given: Mapping[str, Any]) -> Any:
        if self._is_async:
            return await self._function(**given)
        # threads of their own: those of nodes may all be at work
        answer = await anyio.to_thread.run_sync(lambda: self._function(**given), abandon_on_cancel=True)
        return await answer if inspect.isawaitable(answer) else answer

    def _given(self, request: Request) -> dict[str, Any]:
        headers: Any = request.headers
        if self._is_langgraph:
            headers = dict(request.headers.raw)
        known = {
            "request": request,
            "headers": headers,
            "authorization": request.headers.get("authorization"),
            "method": request.method,
            "path": request.url.path,
            "query_params": dict(request.query_params),
            "path_params": {},
        }
        return {name: known.get(name, request) for name in self._parameters}


def hook_of(found: object, source: str) -> Hook:
    """Raises ConfigInvalid for what can't be asked, or asks for more than there is here."""
    if not isinstance(found, Auth):
        return make_hook(found, source, is_langgraph=False)
    if found._handlers or found._global_handlers:
        raise ConfigInvalid(
            f"{source} has @auth.on handlers, which are not carried out here, and to leave them out could let somebody "
            "in whom they keep out. Threads and runs are their owner's alone without them: take them away, or give a "
            "function as RUNSTREAM_AUTH."
        )
    if found._authenticate_handler is None:
        raise ConfigInvalid(f"{source} has no @auth.authenticate handler.")
    return make_hook(found._authenticate_handler, source, is_langgraph=True)


def make_hook(function: object, source: str, *, is_langgraph: bool) -> Hook:
    if not callable(function) or isinstance(function, type):
        raise ConfigInvalid(f"{source} is neither a function nor LangGraph's Auth object.")
    kept = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    names = [each.name for each in kept if each.name in NAMES or each.default is each.empty]
    unknown = [name for name in names if name not in NAMES]
    if unknown and (is_langgraph or len(names) > 1):
        raise ConfigInvalid(f"{source} asks for {', '.join(unknown)}; there is {', '.join(sorted(NAMES))}.")
    return Hook(function, tuple(names), is_langgraph=is_langgraph)


def is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # an object with an async __call__


def request_of(credentials: Credentials) -> Request:
    """The request, without its body; a handshake as the GET that it is, a token of a message as a header."""
    scope = {**credentials.scope, "type": "http", "method": credentials.scope.get("method", "GET")}
    if credentials.is_from_message:
        kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
        scope["headers"] = [*kept, (b"authorization", f"Bearer {credentials.token}".encode("utf-8", "replace"))]
    return Request(scope)


def identity_in(answer: Any) -> Any:
    """Raises Unauthorized for an answer that names nobody."""
    if isinstance(answer, Mapping):
        answer = answer.get("identity") if answer.get("is_authenticated", True) else None
    elif not isinstance(answer, str) and answer is not None:
        answer = getattr(answer, "identity", None) if getattr(answer, "is_authenticated", True) else None
    if answer is None:
        raise Unauthorized("It is not known who asks.")
    return answer


def refusal(error: Exception) -> RunstreamError:
    """What an exception of the hook means. Its text may hold a token, so neither the client nor the log gets it."""
    status = (
        getattr(error, "status_code", None)
        if isinstance(error, HTTPException | Auth.exceptions.HTTPException)
        else None
    )
    if status == 403:
        return Forbidden("This is not allowed to whoever asks.")
    is_trouble = isinstance(error, OSError | httpx.HTTPError) and not isinstance(error, PermissionError)
    if is_trouble or (status is not None and status >= 500):
        logger.error("It can't be found out who asks: %s in the authentication.", type(error).__name__)
        return AuthUnavailable("It can't be found out who asks at the moment.")
    if status is None:
        logger.warning("Somebody is refused: %s in the authentication.", type(error).__name__)
    return Unauthorized("It is not known who asks.")
