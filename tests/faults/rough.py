"""A bad network, and a client that comes through it."""

import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, cast

import httpx

from tests.e2e.proxy import Cut, CuttingProxy, Exchange
from tests.faults.check import Received
from tests.faults.script import Act, Script

RETRY_SECONDS: Final = 0.02
STALL_SECONDS: Final = 0.2
TRICKLED_BYTES: Final = 7
GIVE_UP_SECONDS: Final = 200.0
RESETS: Final = (httpx.TransportError, httpx.StreamError)


class RoughProxy(CuttingProxy):
    """Of the streams it cuts some, in mid-frame too, by RST or FIN; some stall, some trickle."""

    def __init__(self, port: int, seed: int) -> None:
        self._random = random.Random(seed)
        super().__init__(port)

    def __enter__(self) -> "RoughProxy":
        return self

    def _record(self, head: bytes) -> tuple[Exchange, Cut | None]:
        exchange, _ = super()._record(head)
        with self._lock:
            self.exchanges.clear()
            if self._random.random() < 0.6:
                return exchange, None
            frames, torn = self._random.randrange(12), self._random.choice([0, 0, 1, 9, 40])
            hows: list[Literal["reset", "close"]] = ["reset", "close"]
            return exchange, Cut(frames=frames, torn_bytes=torn, how=self._random.choice(hows))

    def _relay(self, client: socket.socket, server: socket.socket, exchange: Exchange, cut: Cut | None) -> None:
        with self._lock:
            how = self._random.random()
        if how < 0.15:
            threading.Event().wait(STALL_SECONDS)
        slow = cast(socket.socket, Trickling(client)) if how > 0.85 else client
        super()._relay(slow, server, exchange, cut)


class Trickling:
    """A socket that sends a few bytes at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), TRICKLED_BYTES):
            self._connection.sendall(data[start : start + TRICKLED_BYTES])


class Client:
    """Plays a script on a thread of its own, and comes back after whatever breaks."""

    def __init__(self, url: str, script: Script, seed: int) -> None:
        self.thread_id = f"thread-{seed}"
        self.received: list[Received] = []
        self._url = url
        self._script = script
        self._random = random.Random(seed)

    def play(self) -> bool:
        """Whether it was played to its end: a run that is lost is the last one."""
        with httpx.Client(base_url=self._url, timeout=10.0) as http:
            for act in self._script.acts:
                received = Received(run_id=str(uuid.UUID(int=self._random.getrandbits(128), version=4)))
                body = self._body(act, received.run_id)
                self.received.append(received)
                self._follow(http, body, received)
                if received.end is not None and received.end.get("code") == "lost":
                    return False
        return True

    def _body(self, act: Act, run_id: str) -> dict[str, Any]:
        body = {
            "graph": self._script.graph,
            "thread_id": self.thread_id,
            "run_id": run_id,
            "on_disconnect": "continue",
            **act.options,
        }
        match act.kind:
            case "input":
                return {**body, "input": act.value}
            case "resume":
                return {**body, "resume": act.value}
            case "answers":
                return {**body, "resume": self._answers(act.value)}
            case "command":
                command = dict(act.value)
                if "answers" in command:
                    command["resume"] = self._answers(command.pop("answers"))
                return {**body, "command": command}
            case _:
                return body

    def _answers(self, by_question: Mapping[str, Any]) -> dict[str, Any]:
        ends = [received.end or {} for received in self.received]
        asked = [question for end in ends for question in end.get("interrupts", ())]
        ids = {question["value"]: question["id"] for question in asked}
        return {ids[question]: answer for question, answer in by_question.items()}

    def _follow(self, http: httpx.Client, body: Mapping[str, Any], received: Received) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while received.end is None:
            assert time.monotonic() < deadline, f"no end of {received.run_id} after {received.texts[-3:]}"
            try:
                with self._opened(http, body, received) as answer:
                    self._take(answer, received)
            except RESETS:
                pass
            if received.end is None:
                threading.Event().wait(RETRY_SECONDS)

    @contextmanager
    def _opened(self, http: httpx.Client, body: Mapping[str, Any], received: Received) -> Iterator[httpx.Response]:
        """The start of a run, or one of the ways to come back to it."""
        headers = {"Accept": "text/event-stream"}
        if received.texts:
            headers["Last-Event-ID"] = f"{received.run_id}.{len(received.texts)}"
        if received.texts and self._random.random() < 0.5:
            stream = http.stream("GET", f"/runs/{received.run_id}/stream", headers=headers)
        else:
            stream = http.stream("POST", "/runs/stream", headers=headers, json=body)
        with stream as answer:
            yield answer

    def _take(self, answer: httpx.Response, received: Received) -> None:
        if answer.status_code != 200:
            answer.read()
            assert answer.status_code == 503, f"{answer.status_code} {answer.text}"
            return
        rest = b""
        for piece in answer.iter_bytes():
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                text, *fields = [line for line in block.split(b"\n") if not line.startswith(b":")]
                assert text.startswith(b"data: "), block
                received.texts.append(text.removeprefix(b"data: "))
                received.times.append(time.monotonic_ns())
                assert fields[0] == b"id: %b.%d" % (received.run_id.encode(), len(received.texts))
