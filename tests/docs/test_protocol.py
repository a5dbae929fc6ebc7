"""docs/protocol.md against the server: its tables are whole, and its frames have the keys that real ones have."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, get_args

import httpx
import pytest

from app import errors
from app.api.body import CancelBody, RunBody
from app.api.problem import CODES, status_of
from app.api.run import QUERY_FIELDS
from app.engine.execution import SENTENCES
from app.main import create_app
from app.protocols.tokens import parse_policy
from app.runs.event import MODES, TERMINAL, EventKind
from app.runs.model import RunStatus
from app.runs.request import StreamMode
from app.settings import Settings
from tests.docs.document import PROTOCOL, blocks, codes, frames_in, rows, section
from tests.server import ROOT, Frame, RunningServer, frames_of, problem_of, run, running

TEXT = PROTOCOL.read_text()
# built, but said nowhere yet: no route can give them
UNREACHED = {"run_not_finished", "conflict", "internal_error"}


def problem_codes() -> dict[str, int]:
    """The codes of all tables that have a status beside each."""
    found: dict[str, int] = {}
    for cells in rows(TEXT):
        statuses = re.findall(r"\b[45]\d\d\b", cells[1]) if len(cells) == 3 else []
        names = codes(cells[0])
        if statuses and len(statuses) == len(names):
            found |= dict(zip(names, map(int, statuses), strict=True))
    return found


def error_classes(kind: type[errors.RunstreamError] = errors.RunstreamError) -> Iterator[type[errors.RunstreamError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
        yield from error_classes(child)


def real_codes() -> dict[str, int]:
    own = {kind.code: status_of(kind.__new__(kind)) for kind in error_classes()}
    routing = {code: status for status, code in CODES.items() if status != 400}
    return {code: status for code, status in {**own, **routing}.items() if code not in UNREACHED}


def test_every_problem_code_is_in_a_table_with_its_status() -> None:
    assert problem_codes() == real_codes()


def test_the_codes_of_failed_runs_are_those_that_the_engine_knows() -> None:
    told = {code for cells in rows(section(PROTOCOL, "### error")) for code in codes(cells[0])}

    assert told == set(SENTENCES)


def test_every_field_of_a_start_is_in_the_table() -> None:
    told = [name for cells in rows(section(PROTOCOL, "## Start a run")) for name in codes(cells[0])]
    fields = [name for name in told if name in RunBody.model_fields]

    assert set(fields) == set(RunBody.model_fields)
    assert len(fields) == len(set(fields))


def test_every_field_of_a_query_a_cancel_and_a_token_policy_is_named() -> None:
    come_back = section(PROTOCOL, "## Come back, look on, stop")
    policy = {name for cells in rows(section(PROTOCOL, "## Token policies")) for name in codes(cells[0])}

    assert set(QUERY_FIELDS) <= set(codes(come_back))
    assert all(name in come_back for name in CancelBody.model_fields)
    with pytest.raises(errors.Invalid):
        parse_policy({"unknown": 1})
    valid: dict[str, Any] = {
        "flush": "each",
        "min_length": 1,
        "exclude_whitespace": True,
        "in_state": True,
        "parsed": True,
        "pattern": "a",
    }
    assert policy == {*valid, "nodes", "tags", "exclude_tags"}
    parse_policy({**valid, "nodes": [], "tags": [], "exclude_tags": []})


def test_every_stream_mode_status_and_kind_of_frame_is_named() -> None:
    headings = re.findall(r"^### ([a-z_, ]+)$", section(PROTOCOL, "## Frames"), re.MULTILINE)
    kinds = {kind for heading in headings for kind in heading.split(", ")}
    modes = next(cells[1] for cells in rows(TEXT) if cells[0] == "`stream_mode`")

    assert kinds == set(get_args(EventKind))
    assert set(get_args(StreamMode)) <= set(codes(modes))
    assert set(get_args(RunStatus)) <= set(codes(section(PROTOCOL, "## Come back, look on, stop")))
    assert set(MODES) | TERMINAL <= kinds


def test_every_route_is_named() -> None:
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]

    assert [path for path in paths if path not in TEXT] == []


def test_every_example_is_json() -> None:
    for block in blocks(PROTOCOL, "json"):
        assert isinstance(json.loads(block.text), dict)


@pytest.fixture(scope="module")
def real_frames(tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """Frames of every kind, from real runs: examples, and some that meet with a retry, a cancel or a crash."""
    folder = tmp_path_factory.mktemp("protocol")
    (block,) = blocks(PROTOCOL, "python")
    (folder / "index.py").write_text(block.text)
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"index": "./index.py:graph", **trouble(), **example_graphs()}}))
    with running(folder / "data", config=config, env={"OPENAI_API_KEY": ""}) as server, server.client() as client:
        frames = [frame for body in BODIES for frame in run(client, **body)]
        frames += begun(server, lambda run_id: client.post(f"/runs/{run_id}/cancel", params={"wait": "true"}))
        crashed = begun(server, lambda run_id: server.kill())[0]["run_id"]
    with running(folder / "data", config=config) as server, server.client() as client:
        return [*frames, *frames_of(client.get(f"/runs/{crashed}/stream").text)]


def trouble() -> dict[str, str]:
    file = ROOT / "tests" / "project" / "graphs.py"
    return {name: f"{file}:{name}" for name in ("retries", "fails", "paced")}


def example_graphs() -> dict[str, str]:
    sources = {"approval": "approval.py:graph", "tools": "tools.py:graph", "essay": "essay.py:make_graph"}
    return {name: str(ROOT / "graphs" / source) for name, source in sources.items()}


BODIES: list[dict[str, Any]] = [
    {"graph": "index", "input": {"documents": ["a b", "c d", "e"]}},
    {"graph": "approval", "message": "a walk", "stream_mode": ["updates", "messages", "values"]},
    {"graph": "approval", "message": "a walk", "stream_mode": ["tasks", "checkpoints", "debug", "state"]},
    {"graph": "tools", "message": "What is 2 + 3 * 4?", "subgraphs": True},
    {"graph": "essay", "message": "tea", "stream_mode": "custom"},
    {"graph": "retries", "message": "hi"},
    {"graph": "fails", "input": {}},
]


def begun(server: RunningServer, act: Callable[[str], object]) -> list[Frame]:
    """The frames of a run that something is done to while its model speaks."""
    text, is_done = "", False
    with (
        server.client() as client,
        suppress(httpx.RemoteProtocolError, httpx.ReadError),
        client.stream("POST", "/runs/stream", json={"graph": "paced", "message": "hi"}) as response,
    ):
        for piece in response.iter_text():
            text += piece
            if not is_done and '"token"' in text:
                is_done = True
                act(frames_of(text.rpartition("\n\n")[0])[0]["run_id"])
    return frames_of(text.rpartition("\n\n")[0])


@pytest.mark.parametrize("event", get_args(EventKind))
def test_the_example_of_each_kind_of_frame_has_the_keys_of_a_real_one(event: str, real_frames: list[Frame]) -> None:
    shown = [frame for frame in frames_in(PROTOCOL) if frame["event"] == event]
    real = [frame for frame in real_frames if frame["event"] == event]

    assert shown, f"there is no example of {event}"
    assert real, f"no run gave {event}"
    for frame in shown:
        assert outline(frame) in [outline(each) for each in real]


def outline(frame: Frame) -> object:
    """The keys, and those of the data where they are the protocol's and not a graph's; `ns` may be there or not."""
    keys = [key for key in frame if key != "ns"]
    data = frame.get("data")
    if frame["event"] in ("node", "custom", "values", "checkpoint", "debug") or not isinstance(data, dict):
        return keys
    return keys, [key for key in data if key != "last"]


def test_the_answers_that_are_shown_have_the_keys_of_real_ones(examples: RunningServer) -> None:
    with examples.client() as client:
        invoked = client.post("/runs/invoke", json={"graph": "chat", "message": "hi"}).json()
        row = client.get(f"/runs/{invoked['run_id']}").json()
        page = client.get(f"/runs/{invoked['run_id']}/events", params={"limit": 1}).json()
        ahead = client.get(f"/runs/{invoked['run_id']}/stream", params={"after": 999})
    real = [list(invoked), list(row), list(page), list(problem_of(ahead, 409, "event_id_ahead"))]
    shown = [json.loads(block.text) for block in blocks(PROTOCOL, "json")]
    answers = [list(body) for body in shown if "event" not in body]

    assert all(keys in answers for keys in real)


def test_a_token_policy_that_is_shown_is_one() -> None:
    (policy,) = (json.loads(block.text) for block in blocks(PROTOCOL, "json") if '"flush"' in block.text)

    assert parse_policy(policy).count == policy["flush"]["count"]


def test_what_is_said_to_be_not_built_is_refused_as_it_says(examples: RunningServer) -> None:
    assert "assistant_id" in section(PROTOCOL, "## Not built yet")

    with examples.client() as client:
        answer = client.post("/runs/stream", json={"graph": "chat", "message": "hi", "assistant_id": "chat"})

    problem_of(answer, 422, "not_supported")
