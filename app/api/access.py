"""Who may come in: asked before anything else of a request, on every route that is not named here.

Plain ASGI, and round the router, so that a new route is closed until somebody opens it; routes find out who asks with
`OwnerDep` or `owner_of`. The error handlers are inside of it, so it answers by itself.
"""

import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problem import problem_of
from app.auth.authenticator import Authenticator
from app.auth.identity import ANONYMOUS, Credentials, Identity, checked, headers_of, token_in
from app.auth.rate import RateLimit, neighbourhood
from app.auth.stream_token import StreamTokens
from app.errors import Forbidden, RunstreamError, Unauthorized

# whether the process is well: for whoever keeps it running, under whatever name
PROBE_PATHS: Final = frozenset({"/health", "/ready"})
# what says nothing of anybody: these, the playground's page, and the API's description
OPEN_PATHS: Final = PROBE_PATHS | {"/", "/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json"}
METRICS_PATH: Final = "/metrics"
RUN_STREAM: Final = re.compile(r"/runs/([^/]+)/stream")
THREAD_STREAM: Final = re.compile(r"/threads/([^/]+)/runs/stream")
MAX_SLEEP_SECONDS: Final = 60.0  # the clock may be set while an access lasts


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who asks, and what showed it."""

    identity: Identity
    credentials: Credentials


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """Asks who is there, and again while somebody stays; counts who comes how often."""

    authenticator: Authenticator
    stream_tokens: StreamTokens
    rate_limit: RateLimit | None
    recheck_seconds: float
    socket_seconds: float  # how long a socket may take to say who it is
    metrics_token: str = field(default="", repr=False)

    async def of_request(self, scope: Scope) -> Access | None:
        """Raises Unauthorized, Forbidden, AuthUnavailable, RateLimited. None: a WebSocket that may still say who it is.

        A page can't send headers with a WebSocket or an EventSource: there the first message may have the token, here
        the URL a stream token.
        """
        with self._counted_failures(scope):
            token = token_in(headers_of(scope))
            # a copy, since an access lasts for longer than the route, which puts all it has into the scope
            credentials = Credentials(scope={**scope, "state": dict(scope.get("state", {}))}, token=token)
            if token is not None or self.authenticator.is_open:
                access: Access | None = await self._of(credentials)
            elif scope["type"] == "websocket":
                access = None
            elif (identity := self._by_stream_token(scope)) is not None:
                access = Access(identity=identity, credentials=credentials)
            else:
                access = await self._of(credentials)
        self.count(scope, access)
        return access

    async def of_token(self, scope: MutableMapping[str, Any], token: str) -> Access:
        """The same for a token that came in a message."""
        with self._counted_failures(scope):
            return await self._of(Credentials(scope=scope, token=checked(token), is_from_message=True))

    async def _of(self, credentials: Credentials) -> Access:
        return Access(identity=await self.authenticator.identify(credentials), credentials=credentials)

    def _by_stream_token(self, scope: Scope) -> Identity | None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        stream = stream_of(scope, query)
        if stream is None or "token" not in query:
            return None
        return self.stream_tokens.identify(checked(query["token"][0]), stream)

    def count(self, scope: Mapping[str, Any], access: Access | None) -> None:
        """Count a request, or a message, of an owner; of an address where it is not known whose. Raises RateLimited."""
        if self.rate_limit is None:
            return
        if access is None or access.identity.owner == ANONYMOUS:
            self.rate_limit.count("address", address_of(scope))
        else:
            self.rate_limit.count("owner", access.identity.owner)

    @contextmanager
    def _counted_failures(self, scope: Mapping[str, Any]) -> Iterator[None]:
        """Those of an address are counted on their own: who guesses must not use up what somebody else may send."""
        try:
            yield
        except (Unauthorized, Forbidden):
            if self.rate_limit is not None:
                self.rate_limit.count("refused", address_of(scope))
            raise

    def check_metrics(self, scope: Mapping[str, Any]) -> None:
        """Raises Unauthorized."""
        given = token_in(headers_of(scope)) or ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.metrics_token.encode()):
            raise Unauthorized("Send the token for metrics.")

    def end_of(self, access: Access) -> Callable[[], Awaitable[None]] | None:
        """What returns when an access is over; None for one that has no end."""
        has_end = access.identity.expires_at is not None or access.identity.is_rechecked
        return partial(self.until_over, access) if has_end else None

    async def until_over(self, access: Access) -> None:
        """Return when an access is over: its time has come, or what gave it says no when it is asked again."""
        identity, expires_at = access.identity, access.identity.expires_at
        if self.end_of(access) is None:
            await anyio.sleep_forever()
        while expires_at is None or time.time() < expires_at:
            left = MAX_SLEEP_SECONDS if expires_at is None else min(expires_at - time.time(), MAX_SLEEP_SECONDS)
            await anyio.sleep(max(min(left, self.recheck_seconds), 0))
            if identity.is_rechecked and not await self._is_still(access):
                return

    async def _is_still(self, access: Access) -> bool:
        """Closed when in doubt: a stream that is broken off loses nothing, since its client comes back."""
        try:
            return (await self.authenticator.identify(access.credentials)).owner == access.identity.owner
        except RunstreamError:
            return False


class AccessControl:
    """Lets a request through when it is known who asks, with an `Access` in its state; else it is a 401."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or (scope["type"] == "http" and path_of(scope) in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        door: Door = scope["app"].state.context.access
        try:
            if door.metrics_token and path_of(scope) == METRICS_PATH:
                door.check_metrics(scope)
            else:
                scope.setdefault("state", {})["access"] = await door.of_request(scope)
        except RunstreamError as error:
            scope["app"].state.context.refused(error.code)
            await problem_of(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def path_of(scope: Mapping[str, Any]) -> str:
    """The path that routes see: without the prefix that a proxy or a mount put before it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def address_of(scope: Mapping[str, Any]) -> str:
    return neighbourhood(scope["client"][0]) if scope.get("client") else ""


def stream_of(scope: Mapping[str, Any], query: Mapping[str, list[str]]) -> str | None:
    """What a stream token must be for, for this request; None where none is taken."""
    path = path_of(scope)
    if scope["method"] != "GET":
        return None
    if path == "/runs/stream":
        run_ids = query.get("run_id", [])
        return f"start:{run_ids[0].lower()}" if len(run_ids) == 1 else None
    if found := RUN_STREAM.fullmatch(path):
        return f"run:{found[1].lower()}"
    if found := THREAD_STREAM.fullmatch(path):
        return f"thread:{found[1]}"
    return None
