"""Whatever a state holds goes out as strict JSON: the rules one by one, then values that want to break it."""

from __future__ import annotations

import asyncio
import base64
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import json
import pathlib
import re
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.types import Command, Interrupt, Send
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from app.engine.jsonable import dumps, escape_separators, jsonable

SEPARATORS = ("\u2028", "\u2029", "\u0085")


def strict(text: bytes) -> Any:
    """What a strict client reads; raises on everything that only lenient ones take."""

    def refused(name: str) -> NoReturn:
        raise AssertionError(f"{name} is not JSON")

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
        return dict(pairs)

    assert len(text.decode("utf-8").splitlines()) == 1
    return json.loads(text, parse_constant=refused, object_pairs_hook=distinct)


def shown(value: object) -> Any:
    """The value as a strict client reads it, after the promises that hold for every value have been checked."""
    text = dumps(value)
    read = strict(text)
    assert read == jsonable(value)
    assert dumps(read) == text
    return read


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, "two")
    WHEN = dt.date(2026, 11, 21)


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Bits(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int


class Word(str):
    pass


class Count(int):
    pass


class Ratio(float):
    pass


class Bag(dict[str, int]):
    pass


class Row(list[int]):
    pass


@dataclasses.dataclass
class Plan:
    title: str
    _hidden_count: int = 0
    steps: list[object] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    value: object


class Profile(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    born: dt.date | None = None
    password: SecretStr = SecretStr("hunter2")
    internal: str = Field(default="hunter2", exclude=True)
    parent: Profile | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def broken(self) -> str:
        raise RuntimeError("hunter2")


class Tags(RootModel[list[str]]):
    pass


UTC = dt.UTC
BERLIN = dt.timezone(dt.timedelta(hours=1))
ONE = uuid.UUID(int=1)
ONE_TEXT = "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("text", "text"),
        (-0.5, -0.5),
        (float("nan"), None),
        ([float("inf"), -float("inf")], [None, None]),
        ({"a": {1, float("nan")}}, {"a": [1, None]}),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        ([-(2**63), 2**64 - 1, 2**64], [-(2**63), 2**64 - 1, "18446744073709551616"]),
        (1 << 20_000, hex(1 << 20_000)),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("cab"), ["a", "b", "c"]),
        ({10, 9.5, 2}, [2, 9.5, 10]),
        ({"b", 1, None}, ["b", 1, None]),
        ({frozenset({2, 1}), frozenset({0})}, [[0], [1, 2]]),
        ({Colour.RED, Mode.FAST}, ["fast", "red"]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.UserList([1]), [1]),
        (range(3), [0, 1, 2]),
        ({"a": [1]}.keys(), ["a"]),
        ({"a": [1]}.values(), [[1]]),
        ({"a": [1]}.items(), [["a", [1]]]),
        (collections.UserDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": (1,)}), {"a": [1]}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (Word("w"), "w"),
        (Count(3), 3),
        (Count(2**70), str(2**70)),
        (Ratio(1.5), 1.5),
        (Ratio("nan"), None),
        (Bag(a=1), {"a": 1}),
        (Row([1]), [1]),
        (b"\x00\xff", "AP8="),
        (bytearray(b"abc"), "YWJj"),
        (memoryview(b"a-b-c-")[::2], "YWJj"),
        (dt.datetime(2026, 11, 21, 13, 5, 6, 7), "2026-11-21T13:05:06.000007"),
        (dt.datetime(2026, 11, 21, tzinfo=UTC), "2026-11-21T00:00:00+00:00"),
        (dt.datetime(2026, 11, 21, tzinfo=BERLIN), "2026-11-21T00:00:00+01:00"),
        (dt.date(2026, 11, 21), "2026-11-21"),
        (dt.time(1, 2, 3), "01:02:03"),
        (dt.time(1, 2, 3, tzinfo=UTC), "01:02:03+00:00"),
        (dt.timedelta(minutes=1, milliseconds=500), 60.5),
        (UTC, "UTC"),
        (zoneinfo.ZoneInfo("UTC"), "UTC"),
        (Colour.RED, "red"),
        (Colour.PAIR, [1, "two"]),
        (Colour.WHEN, "2026-11-21"),
        (Level.LOW, 1),
        (Mode.FAST, "fast"),
        (Bits.A | Bits.B, 3),
        (ONE, ONE_TEXT),
        (decimal.Decimal("1.10"), "1.10"),
        (decimal.Decimal("NaN"), "NaN"),
        (fractions.Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (ipaddress.ip_address("::1"), "::1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (AnyUrl("https://example.com/a"), "https://example.com/a"),
        (re.compile(r"a\d"), r"a\d"),
        ("a\u2028b\u2029c\u0085d\r\n", "a\u2028b\u2029c\u0085d\r\n"),
        ("“quotes” — ü 😀", "“quotes” — ü 😀"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_value_has_its_json_form(value: object, expected: object) -> None:
    assert shown(value) == expected
    assert type(shown(value)) is type(expected)
    assert shown({"in": [value, Plan("walked")]})["in"][0] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: 1, None: 2}, {"1": 1, "null": 2}),
        ({True: 1, 1.5: 2, False: 3}, {"true": 1, "1.5": 2, "false": 3}),
        ({float("nan"): 1, float("inf"): 2, -float("inf"): 3}, {"NaN": 1, "Infinity": 2, "-Infinity": 3}),
        ({(1, 2): 1}, {"(1, 2)": 1}),
        ({Colour.RED: 1, Level.LOW: 2, Mode.FAST: 3, Colour.PAIR: 4}, {"red": 1, "1": 2, "fast": 3, "(1, 'two')": 4}),
        ({ONE: 1, dt.date(2026, 11, 21): 2, Colour.WHEN: 3}, {ONE_TEXT: 1, "2026-11-21": 3}),
        ({dt.timedelta(seconds=2): 1, decimal.Decimal("1.0"): 2, b"\xff": 3}, {"2.0": 1, "1.0": 2, "/w==": 3}),
        ({np.int64(3): 1, np.float64(0.5): 2, np.bool_(True): 3}, {"3": 1, "0.5": 2, "true": 3}),
        ({Word("a"): 1, Count(2): 2, pathlib.PurePosixPath("x"): 3}, {"a": 1, "2": 2, "x": 3}),
        ({1: "int", "1": "str"}, {"1": "str"}),
        ({"1": "str", 1: "int"}, {"1": "int"}),
        ({"a\ud800": 1, "\u2028": 2}, {"a\ufffd": 1, "\u2028": 2}),
        ({2**70: 1, 1 << 20_000: 2}, {str(2**70): 1, hex(1 << 20_000): 2}),
        ({ValueError("hunter2"): 1, int: 2}, {"builtins.ValueError": 1, "<class 'int'>": 2}),
    ],
)
def test_keys_that_are_not_text_become_text_and_of_equal_ones_the_last_wins(
    value: dict[Any, int], expected: dict[str, int]
) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), 0.1),
        (np.float32("nan"), None),
        (np.longdouble(1.5), 1.5),
        (np.bool_(True), True),
        (np.complex64(1j), "1j"),
        (np.clongdouble(1j), "1j"),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), "YQ=="),
        (np.datetime64("2026-11-21"), "2026-11-21T00:00:00"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.array([1.0, float("nan"), float("inf")]), [1.0, None, None]),
        (np.array([0.1], dtype=np.float32), [0.1]),
        (np.arange(4).reshape(2, 2).T, [[0, 2], [1, 3]]),
        (np.array([0.1, 0.2, 0.3], dtype=np.float32)[::2], [0.1, 0.3]),
        (np.array(7.5), 7.5),
        (np.zeros((2, 0)), [[], []]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array([1.5], dtype=">f8"), [1.5]),
        (np.array([1.5], dtype=np.longdouble), [1.5]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, None]),
        (np.array([1j]), ["1j"]),
        (np.array(["a"]), ["a"]),
        (np.array([{1}, None], dtype=object), [[1], None]),
        (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
        (np.array(["2026-11-21T00:00:00.5", "NaT"], dtype="M8[ns]"), ["2026-11-21T00:00:00.500000", None]),
        (np.array([1, "NaT"], dtype="m8[s]"), [1.0, None]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_numpy_values_become_numbers_and_lists(value: object, expected: object) -> None:
    assert shown(value) == expected
    assert shown({"a": [value]}) == {"a": [expected]}


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage("hi", id="h1", name="ann"),
        SystemMessage([{"type": "text", "text": "be kind"}]),
        ToolMessage("42", tool_call_id="c1", artifact={"rows": (1, 2)}),
        RemoveMessage(id="h1"),
        AIMessage(
            "hello",
            id="a1",
            tool_calls=[{"name": "add", "args": {"x": 1}, "id": "c1"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        AIMessageChunk(
            content="he", id="a1", tool_call_chunks=[{"name": "add", "args": '{"x', "id": "c1", "index": 0}]
        ),
        HumanMessage("hi", colour="blue"),
        Document("page", metadata={"source": "s"}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_langchain_message_is_its_model_dump(message: BaseModel) -> None:
    assert shown(message) == json.loads(json.dumps(message.model_dump()))
    assert shown({"messages": [message]})["messages"] == [shown(message)]


def test_an_ai_message_reads_as_langgraphs_own_api_sends_it() -> None:
    assert shown(AIMessage("hello", id="a1")) == {
        "content": "hello",
        "type": "ai",
        "id": "a1",
        "name": None,
        "additional_kwargs": {},
        "response_metadata": {},
        "tool_calls": [],
        "invalid_tool_calls": [],
        "usage_metadata": None,
    }


def test_a_model_shows_its_fields_and_extras_but_neither_secrets_nor_excluded_fields_nor_properties() -> None:
    profile = Profile(name="ann", born=dt.date(2000, 1, 2), parent=Profile(name="bea"), nick=("a", "b"))
    assert shown(profile) == {
        "name": "ann",
        "born": "2000-01-02",
        "password": "**********",
        "parent": {"name": "bea", "born": None, "password": "**********", "parent": None},
        "nick": ["a", "b"],
    }
    assert b"hunter2" not in dumps([profile, {profile.password.get_secret_value: profile.password}])


def test_a_model_with_values_of_other_types_than_declared_is_shown_as_it_is_without_a_warning() -> None:
    odd: dict[str, Any] = {"name": Point(1, 2), "born": "never", "password": b"x"}
    assert shown(Profile.model_construct(**odd)) == {
        "name": [1, 2],
        "born": "never",
        "password": "eA==",
        "parent": None,
    }


def test_a_model_in_a_field_of_its_base_class_keeps_its_own_fields() -> None:
    class Chat(BaseModel):
        messages: list[BaseMessage]

    chat = Chat(messages=[AIMessage("x", tool_calls=[{"name": "add", "args": {}, "id": "c1"}])])
    assert shown(chat)["messages"][0]["tool_calls"][0]["name"] == "add"


def test_a_root_model_is_its_root() -> None:
    assert shown(Tags(["a", "b"])) == ["a", "b"]


def test_a_field_is_shown_as_its_own_serializer_says() -> None:
    class Account(BaseModel):
        number: str
        code: Annotated[str, PlainSerializer(lambda code: code[0] + "...")]
        balance: object = None

        @field_serializer("number")
        def masked(self, number: str) -> str:
            return "*" * len(number)

    account = Account(number="1234", code="abc", balance={1, 2})
    assert shown(account) == {"number": "****", "code": "a...", "balance": [1, 2]}


def test_a_model_is_shown_as_its_own_serializer_says_and_without_fields_when_that_raises() -> None:
    class Short(BaseModel):
        secret: str

        @model_serializer
        def short(self) -> dict[str, int]:
            return {"length": len(self.secret)}

    class Broken(Short):
        @model_serializer
        def short(self) -> dict[str, int]:
            raise ValueError(self.secret)

    assert shown(Short(secret="hunter2")) == {"length": 7}
    assert shown([Broken(secret="hunter2")])[0]["repr"] == "<unreadable>"


def test_a_serializer_that_opens_a_secret_is_not_asked() -> None:
    class Login(BaseModel):
        user: str
        password: SecretStr

        @field_serializer("password", "user")
        def opened(self, value: SecretStr | str) -> str:
            return value.get_secret_value() if isinstance(value, SecretStr) else value.upper()

    assert shown(Login(user="ann", password=SecretStr("hunter2"))) == {"user": "ANN", "password": "**********"}


def test_a_dataclass_shows_all_its_fields_private_and_slotted_ones_too() -> None:
    assert shown(Plan("essay", 3, [Slotted((1,))])) == {"title": "essay", "_hidden_count": 3, "steps": [{"value": [1]}]}


def test_a_dataclass_leaves_out_what_can_not_be_read_and_what_is_excluded() -> None:
    @pydantic_dataclass
    class Account:
        name: str
        code: str = Field(default="hunter2", exclude=True)

    @dataclasses.dataclass(init=False)
    class Half:
        here: int
        never_set: int

        def __init__(self) -> None:
            self.here = 1

    assert shown([Account("ann"), Half()]) == [{"name": "ann"}, {"here": 1}]


def test_langgraphs_own_values_have_their_short_forms() -> None:
    assert shown(Interrupt(value={"ask": {1}}, id="a" * 32)) == {"value": {"ask": [1]}, "id": "a" * 32}
    with_schema = Interrupt(value=1, id="b", response_schema={"type": "string"})
    assert shown(with_schema) == {"value": 1, "id": "b", "response_schema": {"type": "string"}}
    assert shown(Send("worker", HumanMessage("hi")))["arg"]["content"] == "hi"
    assert shown(Send("worker", 1)) == {"node": "worker", "arg": 1}
    command: Command[str] = Command(update={"a": (1,)}, goto=[Send("worker", 1), "end"])
    assert shown(command) == {
        "graph": None,
        "update": {"a": [1]},
        "resume": None,
        "goto": [{"node": "worker", "arg": 1}, "end"],
    }


@dataclasses.dataclass(eq=False)
class Refused(Exception):
    password: str


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("hunter2"),
        KeyError("hunter2"),
        Refused("hunter2"),
        ExceptionGroup("hunter2", [ValueError("hunter2")]),
        UserWarning("hunter2"),
        raised(RuntimeError("hunter2")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_shows_its_class_and_never_its_text(error: Exception) -> None:
    form = shown({"error": [error], error: 1})
    name = type(error).__name__
    assert form["error"] == [{"__type__": f"{type(error).__module__}.{name}", "repr": name}]
    assert b"hunter2" not in dumps({"error": [error], error: 1})


def test_an_exception_beyond_the_depth_that_is_walked_does_not_show_its_text_either() -> None:
    assert b"hunter2" not in dumps(functools.reduce(lambda inner, _: [inner], range(250), ValueError("hunter2")))  # type: ignore[arg-type,return-value]


class Opaque:
    def __repr__(self) -> str:
        return "o" * 10_000


def test_an_object_nobody_knows_shows_its_class_and_a_shortened_repr() -> None:
    form = shown([Opaque()])[0]
    assert form == {"__type__": f"{__name__}.Opaque", "repr": "o" * 499 + "…"}
    assert shown(Plan) == {"__type__": "builtins.type", "repr": f"<class '{__name__}.Plan'>"}
    assert shown(Profile)["repr"] == f"<class '{__name__}.Profile'>"
    assert shown(len) == {"__type__": "builtins.builtin_function_or_method", "repr": "<built-in function len>"}


def test_iterators_are_not_consumed() -> None:
    numbers, letters = iter([1, 2]), (letter for letter in "ab")
    assert shown({"a": numbers, "b": letters})["b"]["__type__"] == "builtins.generator"
    assert [*numbers, *letters] == [1, 2, "a", "b"]


def test_a_cycle_ends_in_a_marker_and_a_shared_value_is_not_a_cycle() -> None:
    ring: dict[str, Any] = {"name": "ring"}
    ring["again"] = [ring]
    marker = {"__type__": "builtins.dict", "repr": "<cycle>"}
    assert shown(ring) == {"name": "ring", "again": [marker]}
    plan = Plan("essay")
    plan.steps += [1, plan, {"plan": plan}]
    assert shown(plan)["steps"][1]["repr"] == shown(plan)["steps"][2]["plan"]["repr"] == "<cycle>"
    shared = [1]
    assert shown({"a": shared, "b": {2}, "c": shared}) == {"a": [1], "b": [2], "c": [1]}


def levels(read: Any) -> int:
    depth = 0
    while isinstance(read, list):
        read, depth = read[0], depth + 1
    assert read["repr"] == "<too deep>"
    return depth


@pytest.mark.parametrize("depth", [300, 100_000])
def test_what_lies_too_deep_ends_in_a_marker(depth: int) -> None:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    assert levels(shown(deep)) == 200
    models = Profile(name="last")
    for _ in range(300):
        models = Profile.model_construct(name="up", parent=models)
    assert b"<too deep>" in dumps(models)


def test_a_frame_round_an_already_shortened_value_keeps_all_of_it() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert shown({"event": "node", "data": {"update": jsonable(deep)}})["data"]["update"] == jsonable(deep)


def test_little_stack_left_shortens_the_value_and_raises_nothing() -> None:
    deep: list[Any] = [{1}]
    for _ in range(50):
        deep = [deep]

    def down(results: list[bytes]) -> None:
        try:
            down(results)
        except RecursionError:
            return
        if len(results) < 300:
            results.append(dumps(deep))

    results: list[bytes] = []
    down(results)
    read = [strict(text) for text in results]
    assert len(read) > 200
    assert read[-1] == jsonable(deep)
    assert any(b"<too deep>" in text for text in results)
    assert not any(b"<unreadable>" in text for text in results[50:])


def test_a_value_that_would_be_endless_when_written_out_is_cut() -> None:
    doubled: list[Any] = []
    for _ in range(60):
        doubled = [doubled, doubled]
    assert b"<too large>" in dumps(doubled)


class RaisingRepr:
    def __repr__(self) -> str:
        raise RuntimeError("hunter2")


class OddRepr:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class EndlessRepr:
    def __repr__(self) -> str:
        return repr(self)


class RaisingClass:
    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("hunter2")


class RaisingAttributes:
    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError("hunter2")


class RaisingMeta(type):
    @property
    def __module__(cls) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("hunter2")


class RaisingName(metaclass=RaisingMeta):
    pass


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]


class OfUnhashable(metaclass=Unhashable):
    pass


class RaisingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> NoReturn:
        raise RuntimeError("hunter2")

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


class EndlessSequence(Sequence[Any]):
    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return 3


class Nesting(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return Nesting()

    def __iter__(self) -> Iterator[str]:
        return iter("a")

    def __len__(self) -> int:
        return 1


class RaisingText:
    __str__ = RaisingRepr.__repr__
    __repr__ = RaisingRepr.__repr__


class RaisingEnum(enum.Enum):
    A = 1

    @property
    def value(self) -> NoReturn:
        raise RuntimeError("hunter2")


class RaisingZone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> NoReturn:
        raise RuntimeError("hunter2")

    dst = tzname = utcoffset


class RaisingDict(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("hunter2")

    __iter__ = keys = values = copy = items


class RaisingField(Profile):
    def __getattribute__(self, name: str) -> Any:
        if name == "name":
            raise RuntimeError("hunter2")
        return super().__getattribute__(name)


def raising_property() -> object:
    kind: Any = dataclasses.make_dataclass("RaisingProperty", [("name", str), ("other", int, 1)])
    kind.name = property(RaisingRepr.__repr__)
    return object.__new__(kind)


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def self_holding_array() -> Any:
    array = np.empty(1, dtype=object)
    array[0] = array
    return array


NASTY: dict[str, Callable[[], object]] = {
    "object": object,
    "lock": threading.Lock,
    "event": asyncio.Event,
    "module": lambda: sys,
    "frame": sys._getframe,
    "ellipsis": lambda: ...,
    "not implemented": lambda: NotImplemented,
    "partial": lambda: functools.partial(print, {1}),
    "raising repr": RaisingRepr,
    "repr that is no text": OddRepr,
    "repr without end": EndlessRepr,
    "raising __class__": RaisingClass,
    "raising attributes": RaisingAttributes,
    "raising class name": RaisingName,
    "unhashable class": OfUnhashable,
    "raising mapping": RaisingMapping,
    "sequence without end": EndlessSequence,
    "mapping that nests for ever": Nesting,
    "huge range": lambda: range(10**15),
    "raising str": RaisingText,
    "raising enum": lambda: RaisingEnum.A,
    "raising time zone": lambda: dt.datetime(2026, 1, 1, tzinfo=RaisingZone()),
    "raising dict": lambda: RaisingDict(a=1),
    "raising model": lambda: RaisingField(name="x"),
    "raising dataclass": raising_property,
    "model without fields": lambda: Profile.__new__(Profile),
    "released view": released,
    "array in itself": self_holding_array,
    "unchecked fragment": lambda: orjson.Fragment(b"}\n"),
    "lone surrogates in a repr": lambda: type("\u2028", (), {"__repr__": lambda self: "\ud800\n\u2028"})(),
    "non-decimal months": lambda: np.timedelta64(1, "Y"),
    "unfit dates": lambda: np.array([2**62], dtype="M8[s]"),
    "mapping proxy": lambda: vars(Plan),
}


@pytest.mark.parametrize("name", NASTY)
def test_no_object_makes_it_raise_or_write_anything_but_strict_json(name: str) -> None:
    value = NASTY[name]()
    for text in (dumps(value), dumps({"a": [value, "b"]})):
        strict(text)
        assert b"hunter2" not in text


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_object_does_not_take_its_neighbours_with_it(name: str) -> None:
    assert shown_beside(NASTY[name]()) == ["before", {"n": 1}, [1, 2]]


def shown_beside(value: object) -> list[Any]:
    read = strict(dumps(["before", {"n": 1}, value, {1, 2}]))
    return [read[0], read[1], read[3]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sequence without end", [0, 1, 2]),
        ("raising dict", {"a": 1}),
        ("raising model", {"name": "x", "born": None, "password": "**********", "parent": None}),
        ("model without fields", {}),
        ("raising dataclass", {"other": 1}),
        ("raising repr", {"__type__": f"{__name__}.RaisingRepr", "repr": "<unreadable>"}),
        ("raising mapping", {"__type__": f"{__name__}.RaisingMapping", "repr": "<unreadable>"}),
        ("huge range", {"__type__": "builtins.range", "repr": "range(0, 1000000000000000)"}),
        ("array in itself", [{"__type__": "numpy.ndarray", "repr": "<cycle>"}]),
    ],
)
def test_what_can_be_read_of_a_nasty_object_is_shown(name: str, expected: object) -> None:
    assert shown(NASTY[name]()) == expected


@pytest.mark.parametrize("name", ["object", "raising str", "raising class name", "raising enum", "unchecked fragment"])
def test_a_nasty_key_still_becomes_text(name: str) -> None:
    assert list(strict(dumps({NASTY[name](): 1, "b": 2})).values()) == [1, 2]


def test_a_container_that_its_own_members_change_is_shown_as_it_was_when_reached() -> None:
    # orjson alone ends the process here: its `default` would be called with the list half written.
    steps: list[Any] = []

    class Clearing(enum.Enum):
        A = 1

        @property
        def value(self) -> int:
            steps.clear()
            return 5

    steps += [Clearing.A, *({"text": "x" * 100} for _ in range(1_000))]
    assert len(shown_once(steps)) == 1_001

    holder: dict[Any, Any] = {}

    class Growing:
        def __str__(self) -> str:
            holder.update({str(n): n for n in range(1_000)})
            return "growing"

    holder |= {Growing(): 1, "b": 2}
    assert shown_once(holder) == {"growing": 1, "b": 2}


def shown_once(value: object) -> Any:
    return strict(dumps(value))


def test_containers_that_another_thread_changes_meanwhile_make_no_difference_to_being_json() -> None:
    state: dict[str, Any] = {"list": [], "dict": {}, "set": set(), "deque": collections.deque()}
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for n in range(50):
                state["list"].append(Plan(str(n)))
                state["dict"][n] = {str(n): [n]}
                state["set"].add(n)
                state["deque"].append({n})
            for container in state.values():
                container.clear()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            read = strict(dumps(state))
            # one that changes under each of the tries to copy it is given as unreadable
            assert all(isinstance(read[name], dict | list) for name in state)
            assert isinstance(strict(dumps(state["dict"])), dict)
    finally:
        stop.set()
        thread.join()


def test_a_set_reads_the_same_whatever_order_it_holds_its_members_in() -> None:
    members = [None, True, "a", "b", 2.5, (1, "x"), (1, 2), Colour.RED, b"x"]
    assert dumps({*members}) == dumps({*members[::-1]})
    # Numbers of equal hash collide, so the order of insertion shows in the set itself.
    clashing = [n * 64 for n in range(5)]
    assert [*{*clashing}] != [*{*clashing[::-1]}]
    assert shown({*clashing}) == shown({*clashing[::-1]}) == clashing


def test_separators_are_escaped_and_nothing_else_is_touched() -> None:
    text = orjson.dumps({"\u2028": "a\\\u2028\u2029\u0085 “é” \\u2028"})
    escaped = escape_separators(text)
    assert orjson.loads(escaped) == orjson.loads(text)
    assert escaped == '{"\\u2028":"a\\\\\\u2028\\u2029\\u0085 “é” \\\\u2028"}'.encode()
    assert escape_separators(b'"plain"') == b'"plain"'


odd_text = st.text(st.characters() | st.sampled_from([*SEPARATORS, "\ud800", "\udc00", "\n", "\\", '"']), max_size=8)
integers = st.integers() | st.integers(2**62, 2**66)
numbers = integers | st.floats() | st.decimals(allow_nan=False) | st.fractions() | st.complex_numbers()
times = st.datetimes(timezones=st.none() | st.just(UTC)) | st.dates() | st.times() | st.timedeltas()
hashables = (
    st.none()
    | st.booleans()
    | odd_text
    | numbers
    | times
    | st.binary(max_size=8)
    | st.uuids()
    | st.sampled_from([*Colour, *Level, *Mode, ONE, pathlib.PurePosixPath("a"), np.float32(1.5), np.int8(1)])
)
leaves = hashables | st.builds(
    lambda make: make(), st.sampled_from([NASTY[name] for name in ("raising repr", "raising enum", "huge range")])
)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.lists(children, max_size=4).map(collections.deque)
        | st.dictionaries(hashables, children, max_size=4)
        | st.dictionaries(st.text(max_size=3), children, max_size=4)
        | st.dictionaries(odd_text, children, max_size=4).map(collections.UserDict)
        | st.builds(lambda child: HumanMessage("x", additional_kwargs={"child": child}), children)
        | st.builds(lambda child: Profile.model_construct(name=child), children)
        | st.builds(Slotted, children)
        | st.builds(lambda child: Interrupt(value=child, id="i"), children)
        | st.builds(ValueError, children)
    )


anything = st.recursive(
    leaves | st.frozensets(hashables, max_size=4) | st.frozensets(st.frozensets(hashables, max_size=3), max_size=3),
    containers,
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(anything)
@example({"a": [{"\u0085\ud800": float("nan"), None: 2**64}]})
def test_any_value_is_strict_json_on_one_line_that_reads_back_the_same(value: object) -> None:
    text = dumps(value)
    read = strict(text)
    assert not any(separator in text.decode() for separator in SEPARATORS)
    assert read == jsonable(value) == orjson.loads(text)
    assert dumps(read) == text == dumps(jsonable(value))


json_values = st.recursive(
    st.none() | st.booleans() | odd_text | st.integers() | st.floats(),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(odd_text, children, max_size=5),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(json_values)
def test_a_plain_value_reads_the_same_alone_and_beside_something_odd(value: object) -> None:
    assert jsonable([value, Slotted(1)])[0] == jsonable(value)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=64))
def test_bytes_can_be_read_back(data: bytes) -> None:
    assert base64.b64decode(shown({"a": memoryview(data)})["a"]) == data
