"""What `langgraph.json` says, checked: LangGraph's own file, so that an existing project serves as it is.

Keys that are not known here are left alone, at every level. What is wrong at the top (no JSON, `graphs` not an object)
is `ConfigInvalid`; what is wrong inside one graph's entry makes that graph broken and no other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from app.errors import ConfigInvalid

NodeNames = tuple[str, ...] | Literal["*"]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One entry of `graphs`. The `expose_*` and `hide_*` sets are what no client's filters widen."""

    name: str
    source: str  # "./graphs/chat.py:graph", as written; "" where the entry names none
    description: str | None = None
    interrupt_before: NodeNames = ()
    interrupt_after: NodeNames = ()
    has_hitl: bool = False  # `hitl` was given, be it empty
    expose_nodes: frozenset[str] | None = None  # None: all of them; empty: none
    expose_keys: frozenset[str] | None = None  # None: all of them; empty: none
    hide_tags: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole `langgraph.json`: `problems` has a sentence for each entry that can't be understood."""

    path: Path
    registrations: Mapping[str, Registration]  # in file order, the broken ones too
    problems: Mapping[str, str]
    default: str | None
    dependencies: tuple[str, ...] = ()
    auth: str | None = None  # the source of LangGraph's Auth object, as written
    thread_ttl_seconds: float | None = None  # LangGraph's `checkpointer.ttl`, which has minutes
    env: str | Mapping[str, str] = field(default_factory=dict)  # a file's name, or the variables themselves


def read_manifest(path: Path) -> Manifest:
    """Raises `ConfigInvalid` when the file is missing, unreadable, not JSON, or wrong outside a graph's entry."""
    document = _document(path)
    entries = _of_type(document, "graphs", dict, path.name)
    if entries is None:
        raise ConfigInvalid(f"{path.name} has no `graphs`, an object from names to graphs.")
    if "" in entries:
        raise ConfigInvalid(f"{path.name}: a name in `graphs` is empty.")
    registrations, problems = _registrations(entries)
    return Manifest(
        path=path,
        registrations=MappingProxyType(registrations),
        problems=MappingProxyType(problems),
        default=_default(document, tuple(registrations), path.name),
        dependencies=_strings(document, "dependencies", path.name) or (),
        auth=_of_type(_of_type(document, "auth", dict, path.name) or {}, "path", str, f"{path.name}: auth"),
        thread_ttl_seconds=_thread_ttl(document, path.name),
        env=_env(document, path.name),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a byte order mark
    except OSError as error:
        raise ConfigInvalid(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    except json.JSONDecodeError as error:
        raise ConfigInvalid(f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}.") from error
    except RecursionError as error:
        raise ConfigInvalid(f"{path} is nested too deeply.") from error
    if not isinstance(document, dict):
        raise ConfigInvalid(f"{path} must hold an object, not {_kind(document)}.")
    return document


def _registrations(entries: Mapping[str, Any]) -> tuple[dict[str, Registration], dict[str, str]]:
    registrations: dict[str, Registration] = {}
    problems: dict[str, str] = {}
    for name, entry in entries.items():
        try:
            registrations[name] = _registration(name, entry)
        except ConfigInvalid as error:
            source = entry.get("path") if isinstance(entry, dict) else None
            registrations[name] = Registration(name=name, source=source if isinstance(source, str) else "")
            problems[name] = str(error)
    return registrations, problems


def _registration(name: str, entry: Any) -> Registration:
    where = f"graphs.{name}"
    if isinstance(entry, str):
        return Registration(name=name, source=entry)
    if not isinstance(entry, dict):
        raise ConfigInvalid(f"{where} must be a string or an object, not {_kind(entry)}.")
    source = _of_type(entry, "path", str, where)
    if source is None:
        raise ConfigInvalid(f"{where} has no `path`.")
    hitl = _of_type(entry, "hitl", dict, where)
    return Registration(
        name=name,
        source=source,
        description=_of_type(entry, "description", str, where),
        interrupt_before=_node_names(hitl or {}, "interrupt_before", f"{where}.hitl"),
        interrupt_after=_node_names(hitl or {}, "interrupt_after", f"{where}.hitl"),
        has_hitl=hitl is not None,
        expose_nodes=_name_set(entry, "expose_nodes", where),
        expose_keys=_name_set(entry, "expose_keys", where),
        hide_tags=_name_set(entry, "hide_tags", where) or frozenset(),
    )


def _default(document: Mapping[str, Any], names: tuple[str, ...], where: str) -> str | None:
    name: str | None = _of_type(document, "default_graph", str, where)
    if name is None:
        return next(iter(names), None)
    if name not in names:
        known = ", ".join(names) or "none"
        raise ConfigInvalid(f"{where}: default_graph names {name!r}, which is not among the graphs ({known}).")
    return name


def _thread_ttl(document: Mapping[str, Any], where: str) -> float | None:
    """Of the strategy `delete`. The other one, `keep_latest`, deletes no thread, so it is left alone."""
    ttl = _of_type(_of_type(document, "checkpointer", dict, where) or {}, "ttl", dict, f"{where}: checkpointer") or {}
    minutes = ttl.get("default_ttl")
    if minutes is None or ttl.get("strategy", "delete") != "delete":
        return None
    if not isinstance(minutes, int | float) or isinstance(minutes, bool) or minutes <= 0:
        raise ConfigInvalid(f"{where}: checkpointer.ttl.default_ttl must be a number of minutes above 0.")
    return minutes * 60.0


def _env(document: Mapping[str, Any], where: str) -> str | Mapping[str, str]:
    match document.get("env"):
        case None:
            return {}
        case str(file):
            return file
        case dict(variables):
            for name, value in variables.items():
                if not isinstance(value, str):
                    raise ConfigInvalid(f"{where}: env.{name} must be a string, not {_kind(value)}.")
            return variables
        case other:
            raise ConfigInvalid(f"{where}: env must be a file's name or an object, not {_kind(other)}.")


def _node_names(owner: Mapping[str, Any], key: str, where: str) -> NodeNames:
    if owner.get(key) == "*":
        return "*"
    return _strings(owner, key, where, otherwise='"*" or a list of strings') or ()


def _name_set(owner: Mapping[str, Any], key: str, where: str) -> frozenset[str] | None:
    names = _strings(owner, key, where)
    return None if names is None else frozenset(names)


def _strings(
    owner: Mapping[str, Any], key: str, where: str, *, otherwise: str = "a list of strings"
) -> tuple[str, ...] | None:
    match owner.get(key):
        case None:
            return None
        case list(values):
            for value in values:
                if not isinstance(value, str):
                    raise ConfigInvalid(f"{where}.{key} must be {otherwise}, and {_kind(value)} is in it.")
            return tuple(values)
        case other:
            raise ConfigInvalid(f"{where}.{key} must be {otherwise}, not {_kind(other)}.")


def _of_type(owner: Mapping[str, Any], key: str, expected: type[str] | type[dict[str, Any]], where: str) -> Any:
    value = owner.get(key)
    if value is None or isinstance(value, expected):
        return value
    raise ConfigInvalid(f"{where}.{key} must be {'a string' if expected is str else 'an object'}, not {_kind(value)}.")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
