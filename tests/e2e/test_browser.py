"""Headless Chromium: its EventSource and fetch, and `@microsoft/fetch-event-source`, on pages of several origins."""

import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e import machine
from tests.e2e.page_script import EVENT_SOURCE, FETCH, FETCH_EVENT_SOURCE
from tests.e2e.proof import ODD_TEXT, PACED_TEXT, RUNS, assert_whole, runs_of
from tests.e2e.proxy import Cut, CuttingProxy
from tests.e2e.site import Site
from tests.server import RunningServer, events, frames_of, spoken

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For this module only: while Playwright is open, nothing else in the thread can run an event loop."""
    executable = machine.find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def allowed_page(page: Page, allowed_site: Site) -> Page:
    page.goto(allowed_site.origin)
    return page


@pytest.fixture
def foreign_page(page: Page, foreign_site: Site) -> Page:
    page.goto(foreign_site.origin)
    return page


@pytest.fixture
def library(node_script: object) -> None:
    """The client library is among the packages that the Node clients need."""


def stream_url(base: str, **query: str) -> str:
    return f"{base}/runs/stream?{urlencode(query)}"


def post(body: str, **headers: str) -> dict[str, Any]:
    return {"method": "POST", "headers": {"Content-Type": "application/json", **headers}, "body": body}


def count_runs(server: RunningServer) -> int:
    with server.client() as client:
        return len(client.get("/runs", params={"limit": 1000}).json()["runs"])


def test_event_source_of_another_origin_sees_the_run_and_a_204_makes_it_stop(
    server: RunningServer, allowed_page: Page, allowed_site: Site
) -> None:
    with CuttingProxy(server.port) as proxy:
        url = stream_url(proxy.url, graph="talk", message="hi", thread_id="browser-eventsource")
        seen = allowed_page.evaluate(EVENT_SOURCE, url)

    frames = assert_whole(server, seen["texts"])
    assert list(spoken(frames).values()) == [ODD_TEXT]
    assert seen["ids"] == [f"{frames[0]['run_id']}.{frame['seq']}" for frame in frames]
    assert [exchange.status for exchange in proxy.streams] == [200, 204]
    assert proxy.streams[1].headers["last-event-id"] == seen["ids"][-1]
    assert {exchange.headers["origin"] for exchange in proxy.streams} == {allowed_site.origin}
    assert len(runs_of(server, "browser-eventsource")) == 1


def test_event_source_that_is_cut_off_loses_nothing_starts_nothing_and_asks_no_permission(
    server: RunningServer, allowed_page: Page
) -> None:
    thread_id = "browser-cut"
    with CuttingProxy(server.port, [Cut(frames=6, torn_bytes=30), Cut(frames=8, how="reset")]) as proxy:
        url = stream_url(proxy.url, graph="paced", message="hi", thread_id=thread_id)
        seen = allowed_page.evaluate(EVENT_SOURCE, url)

    frames = assert_whole(server, seen["texts"])
    assert list(spoken(frames).values()) == [PACED_TEXT]
    assert [exchange.status for exchange in proxy.streams] == [200, 200, 200, 204]
    assert proxy.preflights == []
    assert len(runs_of(server, thread_id)) == 1


def test_event_source_that_is_cut_off_before_its_first_frame_finds_its_run_by_the_run_id_it_chose(
    server: RunningServer, allowed_page: Page
) -> None:
    run_id = str(uuid.uuid4())
    with CuttingProxy(server.port, [Cut(frames=0)]) as proxy:
        url = stream_url(proxy.url, graph="talk", message="hi", thread_id="browser-early", run_id=run_id)
        seen = allowed_page.evaluate(EVENT_SOURCE, url)

    assert "last-event-id" not in proxy.streams[1].headers
    assert assert_whole(server, seen["texts"])[0]["run_id"] == run_id
    assert len(runs_of(server, "browser-early")) == 1


def test_fetch_and_event_source_of_another_origin_see_every_kind_of_frame(
    server: RunningServer, allowed_page: Page
) -> None:
    locations = []
    for body, kinds in RUNS.values():
        answer = allowed_page.evaluate(FETCH, [f"{server.url}/runs/stream", post(json.dumps(body))])
        frames = assert_whole(server, [block.removeprefix("data: ") for block in answer["text"].split("\n\n")[:-1]])
        assert kinds <= set(events(frames))
        locations.append(server.url + answer["headers"]["location"])

    together = f"urls => Promise.all(urls.map({EVENT_SOURCE}))"
    for (_, kinds), seen in zip(RUNS.values(), allowed_page.evaluate(together, locations), strict=True):
        assert kinds <= set(events(assert_whole(server, seen["texts"])))


def test_a_page_of_an_allowed_origin_reads_where_its_run_is_to_be_found(
    server: RunningServer, allowed_page: Page
) -> None:
    body = '{"graph": "steps", "input": {}, "thread_id": "browser-headers"}'
    answer = allowed_page.evaluate(FETCH, [f"{server.url}/runs/stream", post(body)])

    run_id = frames_of(answer["text"])[0]["run_id"]
    assert answer["headers"]["location"] == f"/runs/{run_id}/stream"
    assert answer["headers"]["content-location"] == f"/threads/browser-headers/runs/{run_id}"


def test_a_page_of_an_allowed_origin_may_send_every_header_that_a_client_needs(
    server: RunningServer, allowed_page: Page
) -> None:
    headers = {
        "Accept": "text/event-stream",
        "Authorization": "Bearer x",
        "X-Api-Key": "x",
        "Idempotency-Key": str(uuid.uuid4()),
        "Cache-Control": "no-cache",
    }
    answer = allowed_page.evaluate(
        FETCH, [f"{server.url}/runs/stream", post('{"graph": "steps", "input": {}}', **headers)]
    )
    started = answer["headers"]
    again = post("{}", **headers, **{"Last-Event-ID": f"{started['location'].split('/')[2]}.1"})
    rest = allowed_page.evaluate(FETCH, [f"{server.url}/runs/stream", again])

    assert (answer["status"], rest["status"]) == (200, 200)
    assert rest["headers"]["location"] == started["location"]


def test_a_page_of_an_allowed_origin_can_read_why_it_was_refused(server: RunningServer, allowed_page: Page) -> None:
    unknown = allowed_page.evaluate(FETCH, [f"{server.url}/runs/stream", post('{"graph": "nope"}')])
    broken = allowed_page.evaluate(FETCH, [f"{server.url}/runs/stream", post("{")])

    assert (unknown["status"], "graph_not_found" in unknown["text"]) == (404, True)
    assert (broken["status"], "errors" in broken["text"]) == (422, True)


def test_event_source_of_an_origin_that_is_not_allowed_is_refused_and_starts_no_run(
    server: RunningServer, foreign_page: Page, foreign_site: Site
) -> None:
    with CuttingProxy(server.port) as proxy:
        url = stream_url(proxy.url, graph="steps", message="hi", thread_id="browser-foreign")
        seen = foreign_page.evaluate(EVENT_SOURCE, url)
        problem = httpx.get(url, headers={"Accept": "text/event-stream", "Origin": foreign_site.origin})

    assert seen == {"texts": [], "ids": [], "opened": 0, "errors": 1}
    assert [exchange.status for exchange in proxy.streams] == [403, 403]
    assert proxy.streams[0].headers["origin"] == foreign_site.origin
    assert (problem.json()["code"], problem.headers["content-type"]) == (
        "origin_not_allowed",
        "application/problem+json",
    )
    assert runs_of(server, "browser-foreign") == []


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (post('{"graph": "steps", "input": {}}'), True),
        # what a form can send without asking: no permission stands in its way, the content type does
        ({"method": "POST", "mode": "no-cors", "body": '{"graph": "steps", "input": {}}'}, False),
        ({"method": "GET", "mode": "no-cors", "headers": {"Accept": "text/event-stream"}}, False),
    ],
    ids=["a POST of JSON", "a POST like a form's", "a GET like an image's"],
)
def test_fetch_of_an_origin_that_is_not_allowed_reads_nothing_and_starts_no_run(
    server: RunningServer, foreign_page: Page, options: dict[str, Any], asked: bool
) -> None:
    before = count_runs(server)
    with CuttingProxy(server.port) as proxy:
        url = proxy.url + "/runs/stream" + ("?graph=steps&message=hi" if options["method"] == "GET" else "")
        answer = foreign_page.evaluate(FETCH, [url, options])

    # an opaque answer has neither status nor text
    assert answer == ({"failed": "TypeError"} if asked else {"status": 0, "headers": {}, "text": ""})
    assert bool(proxy.preflights) is asked
    assert all(exchange.status in (403, 415) for exchange in proxy.streams)
    assert count_runs(server) == before


def test_a_page_of_the_server_s_own_needs_no_permission(server: RunningServer, page: Page) -> None:
    with CuttingProxy(server.port) as proxy:
        page.goto(f"{proxy.url}/")
        url = stream_url("", graph="talk", message="hi", thread_id="browser-own")
        seen = page.evaluate(EVENT_SOURCE, url)
        answer = page.evaluate(FETCH, ["/runs/stream", post('{"graph": "talk", "message": "hi"}')])

    assert list(spoken(assert_whole(server, seen["texts"])).values()) == [ODD_TEXT]
    assert list(spoken(frames_of(answer["text"])).values()) == [ODD_TEXT]
    own, last, posted = proxy.streams
    assert ("origin" in own.headers, "origin" in last.headers) == (False, False)
    # a browser names the origin of every POST, of the server's own pages too
    assert posted.headers["origin"] == proxy.url
    assert proxy.preflights == []


@pytest.mark.usefixtures("library")
def test_fetch_event_source_sees_the_run_and_no_empty_message(server: RunningServer, allowed_page: Page) -> None:
    body = {"graph": "talk", "message": "hi", "thread_id": "library"}
    with CuttingProxy(server.port) as proxy:
        seen = allowed_page.evaluate(FETCH_EVENT_SOURCE, [f"{proxy.url}/runs/stream", body, 0])

    frames = assert_whole(server, seen["texts"])
    assert list(spoken(frames).values()) == [ODD_TEXT]
    assert seen["ids"] == [f"{frames[0]['run_id']}.{frame['seq']}" for frame in frames]
    assert (seen["opened"], seen["errors"], len(proxy.streams)) == ([200], 0, 1)


@pytest.mark.usefixtures("library")
def test_fetch_event_source_is_given_no_message_by_a_heartbeat(
    beating_server: RunningServer, allowed_page: Page
) -> None:
    with CuttingProxy(beating_server.port) as proxy:
        arguments = [f"{proxy.url}/runs/stream", {"graph": "slow_sync", "input": {}}, 0]
        seen = allowed_page.evaluate(FETCH_EVENT_SOURCE, arguments)

    assert b": ping\n" in proxy.streams[0].response
    assert events(assert_whole(beating_server, seen["texts"])) == ["start", "node", "complete"]


@pytest.mark.usefixtures("library")
def test_fetch_event_source_repeats_its_post_after_a_cut_and_starts_nothing(
    server: RunningServer, allowed_page: Page
) -> None:
    thread_id = "library-cut"
    body = {"graph": "paced", "message": "hi", "thread_id": thread_id}
    with CuttingProxy(server.port, [Cut(frames=6, torn_bytes=30), Cut(frames=5, how="reset")]) as proxy:
        seen = allowed_page.evaluate(FETCH_EVENT_SOURCE, [f"{proxy.url}/runs/stream", body, 0])

    assert list(spoken(assert_whole(server, seen["texts"])).values()) == [PACED_TEXT]
    assert (seen["opened"], seen["errors"]) == ([200, 200, 200], 2)
    assert [exchange.method for exchange in proxy.streams] == ["POST"] * 3
    assert len(runs_of(server, thread_id)) == 1


@pytest.mark.usefixtures("library")
def test_fetch_event_source_that_is_cut_off_after_the_last_frame_ends_with_an_empty_answer(
    server: RunningServer, allowed_page: Page
) -> None:
    body = {"graph": "steps", "input": {}, "thread_id": "library-end"}
    with CuttingProxy(server.port, [Cut(frames=5)]) as proxy:
        seen = allowed_page.evaluate(FETCH_EVENT_SOURCE, [f"{proxy.url}/runs/stream", body, 0])

    assert events(assert_whole(server, seen["texts"])) == ["start", "node", "node", "node", "complete"]
    assert (seen["opened"], seen["errors"], len(proxy.streams)) == ([200, 200], 1, 2)
    assert len(runs_of(server, "library-end")) == 1


@pytest.mark.usefixtures("library")
def test_fetch_event_source_in_a_tab_that_comes_back_goes_on_where_it_was(
    server: RunningServer, allowed_page: Page
) -> None:
    body = {"graph": "paced", "message": "hi", "thread_id": "library-tab"}
    with CuttingProxy(server.port) as proxy:
        seen = allowed_page.evaluate(FETCH_EVENT_SOURCE, [f"{proxy.url}/runs/stream", body, 7])

    assert list(spoken(assert_whole(server, seen["texts"])).values()) == [PACED_TEXT]
    assert (seen["opened"], len(proxy.streams)) == ([200, 200], 2)
    assert proxy.streams[1].headers["last-event-id"] in seen["ids"][6:]
    assert len(runs_of(server, "library-tab")) == 1
