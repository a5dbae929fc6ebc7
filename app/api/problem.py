"""Errors as RFC 9457 problems: the one table from an error to its status (wire contract, section 6)."""

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app import errors

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[errors.RunstreamError], int]] = {
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.BadEventId: 400,
    errors.EventsExpired: 410,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.OriginNotAllowed: 403,
    errors.HostNotAllowed: 400,
    errors.RateLimited: 429,
    errors.NotAcceptable: 406,
    errors.UnsupportedMediaType: 415,
    errors.BodyTooLarge: 413,
    errors.BodyTimeout: 408,
    errors.HeaderTimeout: 408,
    errors.HeadersTooLarge: 431,
    errors.TooManyRuns: 429,
    errors.TooManyStreams: 429,
    errors.GraphUnavailable: 503,
    errors.ShuttingDown: 503,
    errors.StoreUnavailable: 503,
    errors.AuthUnavailable: 503,
}

TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    503: "Unavailable",
    504: "Timeout",
}

CODES: Final[Mapping[int, str]] = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}

RETRY_AFTER_SECONDS: Final = 1
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CHALLENGE: Final = 'Bearer realm="runstream"'  # RFC 6750, section 3


class Problem(Response):
    """A problem as a response, which is counted when it is sent."""

    code = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = getattr(scope["app"].state, "context", None)
        if context is not None:  # None until the server is open
            context.refused(self.code)
        await super().__call__(scope, receive, send)


def problem(
    status: int,
    code: str,
    detail: str,
    fields: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response. 429 and 503 say when to try again, 401 how to say who asks."""
    body = {
        "type": f"urn:runstream:problem:{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        **(fields or {}),
    }
    extra = dict(headers or {})
    if status == 401:
        extra.setdefault("WWW-Authenticate", CHALLENGE)
    if status in (429, 503):
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if status in (408, 413, 431):
        # what is left of the body is not read, so the connection can't serve another request
        extra.setdefault("Connection", "close")
    response = Problem(orjson.dumps(body, default=str), status, headers=extra, media_type=MEDIA_TYPE)
    response.code = code
    return response


def status_of(error: errors.RunstreamError) -> int:
    return status_of_kind(type(error))


def status_of_kind(kind: type[errors.RunstreamError]) -> int:
    """The most special entry of the table."""
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), 500)


def problem_of(error: errors.RunstreamError) -> Response:
    seconds = error.fields.get("retry_after_seconds")
    headers = None if seconds is None else {"Retry-After": str(seconds)}
    return problem(status_of(error), error.code, error.detail, error.fields, headers)


def allowed_methods(request: Request) -> str:
    """For the `Allow` header: FastAPI has a route for each method of a path, and names those of the first one."""

    def is_allowed(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(is_allowed, METHODS))


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of every route a problem: our own, validation, unknown routes and methods, and bugs."""

    @app.exception_handler(errors.RunstreamError)
    async def known(request: Request, error: errors.RunstreamError) -> Response:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()]
        return problem(422, "invalid_request", "The request is not valid.", {"errors": found})

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "error")
        headers = {"Allow": allowed_methods(request)} if error.status_code == 405 else error.headers
        return problem(error.status_code, code, str(error.detail), headers=headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # in the middle of a body, and hears nothing of this

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        # Starlette raises it again after this, so the server logs the traceback
        return problem(500, "internal_error", "Something went wrong here.")
