"""Stream tokens: what an EventSource puts into its URL, since it can't send headers.

A URL ends up in logs and histories, so a token in it is good for one stream of one owner, and for minutes. It is a JWT
that this server signs for itself; whoever takes tokens of an issuer takes none of these, and the other way round.
"""

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.auth.identity import ANONYMOUS, Identity
from app.errors import ConfigInvalid, Unauthorized

if TYPE_CHECKING:
    from jwt.types import Options

ALGORITHM: Final = "HS256"
ISSUER: Final = "runstream:stream"
OPTIONS: "Final[Options]" = {"require": ["exp", "sub", "aud", "iss"]}
SECRET_BYTES: Final = 32
OWN_MODE: Final = 0o600


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamToken:
    token: str = field(repr=False)
    expires_at: float  # seconds since the epoch


class StreamTokens:
    """Signs and checks. A stream is named by a text such as `run:<run_id>`."""

    def __init__(self, secret: bytes, *, seconds: float) -> None:
        self._secret = secret
        self._seconds = seconds

    def issue(self, identity: Identity, stream: str) -> StreamToken:
        """A token that ends with what it was asked for with, or before."""
        import jwt  # 8 MB, for who has asked for a token

        expires_at = time.time() + self._seconds
        if identity.expires_at is not None:
            expires_at = min(expires_at, identity.expires_at)
        claims = {"iss": ISSUER, "sub": identity.owner, "aud": stream, "exp": expires_at}
        return StreamToken(token=jwt.encode(claims, self._secret, ALGORITHM), expires_at=expires_at)

    def identify(self, token: str, stream: str) -> Identity:
        """Raises Unauthorized, for another stream's token too."""
        import jwt

        try:
            claims: Mapping[str, Any] = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], audience=stream, issuer=ISSUER, options=OPTIONS
            )
        except (jwt.PyJWTError, ValueError):
            raise Unauthorized("The stream token is not valid here, or not any more.") from None
        expires_at = float(claims["exp"])
        # one that was given out while nobody was asked opens nothing once somebody is
        if claims["sub"] == ANONYMOUS or time.time() >= expires_at:
            raise Unauthorized("The stream token is not valid here, or not any more.")
        return Identity(owner=claims["sub"], expires_at=expires_at)


def kept_secret(path: Path) -> bytes:
    """The secret in a file that only this user reads; made when it is missing. Raises ConfigInvalid."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWN_MODE)
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)  # whole or not there
        found = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{path} can't be used: {error.strerror}.") from error
    if len(found) < SECRET_BYTES:
        raise ConfigInvalid(f"{path} is too short for a secret: delete it, and another one is made.")
    return found
