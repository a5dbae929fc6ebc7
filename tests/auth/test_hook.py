"""An authentication of the user's own, as functions of several kinds and as LangGraph's Auth object."""

from typing import Any

import httpx
import pytest
from langgraph_sdk import Auth
from starlette.exceptions import HTTPException

from app.auth.hook import hook_of
from app.auth.identity import Credentials
from app.errors import AuthUnavailable, ConfigInvalid, Forbidden, RunstreamError, Unauthorized
from tests.auth.loop import ran

SCOPE: dict[str, Any] = {
    "type": "http", "method": "POST", "path": "/runs/stream", "query_string": b"a=b", "scheme": "http",
    "server": ("localhost", 80), "headers": [(b"authorization", b"Bearer t-ada"), (b"x-team", b"core")],
}  # fmt: skip


def asked(function: Any, **more: Any) -> str:
    credentials = Credentials(**{"scope": SCOPE, "token": "t-ada", **more})
    found = ran(hook_of(function, "auth.py:it").identify(credentials))
    assert found.is_rechecked
    return found.owner


class Person:
    identity = "ada"
    is_authenticated = True


class Guard:
    async def __call__(self, headers: Any) -> str:
        return f"guarded-{headers['X-Team']}"


def sync_function(request: Any) -> str:
    return f"{request.headers['authorization'].removeprefix('Bearer t-')} {request.method} {request.url.path}"


async def async_function(authorization: str, *, query_params: dict[str, str], path: str, method: str) -> dict[str, str]:
    return {"identity": f"{authorization[-3:]} {method} {path} {query_params['a']}"}


def by_any_name(asker: Any) -> str:
    return str(asker.headers["x-team"])


def returns_coroutine(headers: Any) -> Any:
    return async_function(headers["authorization"], query_params={"a": "b"}, path="/", method="GET")


@pytest.mark.parametrize(
    ("function", "owner"),
    [
        (sync_function, "ada%20POST%20%2Fruns%2Fstream"),
        (async_function, "ada%20POST%20%2Fruns%2Fstream%20b"),
        (by_any_name, "core"),
        (returns_coroutine, "ada%20GET%20%2F%20b"),
        (Guard(), "guarded-core"),
        (lambda: Person(), "ada"),
        (lambda headers, cache={}: "ada", "ada"),
    ],
)  # fmt: skip
def test_a_function_is_asked_by_the_names_of_its_parameters(function: Any, owner: str) -> None:
    assert asked(function) == owner


def test_a_token_of_a_message_is_the_header_that_it_stands_for() -> None:
    assert asked(lambda authorization: authorization, token="other", is_from_message=True) == "Bearer%20other"


def test_the_body_is_not_to_be_had() -> None:
    async def reads(request: Any) -> str:
        return str(await request.body())

    with pytest.raises(Unauthorized):
        asked(reads)


def raising(error: Exception) -> Any:
    def hook(headers: Any) -> str:
        raise error

    return hook


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: None, Unauthorized),
        (lambda: "", Unauthorized),
        (lambda: False, Unauthorized),
        (lambda: {"identity": None}, Unauthorized),
        (lambda: {"identity": "ada", "is_authenticated": False}, Unauthorized),
        (lambda: {"name": "ada"}, Unauthorized),
        (raising(ValueError("secret")), Unauthorized),
        (raising(PermissionError("secret")), Unauthorized),
        (raising(HTTPException(401, "secret")), Unauthorized),
        (raising(Auth.exceptions.HTTPException(status_code=401)), Unauthorized),
        (raising(HTTPException(403, "secret")), Forbidden),
        (raising(HTTPException(502, "secret")), AuthUnavailable),
        (raising(ConnectionRefusedError("secret")), AuthUnavailable),
        (raising(TimeoutError("secret")), AuthUnavailable),
        (raising(httpx.ConnectError("secret")), AuthUnavailable),
    ],
)  # fmt: skip
def test_whoever_is_not_named_is_refused_and_what_was_raised_is_told_to_nobody(
    answer: Any, error: type[RunstreamError], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(error) as caught:
        asked(answer)
    assert "secret" not in f"{caught.value} {caplog.text}"


def auth() -> Auth:
    made = Auth()

    @made.authenticate
    async def who(authorization: str | None, headers: dict[bytes, bytes]) -> Any:
        return {"identity": f"{authorization}-{headers[b'x-team'].decode()}", "permissions": []}

    return made


def test_the_auth_object_of_langgraph_is_asked_with_headers_as_bytes() -> None:
    assert asked(auth()) == "Bearer%20t-ada-core"


def test_handlers_that_are_not_carried_out_are_refused_when_the_server_starts() -> None:
    every, some = auth(), auth()

    @every.on
    async def deny(ctx: Any, value: Any) -> bool:
        return False

    @some.on.threads.create
    async def allow(ctx: Any, value: Any) -> None: ...

    for made in (every, some):
        with pytest.raises(ConfigInvalid, match=r"@auth\.on"):
            hook_of(made, "auth.py:auth")


async def wants_body(body: dict[str, Any], headers: Any) -> str:
    return "ada"


@pytest.mark.parametrize("found", [Auth(), 5, "ada", Person, wants_body])
def test_what_can_not_be_asked_is_refused_when_the_server_starts(found: object) -> None:
    with pytest.raises(ConfigInvalid, match=r"auth\.py:it"):
        hook_of(found, "auth.py:it")
