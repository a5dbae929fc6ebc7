"""Patches, bytes and text, without a server: both languages make the same of them."""

import copy
import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from runstream_client import PatchError, StateMirror, apply_patch, text
from runstream_client.event_stream import EventStreamDecoder

from app.engine.mirror import diff
from tests.clients.conftest import JS_DIR, STRICT, TSC, Node
from tests.e2e import event_stream, machine
from tests.e2e.event_stream import Message
from tests.server import ROOT

GOLDEN = (ROOT / "tests" / "golden" / "sse-eventsource.txt").read_text()

# of a document, and what RFC 6902 makes of it
PATCHES: list[tuple[Any, Any, Any]] = [
    ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
    ({"a": 1}, [{"op": "add", "path": "/a", "value": None}], {"a": None}),
    ([1, 2], [{"op": "add", "path": "/-", "value": 3}], [1, 2, 3]),
    ([1, 2], [{"op": "add", "path": "/2", "value": 3}], [1, 2, 3]),
    ([1, 2], [{"op": "add", "path": "/0", "value": 3}], [3, 1, 2]),
    ([1, [2]], [{"op": "replace", "path": "/1/0", "value": {}}, {"op": "remove", "path": "/0"}], [[{}]]),
    ({"": {"a/b": 1, "m~n": 2}}, [{"op": "remove", "path": "//a~1b"}], {"": {"m~n": 2}}),
    ({"m~n": 2, "~1": 3}, [{"op": "remove", "path": "/m~0n"}, {"op": "remove", "path": "/~01"}], {}),
    ({}, [{"op": "add", "path": "/__proto__", "value": {"x": 1}}], {"__proto__": {"x": 1}}),
    ({"a": {"constructor": 1}}, [{"op": "remove", "path": "/a/constructor"}], {"a": {}}),
    ({"0": "zero"}, [{"op": "replace", "path": "/0", "value": "one"}], {"0": "one"}),
]

MISFITS: list[tuple[Any, dict[str, Any]]] = [
    ({}, {"op": "replace", "path": "/a", "value": 1}),
    ({}, {"op": "remove", "path": "/a"}),
    ({}, {"op": "remove", "path": "/toString"}),
    ({}, {"op": "add", "path": "/a/b", "value": 1}),
    ([1], {"op": "add", "path": "/2", "value": 1}),
    ([1], {"op": "replace", "path": "/1", "value": 1}),
    ([1], {"op": "replace", "path": "/-", "value": 1}),
    ([1], {"op": "remove", "path": "/-"}),
    ([1], {"op": "remove", "path": "/00"}),
    ([1], {"op": "remove", "path": "/-1"}),
    ([1], {"op": "remove", "path": "/"}),
    ("text", {"op": "remove", "path": "/0"}),
    (None, {"op": "add", "path": "/a", "value": 1}),
    ({}, {"op": "add", "path": "a", "value": 1}),
]

TORN = [
    "data: 1\r\ndata: 2\r\nid: a.1\r\n\r\n: ping\r\ndata: 3\r\rdata: 4\n\nid: b.2\n\ndata:  5\ndata\n\ndata: torn",
    "event: x\nretry: 10\nid: a\0b\nunknown: 1\n:\ndata:6\n\n",
    GOLDEN,
]

SNAPSHOT = {"event": "state", "seq": 1, "data": {"snapshot": {"a": []}}}
PATCH = {"event": "state", "seq": 2, "data": {"patch": [{"op": "add", "path": "/a/-", "value": 1}]}}
TRUNCATED = {"event": "state", "seq": 3, "data": {}, "truncated": True, "state_url": "/threads/t/state"}
OTHER = {"event": "node", "seq": 4, "node": "n", "task_id": "t", "data": {}}

MIRRORS: list[tuple[list[Any], Any]] = [
    ([SNAPSHOT, OTHER, PATCH], ([True, False, True], {"a": [1]}, False)),
    ([SNAPSHOT, PATCH, TRUNCATED, PATCH], ([True, True, False, False], {"a": [1]}, True)),
    ([SNAPSHOT, TRUNCATED, SNAPSHOT, PATCH, PATCH], ([True, False, True, True, True], {"a": [1, 1]}, False)),
    ([TRUNCATED, PATCH], ([False, False], None, True)),
]


def token(id: str, content: str | None) -> dict[str, Any]:
    data = {"id": id} if content is None else {"id": id, "content": content}
    return {"event": "token", "seq": 1, "node": "n", "data": data}


TEXTS: list[tuple[list[Any], dict[str, str]]] = [
    ([token("a", "x"), token("b", "1"), OTHER, token("a", "y")], {"a": "xy", "b": "1"}),
    ([token("a", "x"), {"event": "discard", "seq": 2, "discard": ["a", "c"]}, token("b", "y")], {"b": "y"}),
    ([token("a", "x"), {"event": "restart", "seq": 2, "discard": ["a"]}, token("a", "y")], {"a": "y"}),
    ([token("a", None), token("__proto__", "z")], {"a": "", "__proto__": "z"}),
]


