"""The pages that are shipped, in a browser: the playground, the example, and the EventSource of the guide."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.docs.document import blocks
from tests.e2e import machine
from tests.server import ROOT, RunningServer, running

SECURITY = ROOT / "docs" / "security.md"
KEY = "key-of-ada"
PLAN = "Here is how I would go about"
REPORT = "Approved by everybody, and done: a walk"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For this module only: while Playwright is open, nothing else in the thread can run an event loop."""
    executable = machine.find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The example graphs, for who has a key."""
    env = {"RUNSTREAM_API_KEYS": f"ada:{KEY}", "OPENAI_API_KEY": ""}
    with running(tmp_path_factory.mktemp("keys") / "data", config=ROOT / "langgraph.json", env=env) as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no script fails."""
    context = browser.new_context()
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert failures == []


def begin(page: Page, examples: RunningServer, graph: str, text: str) -> None:
    page.goto(f"{examples.url}/#graph={graph}")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def test_the_playground_goes_from_a_plan_over_questions_to_the_end(page: Page, examples: RunningServer) -> None:
    begin(page, examples, "approval", "a walk")
    expect(page.locator(".node")).to_contain_text(PLAN)
    page.get_by_label("Answer to approve").fill("true")
    page.get_by_role("button", name="Answer").click()
    page.get_by_label("Answer to legal").fill("true")
    page.get_by_label("Answer to finance").fill("yes, up to 40 euros")
    page.get_by_role("button", name="Answer").click()

    expect(page.locator(".run-end").last).to_contain_text("done")
    expect(page.locator("article").last).to_contain_text(REPORT)
    expect(page.locator(".ask")).to_have_count(0)


def test_a_reload_of_the_playground_shows_the_conversation_and_its_questions_again(
    page: Page, examples: RunningServer
) -> None:
    begin(page, examples, "approval", "a walk")
    expect(page.locator(".text").first).to_contain_text("Here")
    page.reload()

    expect(page.locator(".said")).to_have_text("a walk")
    expect(page.locator(".node").first).to_contain_text(PLAN)
    expect(page.get_by_label("Answer to approve")).to_be_visible()


def test_some_of_several_questions_can_be_answered_in_the_playground(page: Page, examples: RunningServer) -> None:
    begin(page, examples, "approval", "a walk")
    page.get_by_label("Answer to approve").fill("yes")
    page.get_by_role("button", name="Answer").click()
    page.get_by_label("Answer to finance").fill("yes")
    page.get_by_role("button", name="Answer").click()

    expect(page.locator("article")).to_have_count(3)
    expect(page.get_by_label("Answer to legal")).to_be_visible()
    expect(page.get_by_label("Answer to finance")).to_have_count(0)


def test_a_run_is_stopped_in_the_playground_and_goes_on_afterwards(page: Page, examples: RunningServer) -> None:
    begin(page, examples, "essay", "tides")
    expect(page.locator(".text").first).to_contain_text("1.")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".run-end")).to_contain_text("stopped (user)")
    page.get_by_role("button", name="Go on").click()

    expect(page.locator(".run-end").last).to_contain_text("done", timeout=30_000)
    expect(page.get_by_role("button", name="Go on")).to_have_count(0)


def test_the_playground_comes_back_after_a_drop_without_a_second_run(page: Page, examples: RunningServer) -> None:
    dropped: list[str] = []

    def drop(route: Route) -> None:
        # the request has reached the server, and its answer never reaches the page
        dropped.append(route.fetch().text())
        route.abort()

    page.route("**/runs/stream", drop, times=1)
    begin(page, examples, "approval", "a walk")

    expect(page.get_by_label("Answer to approve")).to_be_visible()
    expect(page.locator(".node").first).to_contain_text(PLAN)
    expect(page.locator("article")).to_have_count(1)
    assert len(dropped) == 1


def test_a_stream_that_is_cut_in_the_middle_goes_on_in_the_playground_without_a_word_twice(
    page: Page, examples: RunningServer
) -> None:
    def cut(route: Route) -> None:
        response = route.fetch()
        text = response.text()
        route.fulfill(response=response, body=text[: len(text) // 3])

    page.route("**/runs/stream", cut, times=1)
    begin(page, examples, "approval", "a walk")

    expect(page.get_by_label("Answer to approve")).to_be_visible()
    text = page.locator(".node .text").first.inner_text()
    assert (text.count(PLAN), text.count("May I?")) == (1, 1)


def test_the_playground_shows_tool_calls_with_their_results(page: Page, examples: RunningServer) -> None:
    begin(page, examples, "tools", "What is 2 + 3 * 4?")

    expect(page.locator(".tool")).to_contain_text('calculator {"expression":"2 + 3 * 4"} → 14')
    expect(page.locator(".run-end")).to_contain_text("done")


def test_the_example_page_of_another_origin_survives_reloads_from_the_question_to_the_end(
    page: Page, examples: RunningServer, site: str
) -> None:
    page.goto(f"{site}/approval.html?server={examples.url}")
    page.get_by_label("What shall be done?").fill("a walk")
    page.get_by_role("button").click()
    expect(page.locator("#said")).to_contain_text("Here")
    page.reload()
    expect(page.locator("#said")).to_contain_text("May I?")
    page.get_by_label("Shall I go ahead?").fill("yes")
    page.get_by_role("button").click()
    expect(page.get_by_label("Can we afford this?")).to_be_visible()
    page.reload()
    page.get_by_label("Is this allowed?").fill("yes")
    page.get_by_label("Can we afford this?").fill("yes")
    page.get_by_role("button").click()

    expect(page.locator("#status")).to_have_text("Done.")
    expect(page.locator("#said")).to_have_text(REPORT)


def test_the_event_source_of_the_guide_shows_the_words_and_stops_at_the_end(page: Page, asking: RunningServer) -> None:
    (snippet,) = blocks(SECURITY, "js")
    before = run_count(asking)
    page.goto(f"{asking.url}/health")
    page.evaluate("key => sessionStorage.setItem('key', key)", KEY)
    page.evaluate(f"async () => {{ document.body.textContent = ''; {snippet.text}; window.source = source; }}")

    page.wait_for_function("window.source.readyState === EventSource.CLOSED")
    expect(page.locator("body")).to_have_text(
        "You said: “Hello”. I am a scripted model with no opinion of my own, "
        "but I say so word by word, as a real one would."
    )
    assert run_count(asking) == before + 1


def run_count(server: RunningServer) -> int:
    with server.client(headers={"X-Api-Key": KEY}) as client:
        return len(client.get("/runs").json()["runs"])


def test_the_playground_asks_for_a_key_where_the_server_does(page: Page, asking: RunningServer) -> None:
    page.goto(asking.url)
    page.get_by_label("Key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")

    expect(page.locator(".run-end")).to_contain_text("done")


def test_the_description_is_shown_without_other_servers(page: Page, examples: RunningServer) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{examples.url}/docs")

    expect(page.locator("#swagger-ui")).to_contain_text("/runs/{run_id}/stream")
    assert [url for url in asked if not url.startswith((examples.url, "data:"))] == []
