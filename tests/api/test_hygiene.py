"""What is nobody's business: in pages, in logs, in descriptions, across origins, and in the database."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from app.log import JsonFormatter, TextFormatter
from app.main import ALLOWED_HEADERS, EXPOSED_HEADERS
from app.settings import Settings
from tests.api.test_access import outcome
from tests.api.test_ws import opened
from tests.model_endpoint import API_KEY, Answer, model_endpoint
from tests.server import ROOT, RunningServer, frames_of, running, wait_until

ORIGIN = "https://shop.example"
KEY = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {KEY}"}
SAID = "hush-7f3a"  # short: the library of sockets logs the ends of long texts alone
ANSWERED = "mute-9c1e"
SECRETS = {
    "RUNSTREAM_STREAM_TOKEN_SECRET": "a-secret-for-streams-of-32-characters",
    "RUNSTREAM_METRICS_TOKEN": "a-token-for-metrics",
}


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that logs whatever it can, with a real model client."""
    env = {"RUNSTREAM_API_KEYS": f"ada:{KEY}", "RUNSTREAM_CORS_ORIGINS": ORIGIN, **SECRETS}
    with model_endpoint() as endpoint:
        endpoint.answer_always = Answer(words=[ANSWERED])
        data = tmp_path_factory.mktemp("loud") / "data"
        config, arguments = ROOT / "langgraph.json", ["--log-level", "debug"]
        with running(data, config=config, env={**endpoint.env, **env}, arguments=arguments) as server:
            yield server


@pytest.fixture(scope="module")
def client(loud: RunningServer) -> Iterator[httpx.Client]:
    with loud.client() as client:
        yield client


# -- logs -------------------------------------------------------------------------------------------------------------


def test_at_debug_no_key_no_token_and_nothing_that_was_said_is_logged(
    loud: RunningServer, client: httpx.Client
) -> None:
    frames = frames_of(client.post("/runs/stream", json={"graph": "chat", "message": SAID}, headers=BEARER).text)
    assert ANSWERED in str(frames)
    token = client.post(f"/runs/{frames[0]['run_id']}/token", headers=BEARER).json()["token"]
    path = f"/runs/{frames[0]['run_id']}/stream"
    assert client.get(path, params={"token": token}).status_code == 200
    assert client.get(path, headers={"Authorization": "Bearer wrong-key-of-somebody"}).status_code == 401
    with opened(loud) as ws:
        ws.say("authenticate", token=KEY)
        ws.hear()
        ws.start(graph="chat", message=SAID)
        ws.hear_to("complete")
    with connect(f"ws://127.0.0.1:{loud.port}/ws?token={KEY}", proxy=None):
        wait_until(lambda: "/ws?token=[hidden]" in loud.log, "the last socket is logged")

    hidden = [KEY, API_KEY, SAID, ANSWERED, token, "wrong-key-of-somebody", *SECRETS.values()]
    assert [secret for secret in hidden if secret in loud.log] == []


@pytest.mark.parametrize("text", [
    "Authorization: Bearer {}", "{{'authorization': 'Bearer {}'}}", "GET /ws?token={}&a=b", "x-api-key: {}", "key={}",
    '"api_key": "{}"', "password={}", "token = {}",
])  # fmt: skip
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(text: str, formatter: logging.Formatter) -> None:
    shown = text.format(KEY)
    try:
        raise ValueError(shown)
    except ValueError as error:
        about = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "said %s", (shown,), about)

    assert KEY not in formatter.format(record)
    assert formatter.format(record).count("[hidden]") == 2


def test_what_the_environment_calls_a_secret_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODYS_API_KEY", "plain-words-are-a-key")
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "it was plain-words-are-a-key, run 5 token: 7", (), None)

    assert TextFormatter().format(record).endswith("it was [hidden], run 5 token: 7")


def test_settings_show_no_secret() -> None:
    given: dict[str, Any] = {name.removeprefix("RUNSTREAM_").lower(): value for name, value in SECRETS.items()}
    settings = Settings(_env_file=None, **given)

    assert [secret for secret in SECRETS.values() if secret in f"{settings!r} {settings.model_dump()}"] == []


def test_no_description_metric_or_problem_has_a_secret(client: httpx.Client) -> None:
    metrics = {"Authorization": f"Bearer {SECRETS['RUNSTREAM_METRICS_TOKEN']}"}
    shown = [client.get(path, headers=BEARER).text for path in ("/openapi.json", "/ready", "/nope", "/graphs")]
    shown += [client.get("/metrics", headers=metrics).text, client.post("/runs/stream", headers=BEARER).text]

    assert [secret for secret in (KEY, API_KEY, *SECRETS.values()) if secret in "".join(shown)] == []


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_runs_its_own_scripts_alone_and_is_in_nobodys_frame(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]

    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", answer.text) == []


def test_what_the_description_loads_is_served_here(client: httpx.Client) -> None:
    names = re.findall(r"docs/[\w.-]+", client.get("/docs").text)

    assert names == ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js"]
    assert all(len(client.get(f"/{name}").content) > 10_000 for name in names)
    assert client.get("/docs/__init__.py", headers=BEARER).status_code == 404
    assert client.get("/redoc", headers=BEARER).status_code == 404


# -- other origins ----------------------------------------------------------------------------------------------------


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ", ".join(ALLOWED_HEADERS)}
    return client.options("/runs/stream", headers={"Origin": origin, **asked})


def test_a_page_of_an_allowed_origin_may_call_and_read_what_it_needs(client: httpx.Client) -> None:
    asked = preflight(client, ORIGIN)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    allowed = {name.strip().lower() for name in asked.headers["access-control-allow-headers"].split(",")}
    assert set(ALLOWED_HEADERS) <= allowed
    assert "access-control-allow-credentials" not in asked.headers

    for headers in (BEARER, {}):
        answer = client.get("/runs", headers={"Origin": ORIGIN, **headers})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"].lower()
        assert {name.strip() for name in exposed.split(",")} == set(EXPOSED_HEADERS)


def test_a_page_of_another_origin_may_not(client: httpx.Client) -> None:
    assert preflight(client, "https://evil.example").status_code == 400
    for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example"):
        answer = client.get("/runs", headers={"Origin": origin, **BEARER})
        assert "access-control-allow-origin" not in answer.headers


# -- the database -----------------------------------------------------------------------------------------------------


def test_a_server_that_could_run_code_of_its_database_does_not_start(tmp_path: Path) -> None:
    code, said = outcome(tmp_path / "data", "127.0.0.1", LANGGRAPH_STRICT_MSGPACK="false")

    assert code == 1
    assert said.startswith("LANGGRAPH_STRICT_MSGPACK must be true")
    assert json.dumps(said).count("Traceback") == 0
