"""Play a scenario's steps with the clients of clients/python, as player.mjs does with that of clients/js."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

import httpx
from runstream_client import (
    AsyncClient,
    Client,
    ConnectionLost,
    Frame,
    ProblemError,
    RetryPolicy,
    StateMirror,
    Transcript,
    is_end,
)

Step = Mapping[str, Any]
Result = dict[str, Any]


class Taking:
    """What one step has seen, and what the steps after it may refer to."""

    def __init__(self, step: Step, known: dict[str, Any]) -> None:
        self.step = step
        self.known = known
        self.frames: list[Frame] = []
        self.transcript = Transcript()
        self.mirror = StateMirror()
        self.value: Any = None
        self.error: dict[str, Any] | None = None
        self._ends = 0

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.transcript.take(frame)
        self.mirror.take(frame)
        if frame["event"] == "start":
            self.known["run_id"] = frame["run_id"]
        if frame["event"] == "interrupt":
            self.known["interrupts"] = frame["interrupts"]
        self.known["seq"] = frame["seq"]
        self._ends += is_end(frame)

    def is_at(self, name: str) -> bool:
        return len(self.frames) == self.step.get(name)

    @property
    def leaves(self) -> bool:
        return self.is_at("leave_after") or self._ends == self.step.get("ends")

    def open(self, client: Any) -> Any:
        """The iterator of the step, of either client."""
        step, known = self.step, self.known
        view = {} if "view" not in step else {"view": step["view"]}
        match step["do"]:
            case "stream":
                return client.stream(step["body"], idempotency_key=step.get("key"), **view)
            case "resume":
                return client.resume(step["thread"], self._answer(), **view)
            case "attach":
                after = known["seq"] if step.get("after") == "last" else step.get("after", 0)
                return client.attach(step.get("run", known.get("run_id")), after=after, **view)
            case "follow":
                after = f"{known['run_id']}.{known['seq']}" if "after" in step else None
                return client.follow(step["thread"], after=after)
            case other:
                raise AssertionError(f"no step {other}")

    def call(self, client: Any) -> Any:
        """The call of the step, of either client; None where it is an iterator."""
        step, known = self.step, self.known
        match step["do"]:
            case "invoke":
                return client.invoke(step["body"], idempotency_key=step.get("key"))
            case "cancel":
                return client.cancel(step.get("run", known.get("run_id")), wait=True)
            case "state":
                return client.state(step["thread"])
            case _:
                return None

    def called(self, value: Any) -> None:
        self.value = value
        self.known["interrupts"] = value.get("interrupts", [])

    def failed(self, error: Exception) -> None:
        match error:
            case ProblemError():
                problem = {"status": error.status, "code": error.code, "problem": error.problem}
                self.error = {"kind": "problem", **problem}
            case _:
                self.error = {"kind": "lost"}

    def _answer(self) -> Any:
        """`answers` are by the name of the node that asked."""
        if "answers" not in self.step:
            return self.step["answer"]
        answers = self.step["answers"]
        return {asked["id"]: answers[asked["node"]] for asked in self.known["interrupts"] if asked["node"] in answers}

    @property
    def result(self) -> Result:
        return {
            "frames": self.frames,
            "texts": self.transcript.texts,
            "mirror": self.mirror.value,
            "is_stale": self.mirror.is_stale,
            "value": self.value,
            "error": self.error,
        }


def retry_policy(options: Mapping[str, Any]) -> RetryPolicy:
    return RetryPolicy(
        retries=options["retries"],
        seconds=options["retry_seconds"],
        max_seconds=options["max_retry_seconds"],
        silence_seconds=options["silence_seconds"],
    )


def play(url: str, options: Mapping[str, Any], steps: Sequence[Step]) -> list[Result]:
    known: dict[str, Any] = {}
    with Client(url, retry=retry_policy(options), transport=httpx.HTTPTransport(verify=False)) as client:
        return [play_step(client, Taking(step, known)) for step in steps]


def play_step(client: Client, taking: Taking) -> Result:
    try:
        value = taking.call(client)
        if value is not None:
            taking.called(value)
        else:
            watch(client, taking)
    except (ProblemError, ConnectionLost) as error:
        taking.failed(error)
    return taking.result


def watch(client: Client, taking: Taking) -> None:
    frames: Generator[Frame, None, None] = taking.open(client)
    with closing(frames):
        for frame in frames:
            taking.take(frame)
            if taking.is_at("cancel_after"):
                client.cancel(taking.known["run_id"], wait=True, keep_partial=taking.step.get("keep_partial", False))
            if taking.is_at("abort_after"):
                taking.error = {"kind": "aborted"}
                return
            if taking.leaves:
                return


async def play_async(url: str, options: Mapping[str, Any], steps: Sequence[Step]) -> list[Result]:
    known: dict[str, Any] = {}
    async with AsyncClient(
        url, retry=retry_policy(options), transport=httpx.AsyncHTTPTransport(verify=False)
    ) as client:
        return [await play_step_async(client, Taking(step, known)) for step in steps]


async def play_step_async(client: AsyncClient, taking: Taking) -> Result:
    try:
        call = taking.call(client)
        if call is not None:
            taking.called(await call)
        else:
            await watch_async(client, taking)
    except (ProblemError, ConnectionLost) as error:
        taking.failed(error)
    return taking.result


async def watch_async(client: AsyncClient, taking: Taking) -> None:
    """A step that aborts has its own task cancelled."""
    task = asyncio.current_task()
    assert task is not None
    frames: AsyncGenerator[Frame, None] = taking.open(client)
    try:
        async with aclosing(frames):
            async for frame in frames:
                taking.take(frame)
                if taking.is_at("cancel_after"):
                    keep_partial = taking.step.get("keep_partial", False)
                    await client.cancel(taking.known["run_id"], wait=True, keep_partial=keep_partial)
                if taking.is_at("abort_after"):
                    task.cancel()
                if taking.leaves:
                    return
    except asyncio.CancelledError:
        task.uncancel()
        taking.error = {"kind": "aborted"}
