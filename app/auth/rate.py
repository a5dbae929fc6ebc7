"""How many requests an owner may send: a moving window, in memory, by the library `limits`."""

import math
import time
from ipaddress import ip_network

from app.errors import RateLimited


class RateLimit:
    """`rate` is what `limits` reads, such as `100/minute`."""

    def __init__(self, rate: str) -> None:
        # 5 MB, for who has set a limit alone
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._item = parse(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, kind: str, name: str) -> None:
        """Count one request. Raises RateLimited when it is one too many, which is not counted."""
        if not self._limiter.hit(self._item, kind, name):
            raise self._refusal(kind, name)

    def check(self, kind: str, name: str) -> None:
        """Raises RateLimited when the next one would be too many; counts nothing."""
        if not self._limiter.test(self._item, kind, name):
            raise self._refusal(kind, name)

    def _refusal(self, kind: str, name: str) -> RateLimited:
        seconds = self._limiter.get_window_stats(self._item, kind, name).reset_time - time.time()
        return RateLimited(f"More than {self._item}.", retry_after_seconds=max(1, math.ceil(seconds)))


def neighbourhood(address: str) -> str:
    """An address as somebody is known by it: in IPv6 one has not an address but a whole network (RFC 6177)."""
    try:
        return str(ip_network(f"{address}/64", strict=False)) if ":" in address else address
    except ValueError:
        return address
