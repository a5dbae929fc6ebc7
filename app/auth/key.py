"""API keys: long random strings, each with an owner. Only their hashes are kept."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

HASHED: Final = "sha256:"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """SHA-256 is enough for a key that nobody chose: what is random can't be guessed, however fast the guesses are."""

    owner: str
    digest: bytes = field(repr=False)


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """`owner:key,owner:key`, or `owner:sha256:<hex>` for one that is hashed already.

    An owner holds no `:` and no `,`; a key no `,`. Raises ValueError with a sentence that quotes no key.
    """
    keys = tuple(parse_api_key(entry.strip()) for entry in text.split(",") if entry.strip())
    owners: dict[bytes, str] = {}
    for key in keys:
        if owners.setdefault(key.digest, key.owner) != key.owner:
            raise ValueError(f"The owners {owners[key.digest]!r} and {key.owner!r} have the same key.")
    return keys


def parse_api_key(entry: str) -> ApiKey:
    owner, colon, secret = (part.strip() for part in entry.partition(":"))
    if not colon or not owner or not secret:
        raise ValueError("An entry is owner:key, with neither of them empty.")
    if not secret.startswith(HASHED):
        return ApiKey(owner=owner, digest=digest_of(secret))
    digits = secret.removeprefix(HASHED)
    if not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise ValueError(f"The key of {owner!r} begins with {HASHED} and goes on with no 64 hexadecimal digits.")
    return ApiKey(owner=owner, digest=bytes.fromhex(digits))


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def find_owner(keys: Sequence[ApiKey], token: str) -> str | None:
    """Whose key it is. Takes as long for a wrong key as for any right one."""
    digest, found = digest_of(token), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key.owner
    return found
