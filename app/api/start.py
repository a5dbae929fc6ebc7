"""Starting a run, and coming back to one: what POST and GET on /runs/stream and /runs/invoke have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from starlette.requests import HTTPConnection

from app.api.body import fingerprint_of, is_run_id, parse_body
from app.api.context import Context
from app.errors import BadEventId, Invalid, OriginNotAllowed
from app.protocols.event_id import parse_event_id
from app.protocols.tokens import TokenPolicy, parse_policy
from app.protocols.view import View
from app.runs.model import Run
from app.runs.request import StreamMode

MAX_KEY_LENGTH = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A run to stream, and from where."""

    run: Run
    after: int


async def reattach(context: Context, owner: str, request: Request, body: Mapping[str, Any]) -> Opened | None:
    """The run that `Last-Event-ID` names, if the header is there; nothing is executed then."""
    header = request.headers.get("last-event-id")
    if not header:
        return None
    found = parse_event_id(header)
    if found.run_id is None:
        raise BadEventId("Here an event id is <run_id>.<seq>.")
    named = body.get("run_id")
    if isinstance(named, str) and named.lower() != found.run_id:
        raise BadEventId("The event id is of another run than run_id.")
    run = await context.runs.get(owner, found.run_id)
    await context.runs.check_cursor(run, found.seq)
    return Opened(run=run, after=found.seq)


async def start_run(
    context: Context, owner: str, request: Request, body: Mapping[str, Any], default_modes: tuple[StreamMode, ...]
) -> Run:
    """What a POST starts: see `begin_run`."""
    return await begin_run(context, owner, body, default_modes, key=idempotency_key(request))


async def begin_run(
    context: Context, owner: str, body: Mapping[str, Any], default_modes: tuple[StreamMode, ...], *, key: str | None
) -> Run:
    """Begin a run, or find the one that the same request began. The key is looked at before anything else."""
    fingerprint = fingerprint_of(body)
    run_id = body.get("run_id")
    run_id = run_id.lower() if isinstance(run_id, str) and is_run_id(run_id) else None
    if key is not None or run_id is not None:
        earlier = await context.runs.repeated(owner, run_id=run_id, key=key, fingerprint=fingerprint)
        if earlier is not None:
            return earlier
    asked = parse_body(body).to_request(owner=owner, key=key, fingerprint=fingerprint, default_modes=default_modes)
    return (await context.runs.start(asked)).run


def recorded_view(run: Run) -> View:
    """What a reader sees that asks for nothing: everything recorded, with the token policy the run was started with."""
    return View(tokens=policy_of(run, run.request.get("tokens")))


def policy_of(run: Run, tokens: Mapping[str, Any] | None, *, loc: Sequence[str] = ("body", "tokens")) -> TokenPolicy:
    """The policy of a reader's `tokens`, with the defaults that the authors of the run's nodes gave. Raises Invalid."""
    return parse_policy(tokens, defaults=run.request.get("node_tokens"), loc=loc)


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise Invalid(f"An idempotency key has 1 to {MAX_KEY_LENGTH} characters.", loc=("header", "idempotency-key"))
    return key


def check_origin(context: Context, request: HTTPConnection) -> None:
    """Raise OriginNotAllowed for a page of another site: a GET that starts work needs no preflight.

    A page's `fetch(..., {mode: "no-cors"})` names no origin, whosever page it is; there Sec-Fetch-Site tells.
    """
    origin = request.headers.get("origin")
    if "*" in context.allowed_origins or origin in context.allowed_origins:
        return
    if origin is None:
        is_own = request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    else:
        is_own = urlsplit(origin).netloc == request.headers.get("host")
    if not is_own:
        raise OriginNotAllowed("Pages of this origin may not start runs here.")
