"""What a registration lets clients see (docs/streaming.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from app.engine.exposure import EVERYTHING, Exposure
from app.engine.manifest import Registration


def exposure(nodes: set[str] | None = None, keys: set[str] | None = None, tags: Iterable[str] = ()) -> Exposure:
    return Exposure.of(
        Registration(
            name="g",
            source="g.py:g",
            expose_nodes=None if nodes is None else frozenset(nodes),
            expose_keys=None if keys is None else frozenset(keys),
            hide_tags=frozenset(tags),
        )
    )


class Model(BaseModel):
    a: int = 1
    b: str = "secret"


@dataclass
class Record:
    a: int = 1
    b: str = "secret"


@pytest.mark.parametrize(
    ("node", "ns", "tags", "is_shown"),
    [
        ("plan", (), (), True),
        ("other", (), (), False),
        ("other", ("plan:1f",), (), True),  # a subgraph is as visible as the node it runs in
        ("other", ("plan:1f", "inner:2e"), (), True),
        ("plan", ("other:1f",), (), False),
        ("plan", ("other:1f", "plan:2e"), (), False),
        ("", ("a:b:1f",), (), True),  # a node's name may have a colon in it
        ("plan", (), ("quiet",), False),
        ("plan", (), ("loud",), True),
        ("plan", ("plan:1f",), ("loud", "quiet"), False),
    ],
)
def test_a_node_is_seen_when_its_outermost_node_is_exposed_and_no_tag_of_it_is_hidden(
    node: str, ns: tuple[str, ...], tags: tuple[str, ...], is_shown: bool
) -> None:
    assert exposure(nodes={"plan", "a:b"}, tags={"quiet"}).shows(node, ns, tags) == is_shown


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({"a": 1, "b": "secret"}, {"a": 1}),
        ({}, {}),
        (None, None),
        (Model(), {"a": 1}),
        (Record(), {"a": 1}),
        ([{"a": 1}, {"b": "secret"}], [{"a": 1}, {}]),
        (({"b": "secret", "a": {"b": "not a key of the state"}},), [{"a": {"b": "not a key of the state"}}]),
        ("secret", None),
        (Record, None),
    ],
)
def test_of_a_state_in_any_form_the_exposed_keys_are_seen_and_nothing_that_has_no_keys(values: Any, seen: Any) -> None:
    assert exposure(keys={"a"}).state(values) == seen


def test_a_registration_that_exposes_no_key_shows_none_and_one_that_says_nothing_shows_all() -> None:
    assert exposure(keys=set()).state({"a": 1}) == {}
    assert exposure(nodes=set()).shows("a") is False
    everything = exposure()
    assert everything == EVERYTHING
    assert everything.shows("a", ("b:1",), ("t",))
    for values in ("text", [1], Model()):
        assert everything.state(values) is values


def test_a_task_is_hidden_with_its_node_and_its_parts_with_their_keys() -> None:
    shown = {"id": "1", "name": "plan", "input": Model(), "result": {"a": 1, "b": "secret"}, "error": None}
    hidden = {"id": "2", "name": "other", "result": {}}
    seen = exposure(nodes={"plan"}, keys={"a"})
    assert seen.tasks([shown, hidden]) == [{**shown, "input": {"a": 1}, "result": {"a": 1}}]
    assert seen.tasks([hidden], ("plan:1f",)) == [hidden]
    assert seen.tasks([shown], ("other:1f",)) == []
