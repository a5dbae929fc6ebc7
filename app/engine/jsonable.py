"""Anything to strict JSON: what a graph's state holds, as text that every client can parse.

- Text, booleans, None: as they are. A lone surrogate, which UTF-8 can't say, becomes U+FFFD.
- Numbers: NaN and the infinities are null; an int outside -2**63 .. 2**64 - 1 is a string of its digits (above
  Python's limit of 4,300 of them in hexadecimal); numpy's are numbers, its arrays lists.
- Lists: tuples, named tuples, deques, views, other sequences. Sets too, sorted, or by their members' JSON text where
  those do not compare.
- Objects: dicts, other mappings, the fields of dataclasses and pydantic models (LangChain's messages among them) by the
  names that `model_dump` uses. Fields that a model excludes stay out, its own serializers are asked, and of a
  `SecretStr` there is only `**********`. LangGraph's `Interrupt` is `{value, id}` (and `response_schema` if it has
  one), `Send` is `{node, arg}`.
- Keys: as `json.dumps` writes them (`true`, `null`, `1.5`, `NaN`), others as their value is written where that is a
  string or a number, else `str()`. Of two that come out equal the last wins.
- Dates and times: ISO 8601; timedeltas: seconds. Bytes: base64. Enums: their value. Strings: decimals, fractions,
  complex numbers, UUIDs, paths, URLs, IP addresses, time zones; of a compiled pattern its pattern.
- Exceptions: `{"__type__": "builtins.ValueError", "repr": "ValueError"}`, since their text may hold a password.
- Everything else (classes, functions, locks, iterators, which are never consumed): `{"__type__": "module.Name",
  "repr": "..."}` with at most 500 characters; so is what can't be walked, its repr then being `<cycle>`, `<too deep>`
  (200 levels), `<too large>` (300,000 containers, each counted as often as it would be written) or `<unreadable>`
  (it raised).
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import re
import uuid
from collections import deque
from collections.abc import Callable, Mapping, MappingView, Sequence, Set
from functools import lru_cache
from itertools import islice
from types import NoneType
from typing import Any, Final

import orjson

__all__ = ["dumps", "escape_separators", "jsonable"]

_MAX_DEPTH: Final = 200  # orjson refuses 254: the difference is room for what is put round such a value
_MAX_PLAIN_CONTAINERS: Final = 100_000
_MAX_CONTAINERS: Final = 300_000
_MAX_REPR_CHARS: Final = 500

_SCALARS: Final = frozenset({NoneType, bool, int, float, str})
_CONTAINERS: Final = frozenset({dict, list, tuple})
# Classes by identity: the metaclass of a foreign one may make it unhashable, or equal to anything.
_SCALAR_IDS: Final = frozenset(map(id, _SCALARS))
_CONTAINER_IDS: Final = frozenset(map(id, _CONTAINERS))
_UNREADABLE: Final = b'{"__type__":"builtins.object","repr":"<unreadable>"}'


def dumps(value: object) -> bytes:
    """Strict JSON in UTF-8 of any Python value, on one line, by the rules above (wire contract, section 2).

    The text holds no NaN or Infinity, no newline, and no raw U+2028, U+2029 or U+0085, at which some SSE clients
    split lines. Nothing is raised, apart from what does not derive from `Exception`.
    """
    try:
        text = _plain_text(value)
        if text is None:
            text = _written(_Walk().tree(value))
    except Exception:  # the caller has used up the stack: whatever needs another call can't be done
        return _UNREADABLE
    return text if text.isascii() else escape_separators(text)


def jsonable(value: object) -> Any:
    """The same value in plain JSON types: what a client gets that parses `dumps(value)`. Raises as little."""
    return orjson.loads(dumps(value))


def escape_separators(text: bytes) -> bytes:
    """JSON text in UTF-8 with U+2028, U+2029 and U+0085 written as escapes; it parses to the same value."""
    text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text.replace(b"\xc2\x85", b"\\u0085")


def _plain_text(value: object) -> bytes | None:
    """The text of a value made of built-in JSON types alone; None where the careful walk is needed."""
    try:
        return orjson.dumps(value) if _is_plain(value) else None
    except Exception:  # odd keys, huge ints, lone surrogates; changed by another thread; classes that can't be hashed
        return None


def _is_plain(value: object) -> bool:
    """Whether everything in it is exactly a built-in JSON type.

    orjson is called on nothing else: it crashes the process (SIGSEGV) when Python code that it runs, a `default`
    function or an enum's `value`, changes a list or dict that it is in the middle of, or lets a thread do so; and it
    writes an `orjson.Fragment` unchecked.
    """
    if type(value) in _SCALARS:
        return True
    if type(value) not in _CONTAINERS:
        return False
    containers: list[Any] = [value]
    for container in containers:
        for member in container.values() if type(container) is dict else container:
            kind = type(member)
            if kind in _SCALARS:
                continue
            if kind not in _CONTAINERS:
                return False
            containers.append(member)
        if len(containers) > _MAX_PLAIN_CONTAINERS:  # a cycle, or the same few lists in each other again and again
            return False
    return True


def _written(tree: Any) -> bytes:
    try:
        return orjson.dumps(tree)
    except TypeError:
        return orjson.dumps(_encodable(tree))


def _encodable(tree: Any) -> Any:
    """A walked tree, without the text and the ints that orjson refuses."""
    kind = type(tree)
    if kind is str:
        return _text(tree)
    if kind is int:
        return _integer(tree)
    if kind is dict:
        return {_text(key): _encodable(member) for key, member in tree.items()}
    return [_encodable(member) for member in tree] if kind is list else tree


def _text(text: str) -> str:
    if text.isascii():
        return text
    # Through UTF-16, so that two halves of a character that were split find each other again.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _integer(number: int) -> int | str:
    if -(2**63) <= number < 2**64:
        return number
    try:
        return str(number)
    except ValueError:  # Python's guard against quadratic time; hexadecimal digits take linear time
        return hex(number)


class _Walk:
    """One pass over one value. Each container is copied, in one uninterruptible step, before it is looked into."""

    def __init__(self) -> None:
        self._inside: set[int] = set()  # ids of the objects between the root and here
        self._room = _MAX_CONTAINERS

    def tree(self, value: Any) -> Any:
        """The value in types that orjson writes without running any Python code."""
        kind: Any = type(value)
        if id(kind) in _SCALAR_IDS:
            return value
        mark = id(value)
        if mark in self._inside:
            return _form(kind, "<cycle>")
        if len(self._inside) >= _MAX_DEPTH:
            return _form(kind, "<too deep>")
        self._room -= 1
        if self._room < 0:
            return _form(kind, "<too large>")
        self._inside.add(mark)
        try:
            return self._members(value if id(kind) in _CONTAINER_IDS else _rule(kind)(value))
        except RecursionError:
            return _form(kind, "<too deep>")
        except Exception:  # code of the value's own, which may raise anything
            return _form(kind, "<unreadable>")
        finally:
            self._inside.discard(mark)

    def _members(self, simpler: Any) -> Any:
        kind = type(simpler)
        if kind is dict:
            shown = {}
            for key, member in simpler.copy().items():
                name = key if type(key) is str else _key(key)
                shown[name] = member if id(type(member)) in _SCALAR_IDS else self.tree(member)
            return shown
        if kind is list or kind is tuple:
            return [member if id(type(member)) in _SCALAR_IDS else self.tree(member) for member in list(simpler)]
        if kind is frozenset:
            return _sorted([self.tree(member) for member in simpler])
        return simpler if kind is orjson.Fragment else self.tree(simpler)


def _sorted(members: list[Any]) -> list[Any]:
    kinds = {*map(type, members)}
    if kinds <= {str} or (kinds <= {int, float} and all(member == member for member in members)):
        return sorted(members)
    return sorted(members, key=_written)


def _key(key: Any) -> str:
    try:
        return _key_text(key)
    except Exception:  # its own code raised
        return f"<{_name(type(key))}>"


def _key_text(key: Any) -> str:
    kind: Any = type(key)
    if issubclass(kind, BaseException):
        return _name(kind)
    simple = key if id(kind) in _SCALAR_IDS else _rule(kind)(key)
    if issubclass(kind, enum.Enum):
        return _key_text(simple)
    if type(simple) is int:
        return str(_integer(simple))
    if type(simple) is str:
        return simple
    return json.dumps(simple) if type(simple) in _SCALARS else _shortened(str(key))


def _name(kind: type) -> str:
    try:
        return f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # a metaclass can make even these raise
        return "builtins.object"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_REPR_CHARS else text[: _MAX_REPR_CHARS - 1] + "…"


def _form(kind: type, shown: str) -> dict[str, str]:
    return {"__type__": _name(kind), "repr": shown}


# The rules. Each takes a value one step nearer to JSON; the walk goes on with what it returns.


def _unknown(value: object) -> dict[str, str]:
    return _form(type(value), _shortened(repr(value)))


def _interrupt(value: Any) -> dict[str, object]:
    schema = getattr(value, "response_schema", None)
    shown = {"value": value.value, "id": value.id}
    return shown if schema is None else {**shown, "response_schema": schema}


def _record(value: Any) -> dict[str, object]:
    shown = {}
    known = getattr(type(value), "__pydantic_fields__", {})  # a pydantic dataclass can exclude fields
    for field in dataclasses.fields(value):
        if field.name in known and known[field.name].exclude:
            continue
        try:
            shown[field.name] = getattr(value, field.name)
        except Exception:  # never set, or a property that raises: the others are still shown
            continue
    return shown


def _model(value: Any) -> object:
    """A model's fields as they are stored: `model_dump` warns, raises, and cuts a subclass down to its field's type."""
    kind: Any = type(value)
    stored = object.__getattribute__(value, "__dict__")
    if getattr(kind, "__pydantic_root_model__", False):
        return stored["root"]
    if kind.__pydantic_decorators__.model_serializers:
        return value.model_dump(warnings=False)
    names, serialized = _fields(kind)
    # A serializer that opens a secret is meant for the author's own storage, not for those who look on.
    asked = {name for name in serialized if not _is_secret(type(stored.get(name)))}
    shown = {name: stored[name] for name in names if name in stored and name not in asked}
    if extra := getattr(value, "__pydantic_extra__", None):
        shown |= extra
    return shown | value.model_dump(include=asked, warnings=False) if asked else shown


@lru_cache(maxsize=1024)
def _fields(kind: Any) -> tuple[tuple[str, ...], frozenset[str]]:
    """The fields that are not excluded; and of them those whose author said how to show them (it may be to hide)."""
    declared = {name for each in kind.__pydantic_decorators__.field_serializers.values() for name in each.info.fields}
    shown = {name: field for name, field in kind.__pydantic_fields__.items() if not field.exclude}
    serialized = frozenset(
        name
        for name, field in shown.items()
        if declared & {name, "*"}
        or getattr(field, "exclude_if", None)
        or any(type(item).__name__ in {"PlainSerializer", "WrapSerializer"} for item in field.metadata)
    )
    return tuple(shown), serialized


def _numpy(value: Any) -> object:
    match value.dtype.kind:
        case "M":
            return value.astype("datetime64[us]").tolist()
        case "m":
            return value.astype("timedelta64[us]").tolist()
        case "c":
            return value.astype("complex128").tolist()
        case "b" | "i" | "u" | "f":
            return _numbers(value)
        case _:
            return value.tolist()


def _numbers(value: Any) -> object:
    try:
        text = orjson.dumps(value.copy(order="C") if value.shape else value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # foreign byte order, long double, masked, or without dimensions
        return (value.astype("float64") if value.dtype.kind == "f" else value).tolist()
    return orjson.Fragment(text) if value.shape else orjson.loads(text)


def _mapping(value: Mapping[Any, object]) -> object:
    return dict(islice(value.items(), size)) if (size := len(value)) <= _MAX_CONTAINERS else _unknown(value)


def _elements(value: Any) -> Any:
    # The length is believed: an iteration without end stops there.
    return [*islice(value, size)] if (size := len(value)) <= _MAX_CONTAINERS else _unknown(value)


def _of(*families: Any) -> Callable[[type], bool]:
    return lambda kind: issubclass(kind, families)


def _with(*names: str) -> Callable[[type], bool]:
    return lambda kind: all(any(name in vars(base) for base in kind.__mro__) for name in names)


def _named(module: str, *names: str) -> Callable[[type], bool]:
    return lambda kind: any(base.__module__ == module and base.__name__ in names for base in kind.__mro__)


_is_secret: Final = _with("get_secret_value")

# In this order: an exception may be a dataclass, an enum a str, numpy's float64 a float. Classes of other packages are
# told by their names, so that nothing is imported for them.
_RULES: Final[tuple[tuple[Callable[[type], bool], Callable[[Any], object]], ...]] = (
    (_of(type), _unknown),
    (_of(BaseException), lambda value: _form(type(value), type(value).__name__)),
    (_of(enum.Enum), lambda value: value.value),
    (_is_secret, lambda value: "**********"),
    (_named("langgraph.types", "Interrupt"), _interrupt),
    (_named("langgraph.types", "Send"), lambda value: {"node": value.node, "arg": value.arg}),
    (_with("__dataclass_fields__"), _record),
    (_with("__pydantic_fields__", "__pydantic_decorators__"), _model),
    (_of(str), str.__str__),
    (_of(int), int.__int__),
    (_of(float), float.__float__),
    (_of(datetime.date, datetime.time), lambda value: value.isoformat()),
    (_of(datetime.timedelta), datetime.timedelta.total_seconds),
    (_of(bytes, bytearray, memoryview), lambda value: base64.b64encode(memoryview(value).tobytes()).decode()),
    (_named("numpy", "ndarray", "generic"), _numpy),
    (_of(decimal.Decimal, fractions.Fraction, complex, uuid.UUID, pathlib.PurePath, datetime.tzinfo), str),
    (_of(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network), str),
    (_with("unicode_string"), str),  # pydantic's URLs
    (_of(re.Pattern), lambda value: value.pattern),
    (_of(dict), lambda value: dict(dict.items(value))),
    (_of(list), list.copy),
    (_of(tuple), lambda value: [*tuple.__iter__(value)]),
    (_of(set, frozenset), frozenset),
    (_of(Mapping), _mapping),
    (_of(Sequence, MappingView, deque), _elements),
    (_of(Set), lambda value: frozenset(_elements(value))),
)


@lru_cache(maxsize=1024)
def _rule(kind: Any) -> Callable[[Any], object]:
    return next((rule for fits, rule in _RULES if fits(kind)), _unknown)
