"""Servers that start as fast as a fork, from a process that has everything imported; see `RunningServer`."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

from app.cli import main

ROOT: Final = Path(__file__).parent.parent

# what a server imports when it starts and a graph does when it is loaded; the graphs themselves are loaded by each
PRELOADED: Final = (
    "tests.forked",
    "app.main",
    "langchain_openai",
    "langgraph.prebuilt",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


def forking() -> ForkServerContext:
    """Where processes come from that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def fork_server(arguments: Sequence[str], env: Mapping[str, str], output: Path) -> ForkServerProcess:
    """Start `runstream serve` with these arguments; what it prints goes to the file."""
    process = forking().Process(target=serve, args=(list(arguments), dict(env), str(output)), daemon=True)
    process.start()
    return process


def serve(arguments: Sequence[str], env: Mapping[str, str], output: str) -> None:
    """In the forked process."""
    redirect(output)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    sys.exit(main(["serve", *arguments]))


def redirect(path: str) -> None:
    """What this process prints goes to a file."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
