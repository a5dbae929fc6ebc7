"""The command line: `runstream serve` and `runstream graphs`; `python -m app` is the same."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from app.errors import ConfigInvalid
from app.settings import LogLevel, Settings

if TYPE_CHECKING:
    from app.api.context import Context

# streams are broken off at once when the process stops; a client that reads nothing would keep its connection open
CLOSE_SECONDS = 3
LEAVE_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 1 with a sentence on standard error."""
    options = parser().parse_args(arguments)
    given = {k: v for k, v in vars(options).items() if k != "command" and v is not None}
    try:
        settings = Settings(**given)
        return serve(settings) if options.command == "serve" else graphs(settings)
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
    listing = subcommands.add_parser("graphs", help="list the graphs, and say what is wrong with them")
    listing.add_argument("--config", type=Path, help="LangGraph's own file (langgraph.json)")
    return commands


def say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")
    (stream or sys.stdout).flush()


def serve(settings: Settings) -> int:
    from app.main import create_app

    listener = listen(settings)
    app = create_app(settings)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(is_no_break_off)
    config = uvicorn.Config(
        app,
        log_level=settings.log_level,
        access_log=False,
        lifespan="off",  # the server opens it
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ws_max_size=2 * settings.max_body_bytes,  # up to there it is an error message, beyond it the end
    )
    server = Server(config, app)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        return 0
    return 0 if server.started else 1


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
        """Connections close before the lifespan ends; what memory held is gone then, and its readers are to hear it."""
        context = self._context
        if context is not None and not context.runs.is_durable:
            await context.runs.drain()
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
