"""The Host header: a page of another site that has its name lead here must not be served (DNS rebinding).

Starlette's own check splits a host at its first colon, which is inside of an IPv6 address, and answers as plain text.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.access import PROBE_PATHS, path_of
from app.api.problem import problem_of
from app.errors import HostNotAllowed

SINGLE_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]*")
HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+?)\.?(:\d*)?")


class HostCheck:
    """Refuses a request for a host that is not known here.

    `allowed` has names, `*.example.com` for all below one, or `*`; without any, the names of loopback are known, and
    names without a dot, which nobody has on the internet. A request without a Host header is let through, since no
    browser sends one; and probes come under any name.
    """

    def __init__(self, app: ASGIApp, *, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = tuple(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and path_of(scope) not in PROBE_PATHS:
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if not all(self._is_allowed(host) for host in hosts):
                error = HostNotAllowed("The server is not known by this name: see RUNSTREAM_ALLOWED_HOSTS.")
                await problem_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        found = HOST.fullmatch(host.lower())
        name = found[1] if found else ""
        if not self._allowed:
            return is_local(name)
        return any(rule in ("*", name) or (rule.startswith("*.") and name.endswith(rule[1:])) for rule in self._allowed)


def is_local(name: str) -> bool:
    if SINGLE_LABEL.fullmatch(name) or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
