"""What a graph is, from its own types: the answer to `GET /graphs/{name}`, and the input that a plain message fits."""

import dataclasses
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Required, TypeVar, get_args, get_origin, is_typeddict

import typing_extensions
from langchain_core.runnables.graph import Edge
from langgraph.channels.base import BaseChannel
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from pydantic import BaseModel, TypeAdapter

from app.engine.manifest import Registration

AnyGraph = Pregel[Any, Any, Any, Any]
Made = TypeVar("Made")

logger = logging.getLogger(__name__)


def describe(graph: AnyGraph, registration: Registration) -> dict[str, Any]:
    """`{name, description, input_schema, output_schema, context_schema, nodes, edges, mermaid}`.

    `nodes` are names, without the start and the end; `edges` are `{source, target, conditional}`, with `data` where an
    edge has a label; `mermaid` is text. A schema that can't be made, or a drawing, is None; it never raises for those.
    """
    drawing = _attempt(graph.get_graph)
    return {
        "name": registration.name,
        "description": registration.description or _docstring(graph),
        "input_schema": _schema(graph.get_input_jsonschema, _declared(graph, "input_schema")),
        "output_schema": _schema(graph.get_output_jsonschema, _declared(graph, "output_schema")),
        "context_schema": _schema(graph.get_context_jsonschema, graph.context_schema),
        "nodes": [name for name in graph.nodes if name != START],
        "edges": [] if drawing is None else [_edge(edge) for edge in drawing.edges],
        "mermaid": None if drawing is None else _attempt(drawing.draw_mermaid),
    }


def has_messages_key(graph: AnyGraph) -> bool:
    """Whether a message can be added to the graph's state under `messages`."""
    return isinstance(graph.channels.get("messages"), BaseChannel)


def input_shape(graph: AnyGraph) -> str | None:
    """The key of the graph's input that a plain text goes to (section 1 of the protocol, `message`).

    `"messages"` where the input has that key; otherwise its only required string field, if it has exactly one, whatever
    its other fields are; otherwise None. Asks the types alone, so no JSON schema has to be possible.
    """
    if "messages" in _input_channels(graph):  # looking types up would be a third of what a plan costs
        return "messages"
    fields = _input_fields(graph)
    if "messages" in fields:
        return "messages"
    texts = [name for name, (type_, is_required) in fields.items() if is_required and _is_text(type_)]
    return texts[0] if len(texts) == 1 else None


def _input_channels(graph: AnyGraph) -> Sequence[str]:
    """The input's keys that LangGraph takes, of a graph with a state, or of one that names its channels.

    They are what became a channel: of a plain class its annotations, and not what is managed by itself.
    """
    if not isinstance(graph.input_channels, str):
        return graph.input_channels
    schema = _declared(graph, "input_schema")
    if not isinstance(graph, CompiledStateGraph) or not isinstance(schema, type):
        return ()
    names = graph.builder.schemas.get(schema, ())
    return [name for name in names if name in graph.builder.channels and name != "__root__"]


def _input_fields(graph: AnyGraph) -> Mapping[str, tuple[Any, bool]]:
    """The input's keys, each with its type and whether it is required."""
    if not isinstance(graph.input_channels, str):
        return {name: (_update_type(graph, name), True) for name in graph.input_channels}
    schema = _declared(graph, "input_schema") or _attempt(lambda: _argument_type(graph)) or graph.InputType
    if not isinstance(schema, type):
        return {}
    fields = _attempt(lambda: _fields(schema)) or {}
    if not isinstance(graph, CompiledStateGraph):
        return fields
    return {name: fields.get(name, (_update_type(graph, name), True)) for name in _input_channels(graph)}


