"""The TypeScript client in headless Chromium, on a page of another origin than the server's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.clients.scenario import NAMES, SCENARIOS
from tests.clients.site import Site
from tests.clients.stage import Play, Result, Scenario, perform
from tests.e2e import machine
from tests.e2e.test_browser import ARGUMENTS
from tests.server import RunningServer

BLANK = "/tests/clients/blank.html"

# a page's script is stopped after this, since Playwright waits for ever
PLAY = """async scenario => {
  const library = await import('/clients/js/dist/runstream.js');
  const { play } = await import('/tests/clients/player.mjs');
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('nothing for 20 s')), 20000));
  return await Promise.race([play(library, scenario), late]);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For this module only: while Playwright is open, nothing else in the thread can run an event loop."""
    executable = machine.find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, site: Site, js_client: Path) -> Page:
    page = browser.new_page()
    page.goto(site.origin + BLANK)
    return page


@pytest.fixture
def play_in_page(page: Page) -> Play:
    def play(url: str, options: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[Result]:
        results: list[Result] = page.evaluate(PLAY, {"url": url, "options": options, "steps": steps})
        return results

    return play


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_client_stands(scenario: Scenario, server: RunningServer, play_in_page: Play) -> None:
    perform(scenario, play_in_page, server)
