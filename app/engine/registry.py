"""Names to graphs: compiled ones, builders and factories, as `langgraph.json` registers them.

A graph that can't be loaded keeps none of the others from being served: it stays registered, and has a sentence under
`problems` with the file, the attribute and the exception's last line.
"""

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from langgraph.graph import START, StateGraph
from langgraph.pregel import Pregel

from app.engine.factory import Factory, argument, is_factory, make
from app.engine.loading import LoadFailed, add_dependencies, load_env, load_object, reason
from app.engine.manifest import Manifest, NodeNames, Registration, read_manifest
from app.errors import ConfigInvalid, GraphNotFound, GraphUnavailable

__all__ = ["AnyGraph", "NodeNames", "Registration", "Registry"]

AnyGraph = Pregel[Any, Any, Any, Any]

logger = logging.getLogger(__name__)

FACTORY_SECONDS: Final = 30.0


class Registry:
    """The graphs of one configuration. Build it with `Registry.load`."""

    def __init__(
        self,
        manifest: Manifest,
        targets: Mapping[str, AnyGraph | Factory],
        problems: Mapping[str, str],
        roots: Sequence[Path] = (),
    ) -> None:
        self._manifest = manifest
        self._targets = targets
        self._roots = roots
        self._problems = MappingProxyType(dict(problems))

    @classmethod
    def load(cls, config_path: Path) -> "Registry":
        """Reads the file, sets its `env`, makes its `dependencies` importable, and imports every graph.

        Runs the users' files, in this thread: where a loop is running, give it a thread, since a file may call
        `asyncio.run` itself. Calls no factory. Raises `ConfigInvalid`, but not for a graph that is broken.
        """
        manifest = read_manifest(config_path)
        folder = config_path.resolve().parent
        load_env(manifest.env, folder)
        roots = add_dependencies(manifest.dependencies, folder)
        targets: dict[str, AnyGraph | Factory] = {}
        problems = dict(manifest.problems)
        for name, registration in manifest.registrations.items():
            if name in problems:
                continue
            try:
                targets[name] = _target(registration, folder, roots)
            except LoadFailed as error:
                logger.error("Graph %r can't be served: %s", name, error, exc_info=error.__cause__)
                problems[name] = str(error)
        return cls(manifest, targets, _in_order(problems, manifest), roots)

    @property
    def names(self) -> tuple[str, ...]:
        """All that are registered, broken ones too, in the order of the file."""
        return tuple(self._manifest.registrations)

    @property
    def default(self) -> str | None:
        """What a request without a graph means: the file's `default_graph`, else its first; None when it has none."""
        return self._manifest.default

    @property
    def thread_ttl_seconds(self) -> float | None:
        """How long an unused thread is kept, where the file says it."""
        return self._manifest.thread_ttl_seconds

    @property
    def auth(self) -> str | None:
        """The source of LangGraph's `Auth` object, where the file names one."""
        return self._manifest.auth

    def load_other(self, source: str) -> object:
        """Something of the project's that is no graph. Runs the user's file. Raises `ConfigInvalid`."""
        try:
            return load_object(source, folder=self._manifest.path.resolve().parent, roots=self._roots)
        except LoadFailed as error:
            raise ConfigInvalid(str(error)) from error

    @property
    def problems(self) -> Mapping[str, str]:
        """For each graph that could not be loaded a sentence; what factories do is found by `check`."""
        return self._problems

    def registration(self, name: str) -> Registration:
        """Raises `GraphNotFound`."""
        try:
            return self._manifest.registrations[name]
        except KeyError:
            raise GraphNotFound(name, self.names) from None

    @asynccontextmanager
    async def open(self, name: str, config: Mapping[str, Any] | None = None) -> AsyncIterator[AnyGraph]:
        """A graph to use: the same object each time, or one that a factory makes now, with `config` if it takes it.

        What a factory holds open is closed on leaving, and told the exception that is raised in the block; it can't
        swallow that one, and what goes wrong while it closes is only logged, since the graph's work is done by then.
        Raises `GraphNotFound`, and `GraphUnavailable` when there is no graph to be had.
        """
        registration = self.registration(name)
        if name in self._problems:
            raise GraphUnavailable(name, self._problems[name])
        target = self._targets[name]
        if isinstance(target, Pregel):
            yield target
            return
        stack = AsyncExitStack()
        error: BaseException | None = None
        try:
            yield await _made(registration, target, config or {}, stack)
        except BaseException as raised:
            error = raised
            raise
        finally:
            await _close(name, stack, error)

    async def check(self) -> Mapping[str, str]:
        """Opens every graph once, one after the other, and returns all problems, those of loading included."""
        problems: dict[str, str] = {}
        for name in self.names:
            try:
                async with self.open(name):
                    pass
            except GraphUnavailable as error:
                problems[name] = str(error.fields["reason"])
        return problems


