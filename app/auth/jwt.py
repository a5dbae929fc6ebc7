"""JSON Web Tokens (RFC 7519) of somebody else, checked with his public keys (RFC 7517)."""

import logging
import math
import time
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import anyio
import jwt
from jwt.types import Options

from app.auth.identity import Identity, owner_of
from app.errors import AuthUnavailable, ConfigInvalid, Unauthorized

logger = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int]

# asymmetric ones alone: with HS256 whoever has the public key could sign, and with none everybody
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_SECONDS: Final = 5.0  # of clocks, for a token that begins now
FETCH_SECONDS: Final = 5.0
LIFESPAN_SECONDS: Final = 300
# keys that are not there are looked for again, and a server that does not answer is asked again, no sooner than this
COOLDOWN_SECONDS: Final = 5.0
# what the library raises for a set of keys that is none
MALFORMED: Final = (jwt.PyJWTError, ValueError, LookupError, TypeError, AttributeError)
OPTIONS: Final[Options] = {"require": ["exp", "sub"]}


class KeySource(Protocol):
    """Where public keys come from. They may change while the server runs."""

    async def keys(self) -> jwt.PyJWKSet:
        """The keys as they are known. Raises AuthUnavailable."""
        ...

    async def newest(self) -> jwt.PyJWKSet:
        """The keys after another look. Raises AuthUnavailable."""
        ...


class KeyFile:
    """Read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigInvalid."""
        self._path = path
        self._stamp, self._keys = self._read()

    async def keys(self) -> jwt.PyJWKSet:
        try:
            if stamp_of(self._path) != self._stamp:
                self._stamp, self._keys = self._read()
        except (OSError, ConfigInvalid):
            raise AuthUnavailable("The keys that tokens are checked with can't be read.") from None
        return self._keys

    async def newest(self) -> jwt.PyJWKSet:
        return await self.keys()

    def _read(self) -> tuple[Stamp, jwt.PyJWKSet]:
        try:
            return stamp_of(self._path), jwt.PyJWKSet.from_json(self._path.read_text())
        except OSError as error:
            raise ConfigInvalid(f"RUNSTREAM_JWT__JWKS: {self._path} can't be read: {error.strerror}.") from error
        except MALFORMED as error:
            raise ConfigInvalid(f"RUNSTREAM_JWT__JWKS: {self._path} is no JSON Web Key Set.") from error


def stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


class KeyUrl:
    """Fetched when it is needed, off the event loop, by one request at a time."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, timeout=FETCH_SECONDS)
        self._keys: jwt.PyJWKSet | None = None
        self._fetching = anyio.Lock()
        self._fetched_at = -math.inf  # whether it worked or not
        self._expires_at = -math.inf

    async def keys(self) -> jwt.PyJWKSet:
        return self._keys if self._keys and time.monotonic() < self._expires_at else await self.newest()

    async def newest(self) -> jwt.PyJWKSet:
        """A flood of tokens with unknown keys, or a server that does not answer, is no flood of fetches."""
        async with self._fetching:
            if time.monotonic() - self._fetched_at >= COOLDOWN_SECONDS:
                await self._fetch()
            if self._keys is None or time.monotonic() >= self._expires_at:
                raise AuthUnavailable("The keys that tokens are checked with can't be fetched.")
            return self._keys

    async def _fetch(self) -> None:
        try:
            self._keys = await anyio.to_thread.run_sync(self._client.get_jwk_set, True)
            self._expires_at = time.monotonic() + LIFESPAN_SECONDS
        except (OSError, *MALFORMED) as error:
            logger.warning("The keys that tokens are checked with can't be fetched: %s", type(error).__name__)
        finally:
            self._fetched_at = time.monotonic()


def open_keys(place: str) -> KeySource:
    """A URL, or a file. Raises ConfigInvalid; a URL need not answer yet."""
    return KeyUrl(place) if place.startswith(("https://", "http://")) else KeyFile(Path(place))


def one_of(keys: jwt.PyJWKSet, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
    """The key of this id; the only one that fits, without an id."""
    fitting = [
        key
        for key in keys.keys
        if key.public_key_use in ("sig", None) and key.algorithm_name == algorithm and kid in (None, key.key_id)
    ]
    return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


class Jwts:
    """Tokens of one issuer for one audience; the owner is their `sub`."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer or None
        self._audience = audience or None

    async def identify(self, token: str) -> Identity:
        """Raises Unauthorized, and AuthUnavailable when the keys can't be had."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in ALGORITHMS:
                raise Unauthorized("Tokens are signed with an asymmetric algorithm here.")
            key = one_of(await self._keys.keys(), kid, algorithm)
            if key is None:
                key = one_of(await self._keys.newest(), kid, algorithm)
            if key is None:
                raise Unauthorized("The token's key is not known.")
            return self._of(token, key)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # the library's sentences quote claims
            raise Unauthorized("The token is not valid, or not any more.") from None

    def _of(self, token: str, key: jwt.PyJWK) -> Identity:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options=OPTIONS,
        )
        expires_at = float(claims["exp"])
        if not time.time() < expires_at:  # without the leeway, or a stream that ends now could be opened again
            raise Unauthorized("The token is not valid any more.")
        return Identity(owner=owner_of(claims["sub"]), expires_at=expires_at)
