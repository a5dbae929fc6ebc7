"""Event ids as clients see them: `<run_id>.<seq>`, or on a run's own URL the seq alone (wire contract, section 4)."""

from dataclasses import dataclass

from app.errors import BadEventId

MAX_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventId:
    """A place in a log; `run_id` is None where the URL names the run."""

    run_id: str | None
    seq: int


def parse_event_id(text: str) -> EventId:
    """Raises BadEventId for whatever is not an id."""
    run_id, dot, digits = text.strip().rpartition(".")
    if not (digits.isascii() and digits.isdigit()) or (dot and not run_id) or len(digits) > 19:
        raise BadEventId(f"{text[:100]!r} is not an event id.")
    seq = int(digits)
    if seq > MAX_SEQ:
        raise BadEventId(f"{text[:100]!r} is not an event id.")
    return EventId(run_id.lower() or None, seq)


def seq_on(run_id: str, text: str) -> int:
    """The seq of an id that must be of this run. Raises BadEventId."""
    found = parse_event_id(text)
    if found.run_id not in (None, run_id.lower()):
        raise BadEventId(f"The event id {text[:100]!r} is of another run.")
    return found.seq
