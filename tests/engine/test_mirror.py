"""A state as a snapshot and patches: applied in order they give the state (wire contract, section 5)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.mirror import StateMirror, diff, without_moves

LEAVES: st.SearchStrategy[Any] = st.sampled_from([True, False, 0, 1, 0.0, 1.0, -0.0, None, "", "a", "ab", "~", "/"])
KEYS = st.sampled_from(["a", "b", "a/b", "~", "~1", "0", "-", ""])
STATES: st.SearchStrategy[Any] = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
    ),
    max_size=5,
)


def exact(value: Any) -> str:
    """JSON that tells True, 1 and 1.0 apart, whatever the order of keys."""
    return json.dumps(value, sort_keys=True)


def plain(value: Any) -> Any:
    """The same value, no part of it twice."""
    return json.loads(json.dumps(value))


class Clock:
    """A time that goes on when the test says so, with what was to be done later."""

    def __init__(self) -> None:
        self.now = 0.0
        self._later: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((self.now + seconds, action))

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        due = [action for at, action in self._later if at <= self.now]
        self._later = [entry for entry in self._later if entry[0] > self.now]
        for action in due:
            action()


class Client:
    """What a client does with `state` frames."""

    def __init__(self) -> None:
        self.state: Any = None
        self.frames: list[Mapping[str, Any]] = []

    def take(self, data: Mapping[str, Any]) -> None:
        data = plain(data)
        self.frames.append(data)
        if "snapshot" in data:
            self.state = data["snapshot"]
        else:
            assert data["patch"]
            self.state = jsonpatch.apply_patch(self.state, data["patch"])


def mirror(client: Client, *, in_state: bool = False, clock: Clock | None = None) -> StateMirror:
    clock = clock or Clock()
    return StateMirror(client.take, in_state=in_state, clock=clock, later=clock.later)


@given(st.lists(STATES, min_size=1, max_size=5))
def test_after_each_step_the_snapshot_and_the_patches_make_the_state(states: list[Any]) -> None:
    client = Client()
    written = mirror(client)
    for state in states:
        written.values(state)
        assert exact(client.state) == exact(state)
    written.close(states[-1])
    assert exact(client.state) == exact(states[-1])


@given(STATES, st.data())
def test_a_list_that_is_reordered_and_a_value_that_moves_are_followed(state: Any, data: st.DataObject) -> None:
    values = list(state.values())
    order = data.draw(st.permutations(values))
    old = plain({"list": values, "x": {"deep": values}, **state})
    new = plain({"list": order, "y": {"deep": values}, **dict(zip(state, order, strict=True))})
    assert exact(jsonpatch.apply_patch(old, diff(old, new))) == exact(new)


class Counted(dict[str, Any]):
    """A part of a state that counts how often it is copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Counted":
        type(self).copies += 1
        return self


def test_however_much_is_reordered_the_state_is_copied_once() -> None:
    class Untouched(Counted):
        pass

    items = [{"id": str(number), "next": {"id": number + 1}} for number in range(60)]
    operations = jsonpatch.make_patch({"list": items}, {"list": items[::-1]}).patch
    patch = without_moves({"list": items, "untouched": Untouched()}, operations)
    assert len(patch) > len(operations) > 1
    assert Untouched.copies == 1


@given(STATES, STATES)
def test_a_patch_has_no_operation_but_add_replace_and_remove(old: Any, new: Any) -> None:
    assert {operation["op"] for operation in diff(old, new)} <= {"add", "replace", "remove"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": True}, {"a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": [True]}, {"b": [1]}),
        ({"a": [{"k": [1, True]}]}, {"b": [{"k": [True, 1]}]}),
        ({"a": [1, 2, 3]}, {"a": [3, 1, 2]}),
        ({"a": {"b": {"c": 1}}}, {"b": {"c": 1}}),
        ({"a": None}, {}),
        ("text", {"a": 1}),
        ([1, [2]], [[2], 1]),
    ],
)
def test_what_python_takes_for_the_same_and_json_does_not_is_told_apart(old: Any, new: Any) -> None:
    assert exact(jsonpatch.apply_patch(old, diff(old, new))) == exact(new)


def test_a_step_that_changes_nothing_makes_no_frame() -> None:
    client = Client()
    written = mirror(client)
    for _ in range(3):
        written.values({"a": [1]})
    written.close({"a": [1]})
    assert client.frames == [{"snapshot": {"a": [1]}}]


def test_a_run_that_ends_before_its_first_step_has_its_snapshot_at_the_end() -> None:
    client = Client()
    mirror(client).close({"a": 1})
    assert client.frames == [{"snapshot": {"a": 1}}]


