"""Processes that play a script and may die at a failpoint.

A mother, for each job that she is asked for, forks a process that composes the application as `app.main` does, with
traps round its store and its checkpoints, plays the script, and is left to die.
"""

import asyncio
import json
import logging
import os
import sys
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from app.api.context import Context
from app.auth.authenticator import Authenticator
from app.engine.checkpoints import Checkpoints, FileBackend, set_up
from app.engine.engine import GraphEngine
from app.engine.registry import Registry
from app.engine.state import Graph
from app.errors import ShuttingDown
from app.main import begin_drain, compose
from app.metrics import Metrics
from app.runs.model import Run
from app.runs.request import Action, Continue, LongForm, NewInput, Resume, RunRequest
from app.runs.threads import Edit, Update
from app.settings import Settings
from app.storage.sqlite import SqliteStore
from app.storage.writer import SqliteWriter
from tests.faults.failpoint import FailingBackend, Failpoint, Trap, failing
from tests.faults.script import OWNER, THREAD, Act, Script
from tests.faults.serve import PROJECT, serve
from tests.forked import redirect

PLAY_SECONDS: Final = 120.0
FAILED: Final = 1
STOPPED: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """`armed`: the act from which on calls count; -1: from the start of the process, recovery included."""

    folder: Path
    process: int
    script: Script
    failpoint: Failpoint | None
    armed: int


def run_id_of(act: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"act {act}"))


def received_path(folder: Path, act: int) -> Path:
    return folder / f"received-{act}"


@asynccontextmanager
async def opened(job: Job, registry: Registry, trap: Trap) -> AsyncIterator[Context]:
    """The application without its routes, as `app.main.open_context` opens it."""
    data_dir = job.folder / "data"
    settings = Settings(config=PROJECT, data_dir=data_dir)
    store = failing(await SqliteStore.open(data_dir), trap, job.folder / "claims")
    path = data_dir / "checkpoints.sqlite"
    backend = FileBackend(path, await SqliteWriter.open(path, setup=set_up))
    context = compose(settings, registry, store, Checkpoints(FailingBackend(backend, trap)), Authenticator(), Metrics())
    await context.runs.take_up()
    yield context


