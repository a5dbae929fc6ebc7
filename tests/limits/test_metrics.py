"""/metrics, and what it must not say."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Tally
from tests.docs.document import section
from tests.raw_client import RawExchange, new_gate
from tests.server import ROOT, RunningServer, run, running, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("metrics") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """A sample of /metrics; 0 when there is none yet."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == f"runstream_{name}" and sample.labels == labels:
                return sample.value
    return 0.0


def test_a_run_is_counted_when_it_begins_and_ends_with_its_wait_its_tokens_and_its_appends(
    client: httpx.Client,
) -> None:
    names = ("queue_wait_seconds_count", "append_events_sum", "append_seconds_count")
    before = {name: value(client, name) for name in names}

    frames = run(client, graph="brisk", message="hi")

    assert value(client, "runs_started_total", graph="brisk") == 1
    assert value(client, "runs_ended_total", graph="brisk", status="success") == 1
    assert value(client, "first_token_seconds_count", graph="brisk") == 1
    assert value(client, "token_gap_seconds_count", graph="brisk") >= 1
    assert value(client, "queue_wait_seconds_count") == before["queue_wait_seconds_count"] + 1
    # the start is written by the acceptance, and the end with what is left by the end's own transaction
    assert 1 <= value(client, "append_events_sum") - before["append_events_sum"] <= len(frames) - 2


def test_a_tally_says_what_the_clients_own_histogram_does() -> None:
    values, buckets = (0.0, 0.1, 0.2, 0.25, 7, 1e9), (0.1, 0.25, 1)
    for label in (None, "graph"):
        tally = Tally("some_seconds", "Some.", label, buckets)
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        ours.register(tally)
        histogram = Histogram("some_seconds", "Some.", [label] if label else [], buckets=buckets, registry=theirs)
        for value in values:
            tally.observe(value, 'a "name"' if label else "")
            (histogram.labels('a "name"') if label else histogram).observe(value)
        expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
        assert generate_latest(ours).decode().splitlines() == expected


def test_a_run_that_fails_or_is_stopped_is_counted_with_why(server: RunningServer, client: httpx.Client) -> None:
    run(client, graph="fails", input={"log": []})
    assert value(client, "runs_failed_total", graph="fails", code="graph_error") == 1

    body = {"graph": "gated", "input": {"gate": new_gate(server)}}
    with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
        exchange.read_frames(1)
        run_id = exchange.headers["location"].split("/")[2]
        client.post(f"/runs/{run_id}/cancel?wait=true", json={})
    assert value(client, "runs_cancelled_total", reason="user") == 1
    assert value(client, "runs_ended_total", graph="gated", status="cancelled") == 1


def test_a_refused_request_is_counted_by_its_code(client: httpx.Client) -> None:
    client.post("/runs/stream", json={"graph": "nowhere"})
    client.post("/runs/stream", content=b"x" * 2_000_000, headers={"content-type": "application/json"})
    assert value(client, "refused_requests_total", code="graph_not_found") == 1
    assert value(client, "refused_requests_total", code="body_too_large") == 1


def test_a_reader_that_does_not_read_is_seen_to_be_behind(server: RunningServer, client: httpx.Client) -> None:
    body = {"graph": "burst", "message": "100000", "on_disconnect": "continue"}
    exchange = RawExchange(server.port, "POST", "/runs/stream", json_body=body, receive_buffer_bytes=4096)
    with exchange:
        exchange.read_head()
        wait_until(lambda: value(client, "reader_lag_events") > 1000, "the reader is behind", 60)
    wait_until(lambda: value(client, "readers") == 0, "the reader has left")
    assert value(client, "reader_lag_events") == 0


def test_a_run_that_is_taken_up_is_counted(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        body = {"graph": "slow", "input": {"log": []}}
        with RawExchange(server.port, "POST", "/runs/stream", json_body=body) as exchange:
            exchange.read_frames(1)
        server.kill()
    with running(tmp_path / "data") as server, server.client() as client:
        wait_until(lambda: value(client, "recoveries_total", reason="crash") == 1, "the run is taken up")


def test_no_id_of_a_run_a_thread_or_an_owner_is_a_label(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("labels") / "data") as server, server.client() as client:
        thread_id = str(uuid.uuid4())
        (start, *_) = run(client, graph="talk", message="my secret", thread_id=thread_id)
        client.get(f"/runs/{uuid.uuid4()}")
        text = client.get("/metrics").text
    for secret in (thread_id, start["run_id"], "my secret"):
        assert secret not in text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", text)


def names_of_metrics(text: str) -> set[str]:
    """The names that may stand in a query: those of the samples, whether there are any yet or not."""
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    types = re.findall(r"^# TYPE (runstream_\w+) (\w+)$", text, re.MULTILINE)
    return {name + ending for name, kind in types if not name.endswith("_created") for ending in endings[kind]}


def test_the_dashboard_and_the_page_name_exactly_the_metrics_that_there_are(client: httpx.Client) -> None:
    real = names_of_metrics(client.get("/metrics").text)

    shown = set(re.findall(r"runstream_\w+", (ROOT / "deploy" / "grafana.json").read_text()))
    assert shown <= real
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in real}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == bases
    table = section(ROOT / "docs" / "deployment.md", "### Metrics")
    assert set(re.findall(r"`(runstream_\w+)`", table)) == bases


def test_the_dashboard_has_a_query_in_each_panel_and_fits_the_grid() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]

    assert all(target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
