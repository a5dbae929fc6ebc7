"""The pages to start from: examples/chat.html in Chromium; the Streamlit sketch as far as it goes without Streamlit."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import runstream_client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.clients.site import ROOT, Site
from tests.e2e import machine
from tests.e2e.proxy import Cut, CuttingProxy
from tests.e2e.test_browser import ARGUMENTS
from tests.server import RunningServer, wait_until


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For this module only: while Playwright is open, nothing else in the thread can run an event loop."""
    executable = machine.find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, js_client: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 720, "height": 480})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert problems == []


def conversation(page: Page, server: RunningServer) -> list[str]:
    """What is in the state of the page's thread, once it has a run."""
    thread_id = page.evaluate("JSON.parse(sessionStorage.getItem('chat') ?? '{}').thread")
    if thread_id is None:
        return []
    with server.client() as client:
        values = client.get(f"/threads/{thread_id}/state").json()["values"]
    return [message["content"] for message in values.get("messages", [])]


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def see_all(page: Page, server: RunningServer, count: int) -> None:
    """The page shows the conversation, so many messages of it, and waits for the next."""
    wait_until(lambda: len(conversation(page, server)) == count, f"{count} messages")
    expect(page.locator("#log p")).to_have_text(conversation(page, server))
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.locator("#status")).to_be_empty()


def test_the_chat_survives_a_cut_and_a_reload(page: Page, site: Site, example_server: RunningServer) -> None:
    with CuttingProxy(example_server.port, [Cut(frames=4, torn_bytes=20)]) as proxy:
        page.goto(f"{site.origin}/examples/chat.html?server={proxy.url}")
        say(page, "What do the tides do?")
        see_all(page, example_server, 2)
        assert len(proxy.streams) == 2

        say(page, "And the moon?")
        expect(page.locator("#log p")).to_have_count(4)
        page.reload()
        see_all(page, example_server, 4)


def test_the_chat_keeps_what_was_said_before_it_was_stopped(
    page: Page, site: Site, example_server: RunningServer, tmp_path: Path
) -> None:
    page.goto(f"{site.origin}/examples/chat.html?graph=essay&server={example_server.url}")
    paragraphs, status = page.locator("#log p"), page.locator("#status")
    say(page, "tides")
    paragraphs.nth(1).wait_for()
    page.get_by_role("button", name="Stop").click()
    expect(status).to_have_text("Stopped.")
    texts = paragraphs.all_inner_texts()
    page.screenshot(path=tmp_path / "chat.png")
    assert conversation(page, example_server) == texts

    page.reload()
    expect(status).to_have_text("Stopped.")
    assert paragraphs.all_inner_texts() == texts


def test_the_chat_asks_what_a_graph_asks(page: Page, site: Site, example_server: RunningServer) -> None:
    page.goto(f"{site.origin}/examples/chat.html?graph=approval&server={example_server.url}")
    paragraphs = page.locator("#log p")
    say(page, "a walk to the lighthouse")
    expect(paragraphs.last).to_have_text("Shall I go ahead?")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    say(page, "no")
    expect(paragraphs.last).to_contain_text("Nothing was done.")


def test_the_chat_says_what_is_wrong(page: Page, site: Site, example_server: RunningServer) -> None:
    page.goto(f"{site.origin}/examples/chat.html?graph=nope&server={example_server.url}")
    say(page, "hello")
    expect(page.locator("#status")).to_have_text("No graph is named 'nope'.")


def test_the_streamlit_sketch_uses_what_the_client_has() -> None:
    tree = ast.parse((ROOT / "examples" / "streamlit_chat.py").read_text())
    [names] = [
        [alias.name for alias in node.names]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "runstream_client"
    ]
    assert names
    assert all(hasattr(runstream_client, name) for name in names)
