"""Tokens and tools as the model says them, over real sockets: several at once, and who sees what (section 2)."""

import itertools
from collections.abc import Iterator

import httpx
import pytest

from tests.server import ROOT, Frame, RunningServer, events, frames_of, run, running, spoken

BRANCHES = {"practical", "playful", "bold"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The graphs that the repository shows, with the model that needs no key."""
    data_dir, env = tmp_path_factory.mktemp("examples") / "data", {"SCRIPTED_DELAY_SECONDS": "0.001"}
    with running(data_dir, config=ROOT / "langgraph.json", env=env) as server, server.client() as client:
        yield client


def of(frames: list[Frame], *kinds: str) -> list[Frame]:
    return [frame for frame in frames if frame["event"] in kinds]


def messages_of_nodes(frames: list[Frame]) -> dict[str, str]:
    """The text of each message that a node of the graph itself returned, by its id."""
    nodes = [frame for frame in of(frames, "node") if "ns" not in frame]
    said = [frame["data"]["message"] for frame in nodes if "message" in frame["data"]]
    return {message["id"]: message["content"] for message in said if message["type"] == "AIMessage"}


def test_several_messages_at_once_are_told_apart_and_each_joins_to_its_own(examples: httpx.Client) -> None:
    frames = run(examples, graph="ideas", message="a park")
    tokens = of(frames, "token")
    nodes = {frame["data"]["id"]: frame["node"] for frame in tokens}
    assert len(nodes) >= 4
    switches = sum(1 for one, other in itertools.pairwise(tokens) if one["data"]["id"] != other["data"]["id"])
    assert switches > len(nodes), "they did not speak at once"
    texts = spoken(frames)
    for id, text in messages_of_nodes(frames).items():
        assert texts[id] == text


def test_a_message_is_over_before_its_nodes_event(examples: httpx.Client) -> None:
    frames = run(examples, graph="ideas", message="a park")
    ended = {frame["data"]["id"]: frame["seq"] for frame in of(frames, "token") if frame["data"].get("last")}
    assert set(ended) == set(spoken(frames))
    for frame in of(frames, "node"):
        message = frame["data"].get("message")
        if message and message["id"] in ended:
            assert ended[message["id"]] < frame["seq"]
            assert not [f for f in of(frames, "token") if f["data"]["id"] == message["id"] and f["seq"] > frame["seq"]]


def test_each_step_of_the_essay_has_a_message_that_was_streamed(examples: httpx.Client) -> None:
    frames = run(examples, graph="essay", message="tea")
    texts = spoken(frames)
    said = messages_of_nodes(frames)
    assert len(said) >= 4
    assert {id: texts[id] for id in said} == said


def test_tool_calls_of_the_agent_are_told_with_names_and_ids_on_every_piece(examples: httpx.Client) -> None:
    frames = run(examples, graph="tools", message='What is 2 + 2? Count the words of "a b c".', subgraphs=True)
    called = {frame["data"]["id"]: frame["data"] for frame in of(frames, "tool_call")}
    assert sorted(call["name"] for call in called.values()) == ["calculator", "count_words"]
    for frame in of(frames, "tool_call_delta"):
        assert frame["data"]["name"] == called[frame["data"]["id"]]["name"]
        assert frame["data"]["message_id"] == called[frame["data"]["id"]]["message_id"]
    results = {frame["data"]["id"]: frame["data"]["content"] for frame in of(frames, "tool_result")}
    assert {called[id]["name"]: content for id, content in results.items()} == {"calculator": "4", "count_words": "3"}


def test_usage_is_the_sum_of_all_calls(examples: httpx.Client) -> None:
    alone = run(examples, graph="ideas", message="a park", stream_mode="updates")[-1]["usage"]
    streamed = run(examples, graph="ideas", message="a park")[-1]["usage"]
    assert alone == streamed
    assert streamed["scripted"]["total_tokens"] == (
        streamed["scripted"]["input_tokens"] + streamed["scripted"]["output_tokens"]
    )


# -- the graphs of tests/project --------------------------------------------------------------------------------------


def test_a_stream_of_many_tokens_loses_none_and_repeats_none(client: httpx.Client) -> None:
    frames = run(client, graph="burst", message="2000")
    assert spoken(frames) == {"b1": "".join(f"w{index} " for index in range(2000))}
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))


def test_a_later_reader_gets_the_same_tokens(client: httpx.Client) -> None:
    answer = client.post("/runs/stream", json={"graph": "burst", "message": "300"})
    again = client.get(answer.headers["location"])
    assert again.content == answer.content


def test_a_reader_may_ask_for_less_than_was_recorded(client: httpx.Client) -> None:
    frames = run(client, graph="below", message="hi", subgraphs=True)
    url = f"/runs/{frames[0]['run_id']}/stream"
    modes = frames_of(client.get(url, params={"stream_mode": "updates"}).text)
    assert events(modes) == ["start", "node", "node", "complete"]
    roots = frames_of(client.get(url, params={"subgraphs": "false"}).text)
    assert [frame for frame in roots if "ns" in frame] == []
    assert {frame["seq"] for frame in roots} < {frame["seq"] for frame in frames}


def test_a_cancelled_run_keeps_what_was_said(client: httpx.Client, server: RunningServer) -> None:
    with client.stream("POST", "/runs/stream", json={"graph": "slow_talk", "message": "hi"}) as answer:
        lines = answer.iter_lines()
        text = ""
        for line in lines:
            text += f"{line}\n"
            if '"event":"token"' in line:
                break
        [start, *_] = frames_of(text)
        client.post(f"/runs/{start['run_id']}/cancel", params={"wait": "true"})
        text += "\n".join(lines)
    frames = frames_of(text)
    assert frames[-1]["event"] == "cancelled"
    assert frames[-1]["partial"] == spoken(frames)
