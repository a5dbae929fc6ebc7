"""Reading a log to its end over connections that break: what to ask next, and what to make of the answers. No I/O."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx

from runstream_client.error import ConnectionLost, ProblemError
from runstream_client.event_stream import EventStreamDecoder, Message
from runstream_client.frame import Frame, is_end
from runstream_client.request import Request, RetryPolicy, RunBody, View, query_of, start_request, with_run_id

STREAM_OF_RUN: Final = re.compile(r"/runs/([^/]+)/stream$")
TEMPORARY: Final = (httpx.TransportError, ProblemError)  # what `Attempts.pause` is asked about
ACCEPT: Final = {"Accept": "text/event-stream"}


class Attempts:
    """Counts failures in a row."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def succeeded(self) -> None:
        self._failures = 0

    def pause(self, error: Exception | None) -> float:
        """Seconds to wait before the next attempt. Raises the error when there is to be none, or ConnectionLost."""
        if isinstance(error, ProblemError) and not error.is_temporary:
            raise error
        if self._failures >= self._policy.retries:
            raise ConnectionLost(f"No connection after {self._failures + 1} attempts.") from error
        longest = min(self._policy.seconds * 2.0**self._failures, self._policy.max_seconds)
        self._failures += 1
        asked = error.retry_after_seconds if isinstance(error, ProblemError) else None
        return (asked or 0.0) + longest * random.uniform(0.5, 1.0)


class Place:
    """Where a reader is: the run, and the seq of the last frame that was given."""

    def __init__(self, run_id: str | None = None, seq: int = 0) -> None:
        self.run_id = run_id
        self.seq = seq

    @property
    def headers(self) -> dict[str, str]:
        return ACCEPT if self.run_id is None else {**ACCEPT, "Last-Event-ID": f"{self.run_id}.{self.seq}"}

    def move_to(self, run_id: str, seq: int) -> None:
        self.run_id, self.seq = run_id, seq

    def take(self, message: Message) -> Frame | None:
        """The frame of a message, or None when it was given before."""
        frame: Frame = json.loads(message.data)
        run_id = message.id.rpartition(".")[0]
        if run_id == self.run_id and frame["seq"] <= self.seq:
            return None
        self.move_to(run_id, frame["seq"])
        return frame


class Reading:
    """A way to read. For each connection a client calls `lookup`, `request` and `opened`; for each frame `is_last`."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def lookup(self) -> Request | None:
        """A request whose JSON `found` wants to see before the connection is opened."""
        return None

    def found(self, answer: Any) -> None:
        """What `lookup` asked for."""

    def request(self) -> Request:
        raise NotImplementedError

    def opened(self, headers: Mapping[str, str]) -> bool:
        """Whether to read this response; otherwise the next request is to be opened while this one is still open."""
        return True

    def is_last(self, frame: Frame) -> bool:
        return is_end(frame)


class LogReading(Reading):
    """A run's log, from a place on to its end."""

    def __init__(self, place: Place, view: View | None) -> None:
        super().__init__(place)
        self._view = view

    def request(self) -> Request:
        path = f"/runs/{quote(self.place.run_id or '', safe='')}/stream"
        return Request(path=path, query=query_of(self._view), headers=self.place.headers)


class StartReading(LogReading):
    """A run that is started first. The start is repeated until its answer has come; then its log is read."""

    def __init__(self, body: RunBody, view: View | None, idempotency_key: str | None) -> None:
        super().__init__(Place(), view)
        self._body = with_run_id(body, idempotency_key)
        self._key = idempotency_key

    def request(self) -> Request:
        if self.place.run_id is not None:
            return super().request()
        start = start_request("/runs/stream", self._body, self._key)
        return Request(method="POST", path=start.path, headers={**start.headers, **ACCEPT}, body=start.body)

    def opened(self, headers: Mapping[str, str]) -> bool:
        if self.place.run_id is not None:
            return True
        found = STREAM_OF_RUN.search(headers.get("location", ""))
        self.place.run_id = found[1] if found else self._body.get("run_id")
        # the answer of a start shows everything; it is held until the reader with the view is there: the run shall not
        # think that it was left
        return self._view is None or self.place.run_id is None


class ThreadReading(Reading):
    """A thread's active run, then the next ones, without an end."""

    def __init__(self, thread_id: str, after: str | None) -> None:
        run_id, _, seq = (after or "").rpartition(".")
        super().__init__(Place(run_id, int(seq)) if after else Place())
        self._thread_id = thread_id
        self._was_empty = False

    def lookup(self) -> Request | None:
        """The thread's runs, as long as it is not known where to begin: a drop before the first frame loses nothing."""
        if self.place.run_id is not None:
            return None
        return Request(path="/runs", query={"limit": "1000", "thread_id": self._thread_id})

    def found(self, answer: Any) -> None:
        """Newest first; a thread that had no run before has only runs that are to be shown."""
        runs: Sequence[Mapping[str, Any]] = answer["runs"]
        shown = [run for run in runs if self._was_empty or run["finished_at"] is None]
        if shown:
            self.place.move_to(shown[-1]["run_id"], 0)
        elif runs:
            self.place.move_to(runs[0]["run_id"], runs[0]["last_seq"])
        self._was_empty = not runs

    def request(self) -> Request:
        return Request(path=f"/threads/{quote(self._thread_id, safe='')}/runs/stream", headers=self.place.headers)

    def is_last(self, frame: Frame) -> bool:
        return False


def frames_of(decoder: EventStreamDecoder, piece: bytes, place: Place) -> Iterator[Frame]:
    """The frames that a piece of a response completes, each once."""
    for message in decoder.feed(piece):
        frame = place.take(message)
        if frame is not None:
            yield frame
