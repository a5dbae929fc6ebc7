"""The client for code without an event loop."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

import httpx

from runstream_client.error import problem_of
from runstream_client.event_stream import EventStreamDecoder
from runstream_client.frame import Frame
from runstream_client.reading import (
    TEMPORARY,
    Attempts,
    LogReading,
    Place,
    Reading,
    StartReading,
    ThreadReading,
    frames_of,
)
from runstream_client.request import (
    Request,
    RetryPolicy,
    RunBody,
    View,
    cancel_request,
    start_request,
    state_request,
    with_run_id,
)
from runstream_client.result import InvokeResult, Run, ThreadState


class Client:
    """A Runstream server at `base_url`; close it, or use it in a `with`.

    `headers` go with every request, `auth` and `transport` are httpx's. Every method raises ProblemError when the
    server refuses, and ConnectionLost when it can't be reached within what `retry` allows. An iterator that is not read
    to its end is left with `close()`; that does not stop the run: `cancel` does.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._http = httpx.Client(
            base_url=base_url, headers=headers, auth=auth, transport=transport, timeout=self._retry.silence_seconds
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def stream(
        self, body: RunBody, *, view: View | None = None, idempotency_key: str | None = None
    ) -> Generator[Frame, None, None]:
        """Start a run, when the first frame is asked for, and give its frames to the end.

        A `run_id` of its own makes the start happen once; an `idempotency_key` does so also when another process sends
        the same body again.
        """
        return self._read(StartReading(body, view, idempotency_key))

    def attach(self, run_id: str, *, after: int = 0, view: View | None = None) -> Generator[Frame, None, None]:
        """A run's frames from its log, those after the seq `after`, then live to the end."""
        return self._read(LogReading(Place(run_id, after), view))

    def follow(self, thread_id: str, *, after: str | None = None) -> Generator[Frame, None, None]:
        """The thread's active run, then the next ones, without an end.

        `after` is an event id, `<run id>.<seq>`: what came since is given first.
        """
        return self._read(ThreadReading(thread_id, after))

    def resume(
        self, thread_id: str, answer: Any, *, body: RunBody | None = None, view: View | None = None
    ) -> Generator[Frame, None, None]:
        """Answer a thread's question, or several with `{interrupt id: answer}`; the frames of the run that goes on."""
        return self.stream({**(body or {}), "thread_id": thread_id, "resume": answer}, view=view)

    def invoke(self, body: RunBody, *, idempotency_key: str | None = None) -> InvokeResult:
        """Start a run and wait for its result. A run that failed is a ProblemError."""
        request = start_request("/runs/invoke", with_run_id(body, idempotency_key), idempotency_key)
        return cast(InvokeResult, self._call(request, wait_seconds=None))

    def cancel(self, run_id: str, *, wait: bool = False, keep_partial: bool = False) -> Run:
        """Stop a run; with `wait`, when the work has really stopped. `keep_partial` leaves what was said there."""
        request = cancel_request(run_id, wait=wait, keep_partial=keep_partial)
        return cast(Run, self._call(request, wait_seconds=None))

    def state(self, thread_id: str) -> ThreadState:
        return cast(ThreadState, self._call(state_request(thread_id), wait_seconds=self._retry.silence_seconds))

    def _read(self, reading: Reading) -> Generator[Frame, None, None]:
        attempts = Attempts(self._retry)
        while True:
            error: Exception | None = None
            try:
                with self._open_for(reading) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    decoder = EventStreamDecoder()
                    for piece in response.iter_bytes():
                        attempts.succeeded()
                        for frame in frames_of(decoder, piece, reading.place):
                            yield frame
                            if reading.is_last(frame):
                                return
            except TEMPORARY as caught:
                error = caught
            time.sleep(attempts.pause(error))

    @contextmanager
    def _open_for(self, reading: Reading) -> Iterator[httpx.Response]:
        if (lookup := reading.lookup()) is not None:
            reading.found(self._answer(lookup, self._retry.silence_seconds))
        with self._open(reading.request()) as response:
            if reading.opened(response.headers):
                yield response
                return
            with self._open(reading.request()) as shown:
                response.close()
                yield shown

    @contextmanager
    def _open(self, request: Request) -> Iterator[httpx.Response]:
        with self._http.stream(
            request.method, request.path, params=request.query, headers=request.headers, json=request.body
        ) as response:
            if response.is_error:
                response.read()
                raise problem_of(response)
            yield response

    def _call(self, request: Request, *, wait_seconds: float | None) -> Any:
        attempts = Attempts(self._retry)
        while True:
            try:
                return self._answer(request, wait_seconds)
            except TEMPORARY as error:
                pause_seconds = attempts.pause(error)
            time.sleep(pause_seconds)

    def _answer(self, request: Request, wait_seconds: float | None) -> Any:
        response = self._http.request(
            request.method,
            request.path,
            params=request.query,
            headers=request.headers,
            json=request.body,
            timeout=httpx.Timeout(self._retry.silence_seconds, read=wait_seconds),
        )
        if response.is_error:
            raise problem_of(response)
        return response.json()