def _fields(schema: type) -> Mapping[str, tuple[Any, bool]]:
    if issubclass(schema, BaseModel):
        return {name: (field.annotation, field.is_required()) for name, field in schema.model_fields.items()}
    if dataclasses.is_dataclass(schema):
        hints = typing.get_type_hints(schema)
        return {field.name: (hints[field.name], _is_required(field)) for field in dataclasses.fields(schema)}
    hints = typing_extensions.get_type_hints(schema, include_extras=True)
    if not is_typeddict(schema) and not typing_extensions.is_typeddict(schema):
        return {name: (hint, not hasattr(schema, name)) for name, hint in hints.items()}
    required: frozenset[str] = getattr(schema, "__required_keys__", frozenset())
    return {name: (hint, _is_key_required(hint, name in required)) for name, hint in hints.items()}


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_key_required(hint: Any, declared: bool) -> bool:
    """Under `from __future__ import annotations` a class does not see its own `NotRequired`; the resolved hint does."""
    if get_origin(hint) is Annotated:
        return _is_key_required(get_args(hint)[0], declared)
    if get_origin(hint) in (Required, NotRequired):
        return get_origin(hint) is Required
    return declared


def _is_text(hint: Any) -> bool:
    if get_origin(hint) in (Annotated, Required, NotRequired, typing_extensions.ReadOnly):
        return _is_text(get_args(hint)[0])
    if isinstance(hint, typing.NewType):
        return _is_text(hint.__supertype__)
    return hint is str


def _update_type(graph: AnyGraph, name: str) -> Any:
    channel = graph.channels.get(name)
    return channel.UpdateType if isinstance(channel, BaseChannel) else None


def _declared(graph: AnyGraph, attribute: str) -> Any:
    return getattr(graph.builder, attribute) if isinstance(graph, CompiledStateGraph) else None


def _schema(make: Callable[[], dict[str, Any] | None], declared: Any) -> dict[str, Any] | None:
    schema = _attempt(make)
    if schema is not None or not is_typeddict(declared):
        return schema
    return _attempt(lambda: TypeAdapter(_portable(declared)).json_schema())


def _portable(declared: type) -> Any:
    """The same keys as a `TypedDict` that pydantic takes below Python 3.12, where it refuses the one from `typing`."""
    keys = {
        name: type_ if is_required else NotRequired[type_]
        for name, (hint, is_required) in _fields(declared).items()
        for type_ in [_without_requirement(hint)]
    }
    return typing_extensions.TypedDict(declared.__name__, keys)  # type: ignore[operator]


def _without_requirement(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _docstring(graph: AnyGraph) -> str | None:
    """What was written on the object itself, or on the function that is the whole graph (`@entrypoint`)."""
    own = vars(graph).get("__doc__")
    if isinstance(own, str):
        return inspect.cleandoc(own)
    function = _entrypoint(graph)
    return None if function is None else inspect.getdoc(function)


def _argument_type(graph: AnyGraph) -> Any:
    """Of an `@entrypoint`. LangGraph leaves it unresolved: text, under `from __future__ import annotations`."""
    function = _entrypoint(graph)
    if function is None:
        return None
    first = next(iter(inspect.signature(function).parameters))
    return typing.get_type_hints(function).get(first)


def _entrypoint(graph: AnyGraph) -> Callable[..., Any] | None:
    if isinstance(graph, CompiledStateGraph) or len(graph.nodes) != 1:
        return None
    bound = next(iter(graph.nodes.values())).bound
    function = getattr(bound, "func", None) or getattr(bound, "afunc", None)
    return function if inspect.isfunction(function) else None


def _edge(edge: Edge) -> dict[str, Any]:
    described: dict[str, Any] = {"source": edge.source, "target": edge.target, "conditional": edge.conditional}
    if edge.data is not None:
        described["data"] = str(edge.data)
    return described


def _attempt(make: Callable[[], Made]) -> Made | None:
    """None where a user's types, or a library, say no: what they describe runs all the same."""
    try:
        return make()
    except Exception:
        logger.debug("A part of a graph's description can't be made", exc_info=True)
        return None
