"""What a request says about who asks, and what is known once that was checked."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from app.errors import Unauthorized

ANONYMOUS: Final = ""  # the one owner where nobody is asked; no subject becomes it
MAX_SUBJECT_CHARS: Final = 255
MAX_TOKEN_CHARS: Final = 16 * 1024
BEARER: Final = "bearer "


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Somebody who was recognised. `expires_at` is in seconds since the epoch; None: nobody said."""

    owner: str
    expires_at: float | None = None
    is_rechecked: bool = False  # what gave it may change its mind, so it is asked again while a stream is open


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A key or a token, and the ASGI scope of the request that brought it."""

    scope: MutableMapping[str, Any] = field(repr=False)
    token: str | None = field(repr=False)
    is_from_message: bool = False  # the token did not come in a header


def owner_of(subject: object) -> str:
    """The owner's name for whatever a key, a token or a hook calls somebody. Raises Unauthorized.

    Percent-encoded like a piece of a path, so it holds no `/`, no NUL and nothing that a log or a database minds,
    and two subjects never become one owner.
    """
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT_CHARS:
        raise Unauthorized(f"The subject is not a text of 1 to {MAX_SUBJECT_CHARS} characters.")
    try:
        return quote(subject, safe="@:|+=,")
    except UnicodeEncodeError:
        raise Unauthorized("The subject is not text.") from None


def token_in(headers: Mapping[bytes, list[bytes]]) -> str | None:
    """The token of `Authorization: Bearer`, else of `X-Api-Key`; None without either. Raises Unauthorized."""
    authorizations = headers.get(b"authorization", [])
    if len(authorizations) > 1:
        raise Unauthorized("There are several Authorization headers.")
    for value in authorizations:
        text = as_text(value)
        if text.lower().startswith(BEARER):
            return checked(text[len(BEARER) :].strip())
    keys = headers.get(b"x-api-key", [])
    if len(keys) > 1:
        raise Unauthorized("There are several X-Api-Key headers.")
    return checked(as_text(keys[0]).strip()) if keys else None


def checked(token: str) -> str:
    """Raises Unauthorized for what is too long to be looked at."""
    if len(token) > MAX_TOKEN_CHARS:
        raise Unauthorized("The token is too long.")
    return token


def as_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unauthorized("The credentials are not UTF-8.") from None


def headers_of(scope: Mapping[str, Any]) -> dict[bytes, list[bytes]]:
    """The headers of an ASGI scope, by their names in lower case."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def is_jwt(token: str) -> bool:
    """Whether a token has the form of one, signed (RFC 7515, section 7.1)."""
    return token.count(".") == 2
