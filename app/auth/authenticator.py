"""All ways to say who asks, behind one question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.auth.identity import ANONYMOUS, Credentials, Identity, is_jwt, owner_of
from app.auth.key import ApiKey, find_owner
from app.errors import Unauthorized

if TYPE_CHECKING:  # what they need takes 12 MB, and a quarter of a second to import: for who has set them alone
    from app.auth.hook import Hook
    from app.auth.jwt import Jwts


class Authenticator:
    """Who asks. Without any way to say so everybody is the one anonymous owner.

    The first that knows a token wins: keys, then tokens of the issuer, then the hook. What has the form of a JWT is
    the issuer's business alone, where there is one.
    """

    def __init__(self, *, keys: Sequence[ApiKey] = (), jwts: "Jwts | None" = None, hook: "Hook | None" = None) -> None:
        self._keys = keys
        self._jwts = jwts
        self._hook = hook

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked."""
        return not self._keys and self._jwts is None and self._hook is None

    async def identify(self, credentials: Credentials) -> Identity:
        """Raises Unauthorized, Forbidden, and AuthUnavailable."""
        if self.is_open:
            return Identity(owner=ANONYMOUS)
        token = credentials.token
        if token is not None and (owner := find_owner(self._keys, token)) is not None:
            return Identity(owner=owner_of(owner))
        if token is not None and self._jwts is not None and (is_jwt(token) or self._hook is None):
            return await self._jwts.identify(token)
        if self._hook is not None:
            return await self._hook.identify(credentials)
        raise Unauthorized("Send an API key or a token that is known here." if token is None else "It is not known.")
