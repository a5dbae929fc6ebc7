"""The repository's own graphs with a real model client, against a provider on loopback that behaves badly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.model_endpoint import API_KEY, SECRET, Answer, RunningEndpoint, model_endpoint
from tests.server import ROOT, Frame, RunningServer, events, frames_of, run, running, spoken, wait_until

NOT_AGAIN = {"x-should-retry": "false"}  # the client would try the call itself again, after a pause
CALLS = (
    {"id": "call_a", "name": "calculator", "arguments": ['{"expr', 'ession": ', '"2+2"}']},
    {"id": "call_b", "name": "count_words", "arguments": ['{"text": "a b c"}']},
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[RunningEndpoint]:
    with model_endpoint() as one:
        yield one


def serving(data_dir: Path, endpoint: RunningEndpoint, **env: str) -> Any:
    return running(data_dir, config=ROOT / "langgraph.json", env={**endpoint.env, **env})


@pytest.fixture(scope="module")
def server(endpoint: RunningEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("model") / "data", endpoint) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


def of(frames: list[Frame], *kinds: str) -> list[Frame]:
    return [frame for frame in frames if frame["event"] in kinds]


def assert_nothing_leaks(*shown: Any) -> None:
    text = json.dumps(shown)
    assert SECRET not in text
    assert API_KEY not in text


# -- answers ----------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_provider_and_join_to_the_message(
    client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    words = ["Hel", "lo", "\u2028", " “wörld”", "\n", "."]
    endpoint.will(Answer(words=words))
    frames = run(client, graph="chat", message="hi")
    tokens = of(frames, "token")
    [node] = of(frames, "node")
    assert [frame["data"]["content"] for frame in tokens if frame["data"]["content"]] == words
    assert [frame["data"].get("last") for frame in tokens].count(True) == 1
    assert spoken(frames) == {node["data"]["message"]["id"]: "".join(words)}
    assert node["data"]["message"]["content"] == "".join(words)
    assert endpoint.keys[-1] == f"Bearer {API_KEY}"
    assert endpoint.requests[-1]["stream"] is True


def test_a_message_has_one_id_in_its_frames_and_in_the_thread(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer())
    frames = run(client, graph="chat", message="hi", thread_id="one-id")
    state = client.get("/threads/one-id/state").json()["values"]["messages"]
    assert [message["id"] for message in state if message["type"] == "ai"] == list(spoken(frames))


def test_usage_is_the_providers(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(words=["a", "b", "c"]))
    usage = run(client, graph="chat", message="hi")[-1]["usage"]["test-model"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)


def test_usage_that_the_provider_does_not_tell_is_null(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(says_usage=False))
    assert run(client, graph="chat", message="hi")[-1]["usage"] is None


def test_where_no_tokens_are_asked_for_the_provider_is_not_asked_to_stream(
    client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    endpoint.will(Answer(), Answer())
    frames = run(client, graph="chat", message="hi", stream_mode="updates")
    assert events(frames) == ["start", "node", "complete"]
    answer = client.post("/runs/invoke", json={"graph": "chat", "message": "hi"}).json()
    assert answer["output"]["messages"][-1]["content"] == "Hello, world."
    assert answer["usage"]["test-model"]["output_tokens"] == 4
    assert [request.get("stream") for request in endpoint.requests] == [False, False]


def test_the_conversation_goes_to_the_provider_whole(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(words=["first"]), Answer(words=["second"]))
    for text in ("one", "two"):
        run(client, graph="chat", message=text, thread_id="conversation")
    assert [message["content"] for message in endpoint.requests[-1]["messages"]] == ["one", "first", "two"]


# -- tools ------------------------------------------------------------------------------------------------------------


def test_tool_calls_are_told_as_they_are_written_with_their_results(
    client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    endpoint.will(Answer(words=(), tool_calls=CALLS), Answer(words=["4 ", "and ", "3"]))
    frames = run(client, graph="tools", message="add and count", subgraphs=True)
    deltas = of(frames, "tool_call_delta")
    for call in CALLS:
        pieces = [frame["data"]["args"] for frame in deltas if frame["data"]["id"] == call["id"]]
        assert pieces == ["", *call["arguments"]]
    assert {(frame["data"]["id"], frame["data"]["name"]) for frame in deltas} == {
        ("call_a", "calculator"),
        ("call_b", "count_words"),
    }
    assert [(frame["data"]["id"], frame["data"]["args"]) for frame in of(frames, "tool_call")] == [
        ("call_a", {"expression": "2+2"}),
        ("call_b", {"text": "a b c"}),
    ]
    assert [(frame["data"]["id"], frame["data"]["content"]) for frame in of(frames, "tool_result")] == [
        ("call_a", "4"),
        ("call_b", "3"),
    ]
    asked = [frame["data"]["message"]["id"] for frame in of(frames, "node") if frame["node"] == "model"]
    assert {frame["data"]["message_id"] for frame in of(frames, "tool_call", "tool_call_delta")} == {asked[0]}
    assert spoken([frame for frame in frames if "ns" in frame]) == {asked[1]: "4 and 3"}


def test_usage_is_summed_over_the_calls_of_a_subgraph(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    for subgraphs in (True, False):
        endpoint.will(Answer(words=(), tool_calls=CALLS), Answer(words=["4"]))
        usage = run(client, graph="tools", message="add", subgraphs=subgraphs)[-1]["usage"]["test-model"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (14, 5)


def test_without_subgraphs_the_agents_answer_is_seen_once(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(words=(), tool_calls=CALLS), Answer(words=["4 ", "and ", "3"]))
    frames = run(client, graph="tools", message="add")
    assert [frame["data"]["content"] for frame in of(frames, "token") if frame["node"] == "agent"] == ["4 and 3"]
    assert events(of(frames, "tool_call", "tool_result")) == ["tool_call"] * 2 + ["tool_result"] * 2


def test_arguments_that_are_no_json_are_told_as_they_were_written(
    client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    broken = {"id": "call_a", "name": "calculator", "arguments": ['{"expression": oops']}
    endpoint.will(Answer(words=(), tool_calls=[broken]), Answer(words=["sorry"]))
    frames = run(client, graph="tools", message="add", subgraphs=True)
    [call] = of(frames, "tool_call")
    assert call["data"]["args"] == '{"expression": oops'
    assert frames[-1]["event"] in ("complete", "error")


# -- failures ---------------------------------------------------------------------------------------------------------

BROKEN = {
    "refused with 429": Answer(status=429, headers=NOT_AGAIN),
    "refused with 500": Answer(status=500, headers=NOT_AGAIN),
    "refused with 401": Answer(status=401),
    "cut in the middle": Answer(words=["half ", "an ", "answer"], then="drop"),
    "an error in the middle": Answer(words=["half ", "an ", "answer"], then="error"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_failed_call_is_a_model_error_that_can_be_tried_again(
    client: httpx.Client, endpoint: RunningEndpoint, name: str
) -> None:
    thread_id = name.replace(" ", "-")
    endpoint.will(BROKEN[name])
    frames = run(client, graph="chat", message="hi", thread_id=thread_id)
    end = frames[-1]
    assert (end["event"], end["code"], end["node"], end["retryable"]) == ("error", "model_error", "chat", True)
    run_id = frames[0]["run_id"]
    row = client.get(f"/runs/{run_id}").json()
    assert (row["status"], row["error"]["code"]) == ("error", "model_error")
    log = client.get(f"/runs/{run_id}/events").json()["events"]
    state = client.get(f"/threads/{thread_id}/state").json()
    assert_nothing_leaks(frames, row, log, state)
    assert "".join(spoken(log).values()) == "".join(BROKEN[name].words if BROKEN[name].then != "end" else ())

    endpoint.will(Answer(words=["mended"]))
    again = run(client, thread_id=thread_id, input=None)
    assert again[-1]["event"] == "complete"
    assert list(spoken(again).values()) == ["mended"]
    messages = client.get(f"/threads/{thread_id}/state").json()["values"]["messages"]
    assert [(message["type"], message["content"]) for message in messages] == [("human", "hi"), ("ai", "mended")]


def test_an_invoke_that_fails_says_as_little(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(status=500, headers=NOT_AGAIN))
    answer = client.post("/runs/invoke", json={"graph": "chat", "message": "hi"})
    assert (answer.status_code, answer.json()["code"]) == (500, "model_error")
    assert_nothing_leaks(answer.text)


def test_the_reason_is_for_the_servers_log_alone_and_the_key_for_nobody(
    server: RunningServer, client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    endpoint.will(Answer(status=500, headers=NOT_AGAIN))
    frames = run(client, graph="chat", message="hi")
    wait_until(lambda: frames[0]["run_id"] in server.log, "the failure is in the log")
    assert SECRET in server.log
    assert API_KEY not in server.log


def test_a_refusal_that_the_client_library_gets_over_is_not_seen(
    client: httpx.Client, endpoint: RunningEndpoint
) -> None:
    endpoint.will(Answer(status=429, headers={"retry-after-ms": "1"}), Answer())
    frames = run(client, graph="chat", message="hi")
    assert frames[-1]["event"] == "complete"
    assert list(spoken(frames).values()) == ["Hello, world."]
    assert len(endpoint.requests) == 2


def test_usage_of_the_calls_before_a_failure_is_in_its_end(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(words=(), tool_calls=CALLS), Answer(status=500, headers=NOT_AGAIN))
    end = run(client, graph="tools", message="add")[-1]
    assert (end["event"], end["code"]) == ("error", "model_error")
    assert end["usage"]["test-model"]["output_tokens"] == 4


# -- silence ----------------------------------------------------------------------------------------------------------


def read_until(lines: Iterator[str], event: str) -> list[Frame]:
    """The frames of a stream up to the first of a kind."""
    found: list[Frame] = []
    for line in lines:
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
            if found[-1]["event"] == event:
                return found
    raise AssertionError(f"no {event} came: {events(found)}")


def test_a_call_that_stalls_ends_when_its_run_is_cancelled(client: httpx.Client, endpoint: RunningEndpoint) -> None:
    endpoint.will(Answer(words=["half"], then="stall"))
    with client.stream("POST", "/runs/stream", json={"graph": "chat", "message": "hi"}) as answer:
        lines = answer.iter_lines()
        start, *_, token = read_until(lines, "token")
        row = client.post(f"/runs/{start['run_id']}/cancel", params={"wait": "true"}).json()
        assert row["status"] == "cancelled"
        assert endpoint.left.acquire(timeout=10), "the provider's connection stays open"
        end = read_until(lines, "cancelled")[-1]
    assert (end["reason"], end["partial"]) == ("user", {token["data"]["id"]: "half"})


def test_a_call_that_stalls_is_given_up_after_the_idle_timeout(endpoint: RunningEndpoint, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", endpoint, RUNSTREAM_IDLE_TIMEOUT_SECONDS="2") as server,
        server.client() as client,
    ):
        endpoint.will()
        # importing the client library may take longer than this server has patience
        wait_until(lambda: run(client, graph="chat", message="hi")[-1]["event"] == "complete", "a call that ends")
        endpoint.will(Answer(words=["half"], then="stall"))
        answer = client.post("/runs/stream", json={"graph": "chat", "message": "hi", "thread_id": "t"})
        frames = frames_of(answer.text)
        assert (frames[-1]["event"], frames[-1]["code"], frames[-1]["retryable"]) == ("error", "idle_timeout", True)
        assert list(spoken(frames).values()) == ["half"]
        assert endpoint.left.acquire(timeout=10), "the provider's connection stays open"
        assert client.get(f"/runs/{frames[0]['run_id']}").json()["status"] == "timeout"

        endpoint.will(Answer(words=["mended"]))
        assert list(spoken(run(client, thread_id="t", input=None)).values()) == ["mended"]
