"""The TypeScript client under Node, against everything that may befall a connection."""

import pytest

from tests.clients.scenario import NAMES, SCENARIOS
from tests.clients.stage import Play, Scenario, perform
from tests.server import RunningServer


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_client_stands(scenario: Scenario, server: RunningServer, play_in_node: Play) -> None:
    perform(scenario, play_in_node, server)