class Player:
    """A client that keeps what it receives in a file, and goes on after it with what it has not received."""

    def __init__(self, job: Job, context: Context, trap: Trap) -> None:
        self._job = job
        self._context = context
        self._trap = trap

    async def play(self) -> bool:
        """Whether it came to its end; not when the process is about to stop."""
        for number, act in enumerate(self._job.script.acts):
            if act.kind == "edit":
                await self._edit(number, act)
                continue
            run = await self._context.runs.repeated(OWNER, run_id=run_id_of(number), key=None, fingerprint=str(number))
            if run is None:
                if number == self._job.armed:
                    self._trap.arm()
                request = await self._request(number, act)
                try:
                    run = (await self._context.runs.start(request)).run
                except ShuttingDown:
                    return False
            if not await self._receive(number, run):
                return False
        return True

    async def _receive(self, number: int, run: Run) -> bool:
        """Whether it came to the run's end."""
        path = received_path(self._job.folder, number)
        after = len(path.read_bytes().splitlines()) if path.exists() else 0
        file = os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY), "wb", buffering=0)
        with closing(file), self._context.streams.opened() as scope:
            async with aclosing(self._context.runs.follow(run, after=after)) as pieces:
                async for piece in pieces:
                    file.write(b"".join(event.text + b"\n" for event in piece.events))
        return not scope.cancelled_caught

    async def _edit(self, number: int, act: Act) -> None:
        done = self._job.folder / f"edited-{number}"
        if not done.exists():
            edit = Edit(supersteps=[[Update(values=act.value)]])
            # the process may be to die after the end that the client has seen
            while self._context.runs.leases():  # noqa: ASYNC110 no event says that a run's task is over
                await asyncio.sleep(0)
            with self._trap.paused():  # the client does not know whether it took place, and would do it again
                await self._context.threads.update_state(OWNER, THREAD, edit)
            done.touch()

    async def _request(self, number: int, act: Act) -> RunRequest:
        options = dict(act.options)
        if "stream_mode" in options:
            options["stream_modes"] = tuple(options.pop("stream_mode"))
        return RunRequest(
            owner=OWNER,
            action=self._action(number, act),
            fingerprint=str(number),
            graph=self._job.script.graph,
            thread_id=THREAD,
            run_id=run_id_of(number),
            checkpoint_id=None if act.at is None else await self._checkpoint_id(act.at),
            on_disconnect="continue",
            **options,
        )

    def _action(self, number: int, act: Act) -> Action:
        match act.kind:
            case "input":
                return NewInput(value=act.value)
            case "continue":
                return Continue()
            case "resume":
                return Resume(value=act.value)
            case "answers":
                return Resume(value=self._answers(act, act.value))
            case _:
                resume = self._answers(act, act.value["answers"]) if "answers" in act.value else act.value.get("resume")
                return LongForm(
                    has_resume=resume is not None,
                    resume=resume,
                    update=act.value.get("update"),
                    goto=act.value.get("goto"),
                )

    def _answers(self, act: Act, by_question: Mapping[str, Any]) -> dict[str, Any]:
        """By the ids that the client was told."""
        told = [
            {question["value"]: question["id"] for question in frame["interrupts"]}
            for path in sorted(self._job.folder.glob("received-*"), reverse=act.at is not None)
            for frame in map(json.loads, path.read_bytes().splitlines())
            if frame["event"] == "interrupt"
        ]
        ids = {question: id for questions in told for question, id in questions.items()}
        return {ids[question]: answer for question, answer in by_question.items()}

    async def _checkpoint_id(self, nodes: str) -> str:
        engine = self._context.graphs
        assert isinstance(engine, GraphEngine)
        async with engine.graph_of(OWNER, self._job.script.graph) as graph:
            return await first_checkpoint_id(graph, nodes.split())


async def first_checkpoint_id(graph: Graph, nodes: Sequence[str]) -> str:
    """The oldest checkpoint of the thread at which these nodes were next."""
    history = [snapshot async for snapshot in graph.aget_state_history({"configurable": {"thread_id": THREAD}})]
    found = [snapshot for snapshot in history if sorted(snapshot.next) == sorted(nodes)]
    return str(found[-1].config["configurable"]["checkpoint_id"])


async def play(job: Job, registry: Registry) -> int:
    """The exit code."""
    trap = Trap(job.failpoint)
    if job.armed < 0:
        trap.arm()
    async with asyncio.timeout(PLAY_SECONDS), opened(job, registry, trap) as context:
        trap.on_stop = lambda: begin_drain(context)
        is_whole = await Player(job, context, trap).play()
        await context.runs.drain()
        (job.folder / "counts").write_text(json.dumps(trap.counts))
    return 0 if is_whole else STOPPED


def carry_out(job: Job, registry: Registry) -> None:
    """In the forked process, which ends here, whatever happens."""
    os.environ["FAULTS_TRACE"] = str(job.folder / "trace")
    os.environ["FAULTS_PROCESS"] = str(job.process)
    redirect(str(job.folder / f"log-{job.process}"))
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    code = FAILED
    try:
        code = asyncio.run(play(job, registry))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer(asked: Connection) -> None:
    """Answers each request with a number: an exit code, or the id of a process that serves."""
    registry = Registry.load(PROJECT)
    while True:
        try:
            request = asked.recv()
        except EOFError:
            return
        match request:
            case {"play": job}:
                asked.send(exit_code(forked(carry_out, job, registry)))
            case {"serve": serving}:
                asked.send(forked(serve, serving))
            case {"reap": process}:
                asked.send(exit_code(process))
            case other:
                raise ValueError(other)


def forked(action: Callable[..., None], *arguments: Any) -> int:
    process = os.fork()
    if process == 0:
        action(*arguments)
    return process


def exit_code(process: int) -> int:
    """Of a child, once it has ended; minus the signal's number when one ended it. 0 when it was asked for before."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    except ChildProcessError:
        return 0
