"""Streams are run outside of the layers that their requests passed through."""

import asyncio
import gc
import weakref
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.limit import BodyLimit
from app.api.stream import StreamHost, StreamLimits, Streams, while_connected
from app.errors import TooManyStreams
from tests.conformance.harness import spawn, turns
from tests.runs.test_following import Scene, scene

Message = MutableMapping[str, Any]
TEST_SECONDS = 20.0


class Something:
    """What a route puts into its scope."""


class Layer:
    """Notes what is sent through it, and fails on its way back if it is to."""

    def __init__(self, app: ASGIApp, *, fails: bool = False) -> None:
        self._app = app
        self._fails = fails
        self.sent: list[str] = []
        self.has_returned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            self.sent.append(message["type"])
            await send(message)

        await self._app(scope, receive, sending)
        self.has_returned = True
        if self._fails:
            raise LookupError


class Client:
    """Never leaves; has all that was sent."""

    def __init__(self) -> None:
        self.body = b""

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.body += message.get("body", b"")


def one_seat() -> Streams:
    return Streams(StreamLimits(max_streams=1, max_streams_per_owner=None, max_stream_seconds=None))


def answering(on: Scene, streams: Streams) -> ASGIApp:
    """A route that answers with the run's stream."""

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        await on.stream(streams)(scope, receive, send)

    return route


def test_only_the_headers_pass_through_the_layers_and_what_the_route_held_is_let_go() -> None:
    async def scenario() -> None:
        async with scene() as on:
            streams, client, held = one_seat(), Client(), list["weakref.ref[Something]"]()

            async def route(scope: Scope, receive: Receive, send: Send) -> None:
                scope["something"] = Something()
                held.append(weakref.ref(scope["something"]))
                await on.stream(streams)(scope, receive, send)

            layer = Layer(route)
            serving = spawn(StreamHost(layer)({"type": "http"}, client.receive, client.send))
            await on.write(3)
            await turns(50)
            gc.collect()
            assert client.body.count(b'"token"') == 3
            assert (layer.has_returned, layer.sent, held[0]()) == (True, ["http.response.start"], None)
            with pytest.raises(TooManyStreams):
                streams.take(None)
            await on.end()
            await serving
            assert b'"complete"' in client.body
            streams.take(None)

    asyncio.run(scenario())


def test_a_stream_whose_route_fails_after_all_gives_its_seat_back() -> None:
    async def scenario() -> None:
        async with scene() as on:
            streams, client = one_seat(), Client()

            with pytest.raises(LookupError):
                await StreamHost(Layer(answering(on, streams), fails=True))(
                    {"type": "http"}, client.receive, client.send
                )
            assert client.body == b""
            streams.take(None)

    asyncio.run(scenario())


def test_a_body_that_does_not_end_is_limited_while_its_stream_goes_on() -> None:
    async def scenario() -> None:
        async with scene() as on:
            streams, client = one_seat(), Client()

            async def flood() -> Message:
                await asyncio.sleep(0)
                return {"type": "http.request", "body": b"x" * 100, "more_body": True}

            host = StreamHost(BodyLimit(answering(on, streams), max_bytes=10_000, seconds=60))
            await host({"type": "http", "headers": []}, flood, client.send)
            assert b'"start"' in client.body
            streams.take(None)

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_work_that_came_to_its_end_as_its_time_ran_out_has_ended() -> None:
    async def scenario() -> None:
        at_end, clock = list[bool](), asyncio.get_running_loop().time

        async def work() -> None:
            until = clock() + 0.05
            while clock() < until:  # the loop does not turn, so the timer is late
                pass
            at_end.append(True)

        assert await while_connected(one_seat(), Client().receive, work, seconds=0.01)
        assert at_end

    asyncio.run(asyncio.wait_for(scenario(), TEST_SECONDS))


def test_the_span_of_a_request_that_failed_knows_its_route() -> None:
    async def scenario() -> None:
        async def route(scope: Scope, receive: Receive, send: Send) -> None:
            scope["route"] = "the route"
            raise LookupError

        scope: Message = {"type": "http"}
        with pytest.raises(LookupError):
            await StreamHost(route)(scope, Client().receive, Client().send)
        assert scope == {"type": "http", "route": "the route"}

    asyncio.run(scenario())
