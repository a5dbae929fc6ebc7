"""What the API says of itself is true: requests made from its description, right and wrong ones, get the answers that
it declares, and never a 500 (schemathesis, seeded).

Some of each operation in the suite, as many as RUNSTREAM_EXAMPLES says (1,000) with RUNSTREAM_LONG_TESTS=1.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy, booleans, one_of
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from tests.server import RunningServer, running

IS_LONG: Final = os.environ.get("RUNSTREAM_LONG_TESTS") == "1"
EXAMPLES: Final = int(os.environ.get("RUNSTREAM_EXAMPLES", "1000" if IS_LONG else "25"))

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# a thread that exists is followed without an end
SCHEMA: Final = schemathesis.openapi.from_dict(create_app(Settings()).openapi()).exclude(
    path="/threads/{thread_id}/runs/stream"
)
OPERATIONS: Final = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
KNOWN: Final = {"thread_id": "known", "run_id": "00000000-0000-4000-8000-000000000001", "name": "steps"}
TAKE_ANYTHING: Final = {"GET /health", "GET /ready", "GET /metrics", "GET /graphs"}  # there is nothing to get wrong


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Runs that nobody reads end soon, and no answer takes long."""
    env = {"RUNSTREAM_DISCONNECT_GRACE_SECONDS": "1", "RUNSTREAM_MAX_TIMEOUT_SECONDS": "5"}
    with running(tmp_path_factory.mktemp("schema") / "data", env=env) as server:
        ids = {"thread_id": KNOWN["thread_id"], "run_id": KNOWN["run_id"]}
        with server.client() as client:
            assert client.post("/runs/invoke", json={"graph": "ask", "input": {}, **ids}).status_code == 200
        yield server


def requests_of(label: str) -> SearchStrategy[Case[Any]]:
    """Right ones, and wrong ones where there can be any."""
    operation = OPERATIONS[label]
    modes = [GenerationMode.POSITIVE] if label in TAKE_ANYTHING else list(GenerationMode)
    return one_of(*(operation.as_strategy(mode) for mode in modes))


# not schemathesis' own parametrize: all its tests have one name, and pytest-xdist would run the first of them alone
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_those_that_the_document_declares(label: str, server: RunningServer) -> None:
    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=requests_of(label), is_known=booleans())
    def check(case: Case[Any], is_known: bool) -> None:
        if is_known and case.meta is not None and case.meta.generation.mode.is_positive and case.method != "DELETE":
            case.path_parameters.update({name: KNOWN[name] for name in case.path_parameters if name in KNOWN})
        answer = case.call(base_url=server.url, timeout=60)
        case.validate_response(answer, checks=CHECKS)

    check()


def test_nothing_of_it_was_a_bug(server: RunningServer) -> None:
    assert "Exception in ASGI application" not in server.log