def random_document(dice: random.Random, depth: int = 4) -> Any:
    kind = dice.random()
    if depth and kind < 0.45:
        keys = ["a", "b", "a/b", "m~n", "", "0", "é\u2028"]
        return {dice.choice(keys): random_document(dice, depth - 1) for _ in range(dice.randrange(5))}
    if depth and kind < 0.8:
        return [random_document(dice, depth - 1) for _ in range(dice.randrange(5))]
    return dice.choice([None, True, False, 0, 1, 1.5, "", "text", "ü"])


def server_patches() -> list[tuple[Any, Any, Any]]:
    """Patches as the server makes them, of documents that change at random, whole or in a part."""
    dice, cases = random.Random(6902), []
    for _ in range(600):
        old, new = random_document(dice), random_document(dice)
        if isinstance(old, dict) and dice.random() < 0.7:
            new = {**old, "a": random_document(dice), "list": [*old.values(), new]}
        cases.append((old, diff(old, new), new))
    return cases


EVERY_PATCH = [*PATCHES, *server_patches()]


def cut(stream: str, seed: int) -> list[str]:
    """The stream in pieces; seed 0: a character each."""
    if seed == 0:
        return list(stream)
    dice, pieces = random.Random(seed), []
    while stream:
        size = dice.randrange(1, 40)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


CUT_STREAMS = [(stream, cut(stream, seed)) for stream in TORN for seed in range(5)]


def messages_of(stream: str) -> Sequence[Message]:
    """What a decoder says that was written by the specification."""
    return list(event_stream.EventStreamDecoder().feed(stream.encode()))


def expected(stream: str) -> list[list[str]]:
    return [[message.data, message.last_event_id] for message in messages_of(stream)]


@pytest.fixture(scope="module")
def in_node(js_client: Path) -> dict[str, Any]:
    """What clients/js makes of all of it."""
    given = {
        "patches": [{"document": document, "patch": patch} for document, patch, _ in EVERY_PATCH]
        + [{"document": document, "patch": [operation]} for document, operation in MISFITS],
        "streams": [pieces for _, pieces in CUT_STREAMS],
        "mirrors": [frames for frames, _ in MIRRORS],
        "texts": [frames for frames, _ in TEXTS],
    }
    done = subprocess.run(
        [machine.find_node(), Path(__file__).parent / "pure.mjs"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_patches_are_applied_as_the_rfc_says_and_as_a_library_does() -> None:
    for document, patch, value in EVERY_PATCH:
        before = copy.deepcopy(document)
        assert apply_patch(document, patch) == value
        assert document == before
        assert jsonpatch.apply_patch(document, patch) == value


def test_typescript_applies_patches_in_the_same_way(in_node: dict[str, Any]) -> None:
    for (_, _, value), found in zip(EVERY_PATCH, in_node["patches"], strict=False):
        assert found == {"value": value, "untouched": True}


@pytest.mark.parametrize(("document", "operation"), MISFITS)
def test_a_patch_that_does_not_fit_is_refused(document: Any, operation: Any) -> None:
    with pytest.raises(PatchError):
        apply_patch(document, [operation])


def test_typescript_refuses_patches_that_do_not_fit(in_node: dict[str, Any]) -> None:
    assert in_node["patches"][len(EVERY_PATCH) :] == [{"refused": True}] * len(MISFITS)


def test_bytes_are_decoded_as_the_specification_says_wherever_they_are_cut() -> None:
    for stream in TORN:
        for seed in range(5):
            decoder = EventStreamDecoder()
            whole = stream.encode()
            pieces = [piece.encode("latin-1") for piece in cut(whole.decode("latin-1"), seed)]
            assert [list(message) for piece in pieces for message in decoder.feed(piece)] == expected(stream)


def test_typescript_decodes_in_the_same_way(in_node: dict[str, Any]) -> None:
    assert in_node["streams"] == [expected(stream) for stream, _ in CUT_STREAMS]


def test_a_mirror_that_missed_a_frame_says_so_until_the_next_snapshot() -> None:
    for frames, (changes, value, is_stale) in MIRRORS:
        mirror = StateMirror()
        assert [mirror.take(frame) for frame in frames] == changes
        assert (mirror.value, mirror.is_stale) == (value, is_stale)


def test_typescript_mirrors_in_the_same_way(in_node: dict[str, Any]) -> None:
    for (_, (changes, value, is_stale)), found in zip(MIRRORS, in_node["mirrors"], strict=True):
        assert found["changes"] == changes
        assert (found.get("value"), found["is_stale"]) == (value, is_stale)


def test_a_mirror_that_begins_in_the_middle_is_refused() -> None:
    with pytest.raises(PatchError, match="snapshot"):
        StateMirror().take(PATCH)  # type: ignore[arg-type]  # read from JSON, where a type checker sees nothing


def test_text_is_joined_by_message_and_void_text_is_taken_out() -> None:
    for frames, texts in TEXTS:
        assert text(frames) == texts


def test_typescript_joins_text_in_the_same_way(in_node: dict[str, Any]) -> None:
    assert in_node["texts"] == [texts for _, texts in TEXTS]


def test_the_typescript_has_types_for_every_frame(js_client: Path, node: Node) -> None:
    node(TSC, "--noEmit")
    usage = Path(__file__).parent / "usage.ts"
    node(TSC, *STRICT, "--noEmit", "--noUnusedLocals", "--ignoreConfig", usage, cwd=JS_DIR)
