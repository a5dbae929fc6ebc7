"""Every row of the frame table, over real sockets (wire contract, section 2)."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import Frame, RunningServer, events, frames_of, run, running, spoken

ALL = ["updates", "messages", "custom", "values", "tasks", "checkpoints", "debug"]
ENDS = {"complete", "interrupt", "cancelled", "error"}

# a run of each, with everything recorded: what must hold of all frames is looked at in all of these
RUNS: dict[str, dict[str, Any]] = {
    "steps": {"graph": "steps", "input": {"log": []}},
    "talk": {"graph": "talk", "message": "hi"},
    "ask": {"graph": "ask", "input": {"log": []}},
    "ask_both": {"graph": "ask_both", "input": {"log": []}},
    "ask_below": {"graph": "ask_below", "input": {"log": []}, "subgraphs": True},
    "below": {"graph": "below", "message": "hi", "subgraphs": True},
    "below, roots only": {"graph": "below", "message": "hi"},
    "odd": {"graph": "odd", "input": {}},
    "fails": {"graph": "fails", "input": {"log": []}},
    "model_fails": {"graph": "model_fails", "message": "hi"},
    "fails_below": {"graph": "fails_below", "input": {"log": []}, "subgraphs": True},
    "writers": {"graph": "writers", "input": {"log": []}},
    "agent": {"graph": "agent", "message": "2 + 2"},
    "mute": {"graph": "mute", "message": "hi"},
    "form": {"graph": "form", "message": "tea"},
    "fan": {"graph": "fan", "input": {"log": []}},
    "loops": {"graph": "loops", "input": {"log": []}, "config": {"recursion_limit": 3}},
    "paused": {"graph": "paused", "input": {"log": []}, "use_hitl": True},
}


PAUSED = {"ask", "ask_both", "ask_below", "paused"}
FAILED = {"fails", "fails_below", "model_fails", "loops"}


@pytest.fixture(scope="module")
def recorded(client: httpx.Client) -> dict[str, list[Frame]]:
    return {name: run(client, stream_mode=ALL, **body) for name, body in RUNS.items()}


def of(frames: list[Frame], *kinds: str) -> list[Frame]:
    return [frame for frame in frames if frame["event"] in kinds]


# -- of every run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
class TestEveryRun:
    def test_begins_with_its_start(self, recorded: dict[str, list[Frame]], name: str) -> None:
        start = recorded[name][0]
        assert set(start) == {"event", "run_id", "thread_id", "graph", "attempt", "seq"}
        assert (start["event"], start["graph"], start["attempt"]) == ("start", RUNS[name]["graph"], 1)
        assert len(of(recorded[name], "start")) == 1

    def test_ends_with_the_one_end_it_has(self, recorded: dict[str, list[Frame]], name: str) -> None:
        assert [frame["event"] in ENDS for frame in recorded[name]] == [False] * (len(recorded[name]) - 1) + [True]
        expected = "interrupt" if name in PAUSED else "error" if name in FAILED else "complete"
        assert recorded[name][-1]["event"] == expected, recorded[name][-1]
        assert "usage" in recorded[name][-1]

    def test_counts_its_frames_without_a_gap(self, recorded: dict[str, list[Frame]], name: str) -> None:
        assert [frame["seq"] for frame in recorded[name]] == list(range(1, len(recorded[name]) + 1))

    def test_starts_a_node_before_it_speaks_and_ends_it_after(
        self, recorded: dict[str, list[Frame]], name: str
    ) -> None:
        running_nodes: set[Any] = set()
        for frame in recorded[name]:
            place = (*frame.get("ns", []), frame.get("node"))
            match frame["event"]:
                case "node_start":
                    running_nodes.add(place)
                case "token" | "tool_call" | "tool_call_delta" | "tool_result" | "custom" | "node":
                    assert place in running_nodes, frame

    def test_tells_a_task_once(self, recorded: dict[str, list[Frame]], name: str) -> None:
        ids = [frame["task_id"] for frame in of(recorded[name], "node")]
        assert len(ids) == len(set(ids))

    def test_joins_its_tokens_to_the_messages_of_its_nodes(self, recorded: dict[str, list[Frame]], name: str) -> None:
        texts = spoken(recorded[name])
        for frame in of(recorded[name], "node"):
            message = frame["data"].get("message")
            if not isinstance(message, dict) or message["type"] != "AIMessage":
                continue
            content = message["content"]
            if isinstance(content, list):
                content = "".join(block.get("text", "") for block in content if isinstance(block, dict))
            if content and name != "form":
                assert texts[message["id"]] == content

    def test_marks_the_last_token_of_each_whole_message_and_no_other(
        self, recorded: dict[str, list[Frame]], name: str
    ) -> None:
        if name in FAILED:
            return
        lasts: dict[str, list[bool]] = {}
        for frame in of(recorded[name], "token"):
            lasts.setdefault(frame["data"]["id"], []).append(frame["data"].get("last", False))
        for marks in lasts.values():
            assert marks == [False] * (len(marks) - 1) + [True]

    def test_says_no_secret(self, recorded: dict[str, list[Frame]], name: str) -> None:
        assert "hunter2" not in json.dumps(recorded[name])


# -- row by row -------------------------------------------------------------------------------------------------------


def test_a_node_says_its_update_its_task_and_its_newest_message(recorded: dict[str, list[Frame]]) -> None:
    [node] = of(recorded["talk"], "node")
    assert set(node) == {"event", "node", "task_id", "data", "seq"}
    assert node["data"]["message"]["type"] == "AIMessage"
    assert list(node["data"]["message"])[:3] == ["type", "content", "id"]
    assert list(spoken(recorded["talk"])) == [node["data"]["message"]["id"]]


def test_a_message_is_told_by_its_class(client: httpx.Client, recorded: dict[str, list[Frame]]) -> None:
    kinds = [frame["data"]["message"]["type"] for frame in of(recorded["agent"], "node")]
    assert kinds == ["AIMessage", "ToolMessage", "AIMessage"]


def test_a_node_that_returns_nothing_has_an_empty_object(recorded: dict[str, list[Frame]]) -> None:
    [quiet] = [frame for frame in of(recorded["fan"], "node") if frame["node"] == "quiet"]
    assert quiet["data"] == {}


def test_each_task_of_a_fan_is_told_with_its_own_update(recorded: dict[str, list[Frame]]) -> None:
    workers = [frame for frame in of(recorded["fan"], "node") if frame["node"] == "worker"]
    assert sorted(frame["data"]["log"][0] for frame in workers) == ["worker 0", "worker 1", "worker 2"]


def test_a_token_says_its_message_and_the_new_text_only(recorded: dict[str, list[Frame]]) -> None:
    tokens = of(recorded["talk"], "token")
    assert [frame["data"]["content"] for frame in tokens] == [
        "Hello",
        ", ",
        "wide",
        " ",
        "world",
        "\u2028",
        "\u0085",
        "“ü”",
        "\n",
        "end.",
    ]
    assert all(set(frame) == {"event", "node", "data", "seq"} for frame in tokens)
    assert {frame["data"]["role"] for frame in tokens} == {"assistant"}


def test_a_model_that_can_not_stream_is_one_token(recorded: dict[str, list[Frame]]) -> None:
    [token] = of(recorded["mute"], "token")
    [node] = of(recorded["mute"], "node")
    assert token["data"] == {
        "id": node["data"]["message"]["id"],
        "content": "all at once",
        "role": "assistant",
        "last": True,
    }


def test_tool_calls_come_in_pieces_then_whole_then_their_results(recorded: dict[str, list[Frame]]) -> None:
    frames = of(recorded["agent"], "tool_call_delta", "tool_call", "tool_result")
    assert events(frames) == ["tool_call_delta"] * 3 + ["tool_call", "tool_result"]
    assert all((frame["data"]["id"], frame["data"]["name"]) == ("call_1", "add") for frame in frames)
    assert json.loads("".join(frame["data"]["args"] for frame in frames[:3])) == {"a": 2, "b": 2}
    assert frames[3]["data"]["args"] == {"a": 2, "b": 2}
    assert {frame["data"]["message_id"] for frame in frames[:4]} == {frames[3]["data"]["message_id"]}
    assert (frames[4]["node"], frames[4]["data"]) == (
        "tools",
        {"id": "call_1", "name": "add", "content": "4", "status": "success"},
    )


def test_reasoning_stands_under_its_own_key_and_blocks_have_an_index(recorded: dict[str, list[Frame]]) -> None:
    first = of(recorded["agent"], "token")[:2]
    assert [(f["data"]["index"], f["data"]["content"], f["data"].get("reasoning")) for f in first] == [
        (0, "", "Let me add."),
        (1, "I add.", None),
    ]


def test_what_nodes_write_names_the_node_that_wrote_it(recorded: dict[str, list[Frame]]) -> None:
    for name in ("left", "right"):
        data = [frame["data"] for frame in of(recorded["writers"], "custom") if frame["node"] == name]
        pieces = [{"from": name, "index": index} for index in range(3)]
        assert data == [*pieces, {"name": "note", "data": {"from": name}}]


def test_a_start_of_a_node_says_its_task_and_step(recorded: dict[str, list[Frame]]) -> None:
    starts = of(recorded["steps"], "node_start")
    assert [(frame["node"], frame["data"]["step"]) for frame in starts] == [("one", 1), ("two", 2), ("three", 3)]
    assert [frame["data"]["id"] for frame in starts] == [f["task_id"] for f in of(recorded["steps"], "node")]


def test_values_are_the_state_after_each_step(recorded: dict[str, list[Frame]]) -> None:
    logs = [frame["data"]["log"] for frame in of(recorded["steps"], "values")]
    assert logs == [[], ["one"], ["one", "two"], ["one", "two", "three"]]


def test_checkpoints_and_debug_are_told_as_langgraph_tells_them(recorded: dict[str, list[Frame]]) -> None:
    checkpoints = of(recorded["steps"], "checkpoint")
    assert [frame["data"]["metadata"]["source"] for frame in checkpoints] == ["input", *["loop"] * 4]
    assert all(frame["data"]["config"]["configurable"]["checkpoint_id"] for frame in checkpoints)
    assert {frame["data"]["type"] for frame in of(recorded["steps"], "debug")} == {"task", "task_result", "checkpoint"}


def test_a_graph_that_finished_is_complete(recorded: dict[str, list[Frame]]) -> None:
    seq = recorded["steps"][-1]["seq"]
    assert recorded["steps"][-1] == {"event": "complete", "status": "success", "usage": None, "seq": seq}


def test_output_is_in_the_end_when_it_is_asked_for(client: httpx.Client) -> None:
    frames = run(client, graph="steps", input={"log": ["x"]}, include_output=True)
    assert frames[-1]["output"]["log"] == ["x", "one", "two", "three"]


def test_a_pause_has_all_pending_questions_each_once(recorded: dict[str, list[Frame]]) -> None:
    end = recorded["ask_both"][-1]
    assert set(end) == {"event", "next", "interrupts", "usage", "seq"}
    assert sorted(end["next"]) == ["left", "right"]
    assert sorted(asked["node"] for asked in end["interrupts"]) == ["left", "right"]
    assert len({asked["id"] for asked in end["interrupts"]}) == 2
    assert all(set(asked) == {"id", "value", "node", "ns", "response_schema"} for asked in end["interrupts"])


def test_a_pause_below_says_where_it_is(recorded: dict[str, list[Frame]]) -> None:
    [asked] = recorded["ask_below"][-1]["interrupts"]
    assert (asked["node"], asked["value"], len(asked["ns"])) == ("inner", {"question": "May I?"}, 1)
    assert recorded["ask_below"][-1]["next"] == ["child"]


def test_a_breakpoint_asks_nothing(recorded: dict[str, list[Frame]]) -> None:
    assert (recorded["paused"][-1]["interrupts"], recorded["paused"][-1]["next"]) == ([], ["three"])


@pytest.mark.parametrize(
    ("name", "code", "node", "retryable"),
    [
        ("fails", "graph_error", "fail", False),
        ("fails_below", "graph_error", "child", False),
        ("model_fails", "model_error", "speak", True),
        ("loops", "recursion_limit", None, False),
    ],
)
def test_a_failure_says_what_may_be_said(
    recorded: dict[str, list[Frame]], name: str, code: str, node: str | None, retryable: bool
) -> None:
    end = recorded[name][-1]
    assert set(end) == {"event", "error", "code", "node", "run_id", "retryable", "usage", "seq"}
    assert (end["code"], end["node"], end["retryable"]) == (code, node, retryable)
    assert end["run_id"] == recorded[name][0]["run_id"]
    assert end["error"].endswith(".")


def test_the_reason_of_a_failure_is_in_the_servers_log_with_the_runs_id(
    server: RunningServer, recorded: dict[str, list[Frame]]
) -> None:
    assert recorded["fails"][0]["run_id"] in server.log
    assert "hunter2" in server.log


def test_a_retry_says_which_text_is_void(client: httpx.Client) -> None:
    frames = run(client, graph="retries", input={"messages": []}, stream_mode="messages")
    assert events(frames) == ["start", *["token"] * 3, "discard", *["token"] * 4, "complete"]
    discard = frames[4]
    assert (discard["node"], discard["reason"]) == ("flaky", "retry")
    texts = spoken(frames)
    assert [texts.pop(id) for id in discard["discard"]] == ["abc"]
    assert list(texts.values()) == ["abcd"]


# -- subgraphs --------------------------------------------------------------------------------------------------------


def test_frames_from_below_say_where_they_come_from(recorded: dict[str, list[Frame]]) -> None:
    frames = recorded["below"]
    [child] = [frame for frame in of(frames, "node") if frame["node"] == "child"]
    below = [frame for frame in frames if "ns" in frame]
    assert {frame["event"] for frame in below} >= {"token", "node", "node_start", "values"}
    assert all(frame["ns"] == [f"child:{child['task_id']}"] for frame in below)
    assert [frame for frame in of(frames, "token") if "ns" not in frame] == []


def test_without_subgraphs_a_childs_final_message_is_seen_once(recorded: dict[str, list[Frame]]) -> None:
    frames = recorded["below, roots only"]
    assert not any("ns" in frame for frame in frames)
    assert list(spoken(frames).values()) == ["Hello, wide world\u2028\u0085“ü”\nend."]
    assert len(of(frames, "token")) == 1


def test_usage_of_a_subgraph_counts_either_way(recorded: dict[str, list[Frame]]) -> None:
    expected = {"speaker": {"input_tokens": 3, "output_tokens": 10, "total_tokens": 13}}
    assert recorded["below"][-1]["usage"] == recorded["below, roots only"][-1]["usage"] == expected


# -- modes ------------------------------------------------------------------------------------------------------------

ALWAYS = {"start", *ENDS}


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ([], set()),
        ("updates", {"node"}),
        ("messages", {"token"}),
        (["custom"], set()),
        ("values", {"values"}),
        ("tasks", {"node_start"}),
        ("checkpoints", {"checkpoint"}),
        ("debug", {"debug"}),
        (["messages", "values"], {"token", "values"}),
    ],
)
def test_a_mode_gives_its_frames_and_the_ones_that_always_come(
    client: httpx.Client, mode: Any, kinds: set[str]
) -> None:
    frames = run(client, graph="talk", message="hi", stream_mode=mode)
    assert {frame["event"] for frame in frames} == kinds | {"start", "complete"}


@pytest.mark.parametrize("mode", [[], "updates", "messages", "custom", "values", "tasks", "checkpoints", "debug"])
@pytest.mark.parametrize("graph", ["ask", "ask_below", "ask_both"])
def test_a_pause_is_told_whatever_the_modes(client: httpx.Client, graph: str, mode: Any) -> None:
    frames = run(client, graph=graph, input={"log": []}, stream_mode=mode, subgraphs=True)
    assert len(of(frames, "interrupt")) == 1
    assert len(frames[-1]["interrupts"]) == (2 if graph == "ask_both" else 1)


# -- odd types --------------------------------------------------------------------------------------------------------


def test_a_state_with_every_odd_type_is_strict_json(client: httpx.Client) -> None:
    answer = client.post("/runs/stream", json={"graph": "odd", "input": {}, "stream_mode": ALL})
    assert not {"\u2028", "\u2029", "\u0085", "\r"} & set(answer.text)
    frames = frames_of(answer.text)
    [custom] = of(frames, "custom")
    values = custom["data"]["values"]
    assert base64.b64decode(values["bytes"]) == b"\x00\xff"
    assert {key: values[key] for key in ("decimal", "path", "nan", "inf", "set", "tuple", "delta", "1")} == {
        "decimal": "1.10",
        "path": "/tmp/x",
        "nan": None,
        "inf": None,
        "set": [1, 2],
        "tuple": [1, "two"],
        "delta": 90.0,
        "1": "one",
    }
    assert values["lines"] == "a\u2028b\u2029c\u0085d\r\ne"
    assert set(custom["data"]["opaque"]) == {"__type__", "repr"}
    made = of(frames, "node")[0]["data"]
    assert made["colour"] == "red"
    assert made["point"] == {"x": 1, "y": None}
    assert made["box"] == {"name": "b", "points": [{"x": 2, "y": 0.5}]}
    assert made["when"].startswith("2026-01-02T03:04:05")
    assert of(frames, "values")[-1]["data"]["point"] == {"x": 1, "y": None}


def test_the_types_of_a_state_survive_a_pause_and_a_restart(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running(data_dir) as server, server.client() as client:
        body = {"graph": "odd", "thread_id": "t", "input": {}, "interrupt_after": ["make"]}
        assert run(client, **body)[-1]["next"] == ["see"]
        assert server.stop() == 0
    with running(data_dir) as server, server.client() as client:
        state = client.get("/threads/t/state")
        assert json.loads(state.text, parse_constant=pytest.fail)["values"]["point"] == {"x": 1, "y": None}
        frames = run(client, thread_id="t", input=None)
        assert of(frames, "node")[0]["data"] == {"seen": "Colour Point Box"}


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_a_frame_that_is_too_large_says_so_and_where_the_state_is(tmp_path: Path) -> None:
    with running(tmp_path / "data", env={"RUNSTREAM_MAX_FRAME_BYTES": "2000"}) as server, server.client() as client:
        text = "x" * 3000
        frames = run(client, graph="steps", thread_id="t", input={"log": [text]}, stream_mode=ALL, include_output=True)
        assert events(frames)[-1] == "complete"
        for frame in of(frames, "values", "complete"):
            assert (frame["truncated"], frame["state_url"]) == (True, "/threads/t/state")
        assert not any("truncated" in frame for frame in of(frames, "start", "node", "node_start"))
        assert "output" not in frames[-1]
        assert all(len(json.dumps(frame)) < 2100 for frame in frames)
        state = client.get(frames[-1]["state_url"])
        assert state.json()["values"]["log"] == [text, "one", "two", "three"]