def _in_order(problems: Mapping[str, str], manifest: Manifest) -> dict[str, str]:
    return {name: problems[name] for name in manifest.registrations if name in problems}


def _target(registration: Registration, folder: Path, roots: tuple[Path, ...]) -> AnyGraph | Factory:
    found = load_object(registration.source, folder=folder, roots=roots)
    if isinstance(found, Pregel | StateGraph) or not is_factory(found):
        return _compiled(found, registration)
    assert callable(found)
    try:
        argument(found)
    except TypeError as error:
        raise LoadFailed(f"{registration.source}: {error}.") from error
    return found


async def _made(
    registration: Registration, factory: Factory, config: Mapping[str, Any], stack: AsyncExitStack
) -> AnyGraph:
    try:
        async with asyncio.timeout(FACTORY_SECONDS):
            made = await make(factory, config, stack)
        return _compiled(made, registration, "the factory made")
    except LoadFailed as error:
        logger.error("Graph %r can't be served: %s", registration.name, error, exc_info=error.__cause__)
        raise GraphUnavailable(registration.name, str(error)) from error
    except (Exception, SystemExit) as error:
        logger.exception("The factory of graph %r raised", registration.name)
        sentence = f"{registration.source}: the factory raised {reason(error)}"
        raise GraphUnavailable(registration.name, sentence) from error


async def _close(name: str, stack: AsyncExitStack, error: BaseException | None) -> None:
    try:
        await stack.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
    except Exception as raised:
        if raised is not error:
            logger.exception("The factory of graph %r could not close what it opened", name)


def _compiled(found: object, registration: Registration, subject: str = "it is") -> AnyGraph:
    graph = _compile(found, registration) if isinstance(found, StateGraph) else found
    if not isinstance(graph, Pregel):
        wanted = "a compiled graph, a StateGraph or a factory of one"
        raise LoadFailed(f"{registration.source}: {subject} {_kind(found)}, not {wanted}.")
    _check_hitl(graph, registration)
    return graph


def _compile(builder: StateGraph[Any, Any, Any, Any], registration: Registration) -> AnyGraph:
    """Compiles a copy: `compile` writes defaults into a builder's nodes, and fails on some builders the second time."""
    own = copy.copy(builder)
    own.nodes = {name: copy.copy(node) for name, node in builder.nodes.items()}
    try:
        return own.compile()
    except Exception as error:
        raise LoadFailed(f"{registration.source}: the StateGraph does not compile: {reason(error)}") from error


def _check_hitl(graph: AnyGraph, registration: Registration) -> None:
    """LangGraph ignores a breakpoint on a node it does not know: the pause that somebody relies on would not come."""
    known = [name for name in graph.nodes if name != START]
    chosen = (registration.interrupt_before, registration.interrupt_after)
    unknown = [name for names in chosen if names != "*" for name in names if name not in known]
    if unknown:
        nodes = ", ".join(known)
        raise LoadFailed(f"{registration.source}: hitl names {', '.join(unknown)}; the graph's nodes are {nodes}.")


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
