"""Token policies over real sockets: joined by count and by time, filtered, resumed (wire contract, section 4)."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.raw_client import EVENTSOURCE, RawExchange, data_of, frames_of, get, id_of, new_gate, post, run_id_of
from tests.server import RunningServer, events, problem_of, run, spoken, wait_until
from tests.streaming.serving import serving

MINUTE = {"flush": {"ms": 60_000}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("policy") / "data", env={"RUNSTREAM_HEARTBEAT_SECONDS": "0.2"}) as server:
        yield server


def read(server: RunningServer, run_id: str, tokens: Any = None, after: int = 0) -> list[dict[str, Any]]:
    """The frames of a run as a reader with this policy gets them; nothing when it has them all."""
    query = f"after={after}" + ("" if tokens is None else f"&tokens={quote(json.dumps(tokens))}")
    with get(server, f"/runs/{run_id}/stream?{query}") as exchange:
        return [data_of(frame) for frame in frames_of(exchange.read_all().body)]


def tokens_of(exchange: RawExchange) -> list[str]:
    frames = [data_of(frame) for frame in frames_of(exchange.body)]
    return [frame["data"]["content"] for frame in frames if frame["event"] == "token"]


POLICIES: list[dict[str, Any]] = [
    {"flush": "each"},
    {"flush": {"count": 2}},
    {"flush": {"count": 3}, "exclude_whitespace": True},
    {"flush": {"count": 2}, "nodes": ["draft", "sum"]},
    {"tags": ["loud"]},
    {"exclude_tags": ["quiet"], "pattern": "[a-z]"},
    {"min_length": 4},
]


@pytest.mark.parametrize("tokens", POLICIES, ids=json.dumps)
def test_a_reader_with_a_policy_who_comes_back_after_any_frame_gets_the_rest_of_the_uncut_stream(
    server: RunningServer, client: httpx.Client, tokens: dict[str, Any]
) -> None:
    run_id = run(client, graph="duet", message="hi")[0]["run_id"]
    uncut = read(server, run_id, tokens)
    assert events(uncut)[-1] == "complete"
    for number, frame in enumerate(uncut, 1):
        assert read(server, run_id, tokens, after=frame["seq"]) == uncut[number:]


def test_the_policy_of_a_start_is_that_of_its_stream_and_of_every_reader_that_names_none(
    server: RunningServer, client: httpx.Client
) -> None:
    started = run(client, graph="talk", message="hi", tokens={"flush": {"count": 1000}})
    assert events(started) == ["start", "token", "node", "complete"]
    run_id = started[0]["run_id"]
    assert read(server, run_id) == started
    each = read(server, run_id, {"flush": "each"})
    assert events(each).count("token") == 10
    assert spoken(each) == spoken(started)


def test_a_filter_leaves_other_events_and_the_log_as_they_are(server: RunningServer, client: httpx.Client) -> None:
    started = run(client, graph="duet", message="hi", tokens={"nodes": ["sum"]})
    assert {frame["node"] for frame in started if frame["event"] == "token"} == {"sum"}
    assert events(started).count("node") == 3
    page = client.get(f"/runs/{started[0]['run_id']}/events").json()["events"]
    assert [frame["seq"] for frame in page] == list(range(1, len(page) + 1))
    assert len(spoken(page)) == 3


def test_what_a_registration_hides_no_policy_brings_back(server: RunningServer, client: httpx.Client) -> None:
    started = run(client, graph="duet_quiet", message="hi", tokens={"tags": ["quiet", "loud"]})
    assert {frame["node"] for frame in started if frame["event"] == "token"} == {"draft"}
    again = read(server, started[0]["run_id"], {"nodes": ["review", "sum"]})
    assert {frame["node"] for frame in again if frame["event"] == "token"} == {"sum"}


def test_a_policy_fits_a_query(server: RunningServer) -> None:
    tokens = quote(json.dumps({"flush": {"count": 100}}))
    with get(server, f"/runs/stream?graph=talk&message=hi&tokens={tokens}", EVENTSOURCE) as exchange:
        frames = frames_of(exchange.read_all().body)
    (token,) = [frame for frame in frames if data_of(frame)["event"] == "token"]
    assert id_of(token) == f"{run_id_of(exchange)}.{data_of(token)['seq']}"
    assert data_of(token)["seq"] == 11


@pytest.mark.parametrize("tokens", [{"flush": "now"}, {"unknown": 1}, {"pattern": "["}, 5], ids=json.dumps)
def test_a_policy_that_is_none_is_refused_before_anything_runs(
    server: RunningServer, client: httpx.Client, tokens: Any
) -> None:
    run_id = run(client, graph="talk", message="hi")[0]["run_id"]
    before = server.trace()
    problem_of(
        client.post("/runs/stream", json={"graph": "talk", "message": "hi", "tokens": tokens}), 422, "invalid_request"
    )
    asked = client.get(f"/runs/{run_id}/stream", params={"tokens": json.dumps(tokens)})
    problem_of(asked, 422, "invalid_request")
    problem_of(client.get(f"/runs/{run_id}/stream", params={"tokens": "{"}), 422, "invalid_request")
    assert server.trace() == before


# -- by time ----------------------------------------------------------------------------------------------------------


def test_what_was_collected_goes_out_when_it_is_due_although_the_model_says_no_more(server: RunningServer) -> None:
    gate = new_gate(server, 2)
    body = {"graph": "stalls", "input": {"gate": gate, "messages": []}, "tokens": {"flush": {"ms": 300}}}
    with post(server, body) as exchange:
        exchange.read_until(lambda _: "two " in "".join(tokens_of(exchange)))
        server.open_gate(gate, 3)
        exchange.read_all()
        assert "".join(tokens_of(exchange)) == "one two three "
        assert exchange.is_ended


def test_what_was_collected_goes_out_at_once_when_the_message_ends_whatever_the_time(server: RunningServer) -> None:
    gate = new_gate(server)
    body = {"graph": "recites", "input": {"gate": gate, "count": 20}, "tokens": MINUTE}
    with post(server, body) as exchange:
        exchange.read_frames(2)  # a read that waits for the minute fails by its timeout
        assert tokens_of(exchange) == ["".join(f"w{n} " for n in range(20))]
        server.open_gate(gate, 1)
        exchange.read_all()


def test_what_was_collected_goes_out_when_the_run_is_stopped_in_mid_message(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = new_gate(server, 2)
    mark = len(server.trace())
    with post(server, {"graph": "stalls", "input": {"gate": gate, "messages": []}, "tokens": MINUTE}) as exchange:
        exchange.read_frames(1)
        wait_until(lambda: "stall" in server.trace()[mark:], "the model is asked")
        run_id = run_id_of(exchange)
        wait_until(lambda: client.get(f"/runs/{run_id}").json()["last_seq"] >= 3, "two words are in the log")
        client.post(f"/runs/{run_id}/cancel", params={"wait": True})
        exchange.read_all()
        assert tokens_of(exchange) == ["one two "]
        end = data_of(frames_of(exchange.body)[-1])
        assert list(end["partial"].values()) == ["one two "]


@pytest.mark.parametrize(("tokens", "shown"), [(MINUTE, ["one two three "]), ({"nodes": []}, [])], ids=json.dumps)
def test_while_tokens_are_collected_or_left_out_heartbeats_still_come(
    server: RunningServer, tokens: dict[str, Any], shown: list[str]
) -> None:
    gate = new_gate(server, 2)
    with post(server, {"graph": "stalls", "input": {"gate": gate, "messages": []}, "tokens": tokens}) as exchange:
        exchange.read_until(lambda body: body.count(b": ping\n\n") >= 3)
        assert tokens_of(exchange) == []
        server.open_gate(gate, 3)
        exchange.read_all()
        assert tokens_of(exchange) == shown
