"""The same client for an event loop, asyncio's or trio's."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, cast

import anyio
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


class AsyncClient:
    """A Runstream server at `base_url`; close it, or use it in an `async with`.

    `headers` go with every request, `auth` and `transport` are httpx's. Every method raises ProblemError when the
    server refuses, and ConnectionLost when it can't be reached within what `retry` allows. An iterator that is not read
    to its end is left with `aclose()`, best by `contextlib.aclosing`: after a `break` alone its connection stays open
    for a while. Leaving does not stop the run: `cancel` does.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retry = retry or RetryPolicy()
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=headers, auth=auth, transport=transport, timeout=self._retry.silence_seconds
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    def stream(
        self, body: RunBody, *, view: View | None = None, idempotency_key: str | None = None
    ) -> AsyncGenerator[Frame, None]:
        """Start a run, when the first frame is asked for, and give its frames to the end.

        A `run_id` of its own makes the start happen once; an `idempotency_key` does so also when another process sends
        the same body again.
        """
        return self._read(StartReading(body, view, idempotency_key))

    def attach(self, run_id: str, *, after: int = 0, view: View | None = None) -> AsyncGenerator[Frame, None]:
        """A run's frames from its log, those after the seq `after`, then live to the end."""
        return self._read(LogReading(Place(run_id, after), view))

    def follow(self, thread_id: str, *, after: str | None = None) -> AsyncGenerator[Frame, None]:
        """The thread's active run, then the next ones, without an end.

        `after` is an event id, `<run id>.<seq>`: what came since is given first.
        """
        return self._read(ThreadReading(thread_id, after))

    def resume(
        self, thread_id: str, answer: Any, *, body: RunBody | None = None, view: View | None = None
    ) -> AsyncGenerator[Frame, None]:
        """Answer a thread's question, or several with `{interrupt id: answer}`; the frames of the run that goes on."""
        return self.stream({**(body or {}), "thread_id": thread_id, "resume": answer}, view=view)

    async def invoke(self, body: RunBody, *, idempotency_key: str | None = None) -> InvokeResult:
        """Start a run and wait for its result. A run that failed is a ProblemError."""
        request = start_request("/runs/invoke", with_run_id(body, idempotency_key), idempotency_key)
        return cast(InvokeResult, await self._call(request, wait_seconds=None))

    async def cancel(self, run_id: str, *, wait: bool = False, keep_partial: bool = False) -> Run:
        """Stop a run; with `wait`, when the work has really stopped. `keep_partial` leaves what was said there."""
        request = cancel_request(run_id, wait=wait, keep_partial=keep_partial)
        return cast(Run, await self._call(request, wait_seconds=None))

    async def state(self, thread_id: str) -> ThreadState:
        return cast(ThreadState, await self._call(state_request(thread_id), wait_seconds=self._retry.silence_seconds))

    async def _read(self, reading: Reading) -> AsyncGenerator[Frame, None]:
        attempts = Attempts(self._retry)
        while True:
            error: Exception | None = None
            try:
                async with self._open_for(reading) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    decoder = EventStreamDecoder()
                    async for piece in response.aiter_bytes():
                        attempts.succeeded()
                        for frame in frames_of(decoder, piece, reading.place):
                            yield frame
                            if reading.is_last(frame):
                                return
            except TEMPORARY as caught:
                error = caught
            await anyio.sleep(attempts.pause(error))

    @asynccontextmanager
    async def _open_for(self, reading: Reading) -> AsyncIterator[httpx.Response]:
        if (lookup := reading.lookup()) is not None:
            reading.found(await self._answer(lookup, self._retry.silence_seconds))
        async with self._open(reading.request()) as response:
            if reading.opened(response.headers):
                yield response
                return
            async with self._open(reading.request()) as shown:
                await response.aclose()
                yield shown

    @asynccontextmanager
    async def _open(self, request: Request) -> AsyncIterator[httpx.Response]:
        async with self._http.stream(
            request.method, request.path, params=request.query, headers=request.headers, json=request.body
        ) as response:
            if response.is_error:
                await response.aread()
                raise problem_of(response)
            yield response

    async def _call(self, request: Request, *, wait_seconds: float | None) -> Any:
        attempts = Attempts(self._retry)
        while True:
            try:
                return await self._answer(request, wait_seconds)
            except TEMPORARY as error:
                pause_seconds = attempts.pause(error)
            await anyio.sleep(pause_seconds)

    async def _answer(self, request: Request, wait_seconds: float | None) -> Any:
        response = await self._http.request(
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
