"""The command line: `runstream serve`, `runstream graphs`, `runstream backup`; `python -m app` is the same."""

import argparse
import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from app.api.protocol import PatientProtocol
from app.errors import ConfigInvalid
from app.log import set_up_logging
from app.settings import LogLevel, Settings

if TYPE_CHECKING:
    from app.api.context import Context

# streams are broken off at once when the process stops; a client that reads nothing would keep its connection open
CLOSE_SECONDS = 3
LEAVE_SECONDS = 1.0
RELOAD_GRACE_SECONDS = 0.3
YOUNG_OBJECTS = 10_000  # that are made before the youngest are looked at: a run makes some thousands

OWN_OPTIONS = frozenset({"command", "target", "reload"})  # those that are no settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 1 with a sentence on standard error."""
    options = parser().parse_args(arguments)
    given = {k: v for k, v in vars(options).items() if k not in OWN_OPTIONS and v is not None}
    return said_when_invalid(lambda: run(options, given))


def run(options: argparse.Namespace, given: Mapping[str, Any]) -> int:
    settings = Settings(**given)
    match options.command:
        case "serve":
            return reload(settings, given) if options.reload else serve(settings)
        case "backup":
            return backup(settings, options.target)
        case _:
            return graphs(settings)


def said_when_invalid(work: Callable[[], int]) -> int:
    """What `work` returns, or 1 with a sentence on standard error."""
    try:
        return work()
    except ValidationError as error:
        for found in error.errors():
            name = "_".join(str(part) for part in found["loc"]).upper()
            say(f"RUNSTREAM_{name}: {found['msg']}", sys.stderr)
    except ConfigInvalid as error:
        say(str(error), sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser(prog="runstream", description=__doc__)
    subcommands = commands.add_subparsers(dest="command", required=True)
    serving = subcommands.add_parser("serve", help="serve the graphs over HTTP")
    serving.add_argument("--config", type=Path, help="LangGraph's own file (langgraph.json)")
    serving.add_argument("--host", help="the address to listen on (127.0.0.1)")
    serving.add_argument("--port", type=int, help="the port to listen on (8000); 0 takes a free one")
    serving.add_argument("--data-dir", type=Path, dest="data_dir", help="where data is kept (./data)")
    serving.add_argument("--log-level", dest="log_level", choices=get_args(LogLevel), help="how much is logged")
    serving.add_argument("--reload", action="store_true", help="start anew when a file changes; for development")
    listing = subcommands.add_parser("graphs", help="list the graphs, and say what is wrong with them")
    listing.add_argument("--config", type=Path, help="LangGraph's own file (langgraph.json)")
    copying = subcommands.add_parser("backup", help="copy the data of a server, which may be running")
    copying.add_argument("--data-dir", type=Path, dest="data_dir", help="where data is kept (./data)")
    copying.add_argument("target", type=Path, help="a directory that is new or empty")
    return commands


def say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")
    (stream or sys.stdout).flush()


def serve(settings: Settings) -> int:
    return serve_on(listen(settings), settings)


def reload(settings: Settings, given: Mapping[str, Any]) -> int:
    """Serve, and start anew when a file of the project changes. `given` are the settings of the command line."""
    from app import main as imported_once  # noqa: F401
    from app.engine.manifest import read_manifest
    from app.reload import Filter, Reloader, inherited

    def serve_anew(listener: socket.socket) -> int:
        return said_when_invalid(lambda: serve_on(listener, hurried(Settings(**given))))

    folder = settings.config.resolve().parent
    env = Path(".env")
    watched = Filter([settings.config, env, folder / env], without=settings.data_dir)
    dependencies = [folder / name for name in read_manifest(settings.config).dependencies]
    directories = [folder, *(path for path in dependencies if path.is_dir())]
    listener = inherited() or listen(settings)
    return Reloader(serve_anew, listener, directories=directories, watch_filter=watched, say=say).run()


def hurried(settings: Settings) -> Settings:
    """Whoever has just saved a file does not want to wait for nodes that have time."""
    graces = {
        "shutdown_grace_seconds": min(settings.shutdown_grace_seconds, RELOAD_GRACE_SECONDS),
        "stop_seconds": min(settings.stop_seconds, RELOAD_GRACE_SECONDS),
    }
    return settings.model_copy(update=graces)


def serve_on(listener: socket.socket, settings: Settings) -> int:
    gc.disable()  # while everything is imported: see `spare_the_collector`
    from app.main import create_app

    app = create_app(settings, before_runs=spare_the_collector)
    set_up_logging(settings.log_level, settings.log_format)
    logging.getLogger("uvicorn.error").addFilter(is_no_break_off)
    config = uvicorn.Config(
        app,
        log_config=None,  # its lines are like ours
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        lifespan="off",  # the server opens it
        http=partial(  # type: ignore[arg-type]
            PatientProtocol,
            header_seconds=settings.header_timeout_seconds,
            on_refused=lambda code: app.state.context.refused(code),
        ),
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ws_max_size=2 * settings.max_body_bytes,  # up to there it is an error message, beyond it the end
    )
    server = Server(config, app)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        return 0
    return 0 if server.started else 1


def spare_the_collector() -> None:
    """Collect garbage from here on, and never look at what the start has made.

    A full collection of the half a million objects that the imports leave stops everything for a tenth of a second, and
    comes each few hundred runs (docs/performance.md). Before any run begins: what hangs on a run is garbage one day.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    gc.enable()


async def tasks_end() -> bool:
    """Cancel what is left in the loop. False when something does not end: asyncio would wait for it for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
    return all(task.done() for task in tasks)


def leave(code: int) -> None:
    """End the process here and now: everything is closed, and a node that goes on has lost its run."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def listen(settings: Settings) -> socket.socket:
    """A listening socket. Raises ConfigInvalid when the port is taken or the address is none of this machine's."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == 98:
            raise ConfigInvalid(f"Port {settings.port} is taken: choose another one with --port.") from error
        raise ConfigInvalid(f"Can't listen on {settings.host} port {settings.port}: {error.strerror}.") from error
    listener.set_inheritable(True)
    return listener


class Server(uvicorn.Server):
    """uvicorn's server, with a line that says where it listens, and streams that are told at once when it stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises ConfigInvalid: uvicorn's own way through the lifespan would log it as a crash, and exit with 3."""
        from app.main import has_stuck_nodes

        with self.capture_signals():
            async with self._app.router.lifespan_context(self._app):
                await self._serve(sockets)
            if not await tasks_end() or has_stuck_nodes():  # the loop waits for threads, too
                leave(0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            say(f"Runstream listens on http://{shown}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Runs come to an edge first: until then whoever asks is told 503, and what memory held can be read.

        uvicorn closes its listener and all connections before the lifespan ends.
        """
        if self._context is not None:
            await self._context.runs.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Streams stay open until the lifespan ends, and that waits for them: so they are broken off here.

        A second signal ends the process as a crash would: what runs is taken up by the next one.
        """
        from app.main import begin_drain

        if self.should_exit:
            os._exit(128 + sig)
        # uvicorn's own would raise the signal again at the end, and the exit code be the signal's instead of 0
        self.should_exit = True
        if self._context is not None:
            begin_drain(self._context)

    @property
    def _context(self) -> "Context | None":
        """None until it is open."""
        return getattr(self._app.state, "context", None)


def is_no_break_off(record: logging.LogRecord) -> bool:
    """A stream that is broken off on purpose is no error of the application."""
    return not record.getMessage().startswith("ASGI callable returned without completing response")


def backup(settings: Settings, target: Path) -> int:
    from app.storage.backup import back_up

    if settings.database_url:
        raise ConfigInvalid("A backup is made of a data directory, and RUNSTREAM_DATABASE_URL names none.")
    back_up(settings.data_dir, target)
    say(f"Copied {settings.data_dir} to {target}")
    return 0


def graphs(settings: Settings) -> int:
    from app.engine.registry import Registry

    registry = Registry.load(settings.config)
    problems = asyncio.run(registry.check())
    for name in registry.names:
        registration = registry.registration(name)
        state = f"broken: {problems[name]}" if name in problems else registration.description or ""
        say(f"{name}\t{registration.source}\t{state}".rstrip(), sys.stderr if name in problems else sys.stdout)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
