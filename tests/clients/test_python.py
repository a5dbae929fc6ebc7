"""The Python clients, sync and async, against everything that may befall a connection."""

import asyncio

import pytest

from tests.clients.python_player import play, play_async
from tests.clients.scenario import NAMES, SCENARIOS
from tests.clients.stage import Scenario, perform
from tests.server import RunningServer


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_sync_client_stands(scenario: Scenario, server: RunningServer) -> None:
    perform(scenario, play, server)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_async_client_stands(scenario: Scenario, server: RunningServer) -> None:
    perform(scenario, lambda *scene: asyncio.run(play_async(*scene)), server)