# -- what is being said -----------------------------------------------------------------------------------------------


def test_what_a_model_says_is_shown_at_once_then_every_now_and_then_and_whole_when_it_is_over() -> None:
    client, clock, said = Client(), Clock(), list[str]()
    written = mirror(client, in_state=True, clock=clock)

    def say(word: str) -> None:
        said.append(word)
        written.token("speak", "m1", lambda: "".join(said), word)

    written.values({"a": 1})
    for word in ["one ", "two ", "three "]:
        say(word)
    first = {"node": "speak", "message_id": "m1", "partial": "one ", "last_token": "one ", "token_count": 1}
    assert client.state["streaming"] == {**first, "progress": None}
    clock.go_on(1)
    assert client.state["streaming"] == {
        **first,
        "partial": "one two three ",
        "last_token": "three ",
        "token_count": 3,
        "progress": None,
    }
    say("four")
    say("!")
    written.spoken("m1", "".join(said))
    assert client.state["streaming"]["partial"] == "one two three four!"
    assert (client.state["streaming"]["token_count"], client.state["streaming"]["last_token"]) == (5, "!")
    written.close({"a": 1})
    assert client.frames[-1] == {"patch": [{"op": "remove", "path": "/streaming"}]}
    clock.go_on(1)
    assert client.state == {"a": 1}


def test_a_thousand_tokens_at_once_are_a_few_frames() -> None:
    client, clock = Client(), Clock()
    written = mirror(client, in_state=True, clock=clock)
    written.values({})
    for number in range(1000):
        clock.go_on(0.001)
        written.token("speak", "m1", lambda number=number: "x" * (number + 1), "x")  # type: ignore[misc]
    assert len(client.frames) < 30
    clock.go_on(1)
    assert client.state["streaming"]["token_count"] == len(client.state["streaming"]["partial"]) == 1000


def test_two_models_that_speak_at_once_are_counted_by_themselves() -> None:
    client, clock = Client(), Clock()
    written = mirror(client, in_state=True, clock=clock)
    written.values({})
    for number in range(1, 4):
        for name in ("left", "right"):
            clock.go_on(1)
            written.token(name, name, lambda number=number: "x" * number, "x")  # type: ignore[misc]
            shown = client.state["streaming"]
            assert (shown["node"], shown["token_count"], shown["partial"]) == (name, number, "x" * number)
    written.spoken("left", "xxx, and more")
    assert client.state["streaming"]["message_id"] == "right"


def test_progress_is_shown_before_between_and_beside_what_is_said() -> None:
    client, clock = Client(), Clock()
    written = mirror(client, in_state=True, clock=clock)
    written.values({})
    written.progress("speak", {"current": 1})
    blank = {"message_id": None, "partial": "", "last_token": "", "token_count": 0}
    assert client.state == {"streaming": {"node": "speak", **blank, "progress": {"current": 1}}}
    clock.go_on(1)
    written.token("speak", "m1", lambda: "a", "a")
    assert client.state["streaming"]["partial"] == "a"
    assert client.state["streaming"]["progress"] == {"current": 1}
    written.progress("speak", {"current": 2})
    assert client.state["streaming"]["progress"] == {"current": 2}
    clock.go_on(1)
    written.token("other", "m2", lambda: "b", "b")
    assert client.state["streaming"]["progress"] is None


def test_nothing_of_it_is_shown_unless_it_was_asked_for_or_before_there_is_a_state() -> None:
    client = Client()
    written = mirror(client)
    written.values({})
    written.token("n", "m", lambda: "a", "a")
    written.spoken("m", "a")
    written.progress("n", {})
    early = mirror(client, in_state=True)
    early.token("n", "m", lambda: "a", "a")
    assert client.frames == [{"snapshot": {}}]


def test_a_key_of_the_state_itself_wins_over_the_mirrors_own() -> None:
    client, clock = Client(), Clock()
    written = mirror(client, in_state=True, clock=clock)
    written.values({"a": 1})
    written.token("n", "m", lambda: "a", "a")
    written.values({"a": 1, "streaming": {"mine": True}})
    clock.go_on(1)
    written.token("n", "m", lambda: "ab", "b")
    assert client.state == {"a": 1, "streaming": {"mine": True}}
    written.close({"a": 1, "streaming": {"mine": True}})
    assert client.state == {"a": 1, "streaming": {"mine": True}}


def test_a_state_that_is_no_object_has_no_room_for_it() -> None:
    client = Client()
    written = mirror(client, in_state=True)
    written.values([1])
    written.token("n", "m", lambda: "a", "a")
    written.close([1, 2])
    assert client.state == [1, 2]
