"""Plays a scenario: a client, the proxy that cuts its connections, the server behind it, and what holds for all."""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.clients.edge import Edge
from tests.e2e.proof import ENDS, runs_of, text_of
from tests.e2e.proxy import Cut, CuttingProxy
from tests.server import Frame, RunningServer

Result = dict[str, Any]
Play = Callable[[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], list[Result]]

OPTIONS: Mapping[str, Any] = {"silence_seconds": 10.0, "retry_seconds": 0.02, "max_retry_seconds": 2.0, "retries": 10}
CLOSED_PORT = 9
BESIDE_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One playing of a scenario; `thread_id` and `run_id` are its own."""

    server: RunningServer
    proxy: CuttingProxy
    thread_id: str = field(default_factory=lambda: f"clients-{uuid.uuid4()}")
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    results: list[Result] = field(default_factory=list)

    def log(self, run_id: str) -> list[Frame]:
        """Everything that a run recorded, read without a stream."""
        with self.server.client() as client:
            page = client.get(f"/runs/{run_id}/events", params={"limit": 5000, "wait_seconds": 20}).json()
        frames: list[Frame] = page["events"]
        return frames

    def runs(self) -> list[dict[str, Any]]:
        return runs_of(self.server, self.thread_id)

    def values(self) -> Any:
        with self.server.client() as client:
            return client.get(f"/threads/{self.thread_id}/state").json()["values"]

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        with self.server.client() as client:
            answer = client.post(path, json={"thread_id": self.thread_id, **body})
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def statuses(self) -> list[int]:
        return [exchange.status for exchange in self.proxy.streams]

    def frames(self, step: int = 0) -> list[Frame]:
        found: list[Frame] = self.results[step]["frames"]
        return found


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a client does, what befalls it, and what must come of it.

    `steps` are for the players (player.mjs, python_player.py); `$thread` and `$run` in them are the stage's ids.
    `cuts` are for its streams, in their order. `before` sets the stage, `beside` acts meanwhile, `check` looks at the
    outcome. With `server_is_away` nothing answers until `beside` gives the proxy its port; `answers` and `loses_cursor`
    are for the proxy, too.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    check: Callable[[Stage], None]
    cuts: Sequence[Cut | None] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[Stage], Any] | None = None
    beside: Callable[[Stage], Any] | None = None
    server_is_away: bool = False
    answers: Sequence[bytes] = ()
    loses_cursor: bool = False


def perform(scenario: Scenario, play: Play, server: RunningServer) -> None:
    """Play it and check the outcome."""
    port = CLOSED_PORT if scenario.server_is_away else server.port
    edge = Edge(port, scenario.cuts, answers=scenario.answers, loses_cursor=scenario.loses_cursor)
    with edge as proxy:
        stage = Stage(server=server, proxy=proxy)
        if scenario.before is not None:
            scenario.before(stage)
        finish = begin(scenario.beside, stage)
        steps = filled(scenario.steps, {"$thread": stage.thread_id, "$run": stage.run_id})
        stage.results.extend(play(proxy.url, {**OPTIONS, **scenario.options}, steps))
        finish()
        for step, result in zip(scenario.steps, stage.results, strict=True):
            check_whole(stage, step, result)
        scenario.check(stage)


def begin(beside: Callable[[Stage], Any] | None, stage: Stage) -> Callable[[], None]:
    """Act in a thread of its own. What is given waits for it, and raises what went wrong in it."""
    errors: list[BaseException] = []

    def act() -> None:
        try:
            if beside is not None:
                beside(stage)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()

    def finish() -> None:
        thread.join(timeout=BESIDE_SECONDS)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    return finish


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """The steps with the stage's own ids."""
    match value:
        case str():
            return names.get(value, value)
        case Mapping():
            return {key: filled(item, names) for key, item in value.items()}
        case list() | tuple():
            return [filled(item, names) for item in value]
        case _:
            return value


def check_whole(stage: Stage, step: Mapping[str, Any], result: Result) -> None:
    """What holds for whatever a client has read of a run: it is the log, from where it began to where it left."""
    frames: list[Frame] = result["frames"]
    if not frames or "view" in step or "flush" in step.get("body", {}).get("tokens", {}):
        return
    for part in by_run(frames, result):
        run_id, read = part
        log = stage.log(run_id)
        first = read[0]["seq"]
        assert read == log[first - 1 : first - 1 + len(read)], [frame["seq"] for frame in read]
        if first == 1 and read[-1]["event"] in ENDS:
            assert len(read) == len(log)
            assert_tokens_equal_messages(read, result["texts"])


def by_run(frames: Sequence[Frame], result: Result) -> list[tuple[str, list[Frame]]]:
    """The frames of each run, by its start; of a part without a start the run is not known."""
    parts: list[tuple[str, list[Frame]]] = []
    for frame in frames:
        if frame["event"] == "start":
            parts.append((frame["run_id"], []))
        if parts:
            parts[-1][1].append(frame)
    return parts


def assert_tokens_equal_messages(frames: Sequence[Frame], texts: Mapping[str, str]) -> None:
    """The text of each message is what its node returned, and none that became void is left."""
    messages = [frame["data"]["message"] for frame in frames if "message" in frame.get("data", {})]
    for message in messages:
        if message["type"] == "AIMessage":
            assert texts.get(message["id"], "") == text_of(message), message
    void = {message_id for frame in frames if "discard" in frame for message_id in frame["discard"]}
    spoken = {frame["data"]["id"] for frame in frames if frame["event"] == "token"}
    assert set(texts) >= spoken - void
