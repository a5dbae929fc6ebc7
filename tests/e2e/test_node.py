"""Clients in Node: a fetch loop by hand, and the `eventsource` package."""

import uuid
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import RunScript
from tests.e2e.proof import ODD_TEXT, PACED_TEXT, RUNS, assert_whole, runs_of
from tests.e2e.proxy import Cut, CuttingProxy
from tests.server import RunningServer, events, spoken


@pytest.mark.parametrize("name", RUNS)
def test_a_fetch_loop_by_hand_sees_every_kind_of_frame(
    server: RunningServer, node_script: RunScript, name: str
) -> None:
    body, kinds = RUNS[name]
    seen = node_script("fetch_loop.mjs", url=server.url, body=body)

    assert seen["others"] == []
    assert kinds <= set(events(assert_whole(server, seen["texts"])))


def test_a_fetch_loop_by_hand_hears_what_the_model_says(server: RunningServer, node_script: RunScript) -> None:
    seen = node_script("fetch_loop.mjs", url=server.url, body={"graph": "talk", "message": "hi"})

    assert list(spoken(assert_whole(server, seen["texts"])).values()) == [ODD_TEXT]


def test_a_fetch_loop_by_hand_sees_heartbeats_as_blocks_without_data(
    beating_server: RunningServer, node_script: RunScript
) -> None:
    seen = node_script("fetch_loop.mjs", url=beating_server.url, body={"graph": "slow_sync", "input": {}})

    assert set(seen["others"]) == {": ping"}
    assert events(assert_whole(beating_server, seen["texts"])) == ["start", "node", "complete"]


def test_a_fetch_loop_by_hand_goes_on_after_each_cut_and_is_told_that_it_has_it_all(
    server: RunningServer, node_script: RunScript
) -> None:
    body = {"graph": "paced", "message": "hi", "thread_id": "fetch-cut"}
    cuts = [Cut(frames=4), Cut(frames=3, torn_bytes=20, how="reset"), Cut(frames=1, torn_bytes=5)]
    with CuttingProxy(server.port, cuts) as proxy:
        seen = node_script("fetch_loop.mjs", url=proxy.url, body=body, attempts=9)

    assert seen["statuses"] == [200, 200, 200, 200, 204]
    assert [exchange.method for exchange in proxy.streams] == ["POST", "GET", "GET", "GET", "GET"]
    assert list(spoken(assert_whole(server, seen["texts"])).values()) == [PACED_TEXT]
    assert len(runs_of(server, "fetch-cut")) == 1


def event_source_url(base: str, **query: str) -> str:
    return f"{base}/runs/stream?{urlencode(query)}"


def test_eventsource_sees_the_run_and_a_204_makes_it_stop(server: RunningServer, node_script: RunScript) -> None:
    with CuttingProxy(server.port) as proxy:
        url = event_source_url(proxy.url, graph="talk", message="hi", thread_id="node-eventsource")
        seen = node_script("eventsource.mjs", url=url)

    frames = assert_whole(server, seen["texts"])
    assert list(spoken(frames).values()) == [ODD_TEXT]
    assert seen["code"] == 204
    assert [exchange.status for exchange in proxy.streams] == [200, 204]
    assert proxy.streams[1].headers["last-event-id"] == f"{frames[0]['run_id']}.{frames[-1]['seq']}"
    assert len(runs_of(server, "node-eventsource")) == 1


def test_eventsource_that_is_cut_off_loses_nothing_and_starts_nothing(
    server: RunningServer, node_script: RunScript
) -> None:
    thread_id = "node-cut"
    with CuttingProxy(server.port, [Cut(frames=6, torn_bytes=30), Cut(frames=8, how="reset")]) as proxy:
        url = event_source_url(proxy.url, graph="paced", message="hi", thread_id=thread_id)
        seen = node_script("eventsource.mjs", url=url)

    frames = assert_whole(server, seen["texts"])
    assert list(spoken(frames).values()) == [PACED_TEXT]
    assert seen["ids"] == [f"{frames[0]['run_id']}.{frame['seq']}" for frame in frames]
    assert [exchange.status for exchange in proxy.streams] == [200, 200, 200, 204]
    assert len(runs_of(server, thread_id)) == 1


def test_eventsource_is_shown_an_error_as_a_frame_and_no_error_of_its_own(
    server: RunningServer, node_script: RunScript
) -> None:
    with server.client() as client:
        started = client.post("/runs/stream", json={"graph": "fails", "input": {}})
    url = server.url + started.headers["location"]
    seen = node_script("eventsource.mjs", url=url)

    assert events(assert_whole(server, seen["texts"]))[-1] == "error"
    assert seen["code"] == 204


def test_eventsource_of_a_run_that_does_not_exist_stops_at_once(server: RunningServer, node_script: RunScript) -> None:
    with CuttingProxy(server.port) as proxy:
        seen = node_script("eventsource.mjs", url=f"{proxy.url}/runs/{uuid.uuid4()}/stream")

    assert seen == {"texts": [], "ids": [], "opened": 0, "code": 404}
    assert len(proxy.streams) == 1
