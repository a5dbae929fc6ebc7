"""Coming back to a run: cut connections, late readers, ids and views (wire contract, section 4)."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.raw_client import (
    DIALECTS,
    EVENTSOURCE,
    PLAIN,
    RawExchange,
    data_of,
    ended_run,
    frames_of,
    get,
    id_of,
    new_gate,
    post,
    run_count,
    run_id_of,
    uncut,
    whole,
)
from tests.server import RunningServer, problem_of, running

GATED_FRAMES = 9  # start, six pieces, node, complete


# -- a cut connection -------------------------------------------------------------------------------------------------


def reattached(
    server: RunningServer, route: str, body: dict[str, Any], last_id: str, headers: dict[str, str]
) -> RawExchange:
    """The same request again, as a client makes it after a drop, with the last id that it has seen."""
    run_id, _, seq = last_id.rpartition(".")
    match route:
        case "own url":
            return get(server, f"/runs/{run_id}/stream", {**headers, "Last-Event-ID": last_id})
        case "own url, seq alone":
            return get(server, f"/runs/{run_id}/stream", {**headers, "Last-Event-ID": seq})
        case "own url, after":
            return get(server, f"/runs/{run_id}/stream?after={seq}", headers)
        case "GET":
            return get(server, "/runs/stream?graph=gated&message=unused", {**headers, "Last-Event-ID": last_id})
        case "POST":
            return post(server, body, {**headers, "Last-Event-ID": last_id})
    raise AssertionError(route)


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize(
    ("route", "dialect"),
    [
        ("own url", "eventsource"),
        ("own url", "plain"),
        ("own url, seq alone", "plain"),
        ("own url, after", "plain"),
        ("own url, after", "eventsource"),
        ("GET", "eventsource"),
        ("POST", "eventsource"),
        ("POST", "plain"),
    ],
)
def test_cut_after_every_frame_and_attached_again_a_client_has_the_uncut_stream(
    server: RunningServer, how: str, route: str, dialect: str
) -> None:
    headers = DIALECTS[dialect]
    for seen in range(1, GATED_FRAMES + 1):
        gate = new_gate(server)
        body = {"graph": "gated", "input": {"gate": gate}}
        # the run has told just what the client has seen when it is cut off, so it still runs
        server.open_gate(gate, min(seen - 1, 6))
        with post(server, body, headers) as first:
            first.read_frames(seen)
            assert len(frames_of(first.body)) == seen or seen > 6
            received = b"".join(frames_of(first.body)[:seen])
            first.cut(how)
        last_id = f"{run_id_of(first)}.{data_of(frames_of(received)[-1])['seq']}"
        with reattached(server, route, body, last_id, headers) as second:
            second.read_head()
            server.open_gate(gate, 6)
            second.read_all()
        expected_status = 204 if seen == GATED_FRAMES and route != "POST" else 200
        assert (second.status, second.is_ended) == (expected_status, True)
        assert received + second.body == uncut(server, run_id_of(first), headers)


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_cut_at_any_byte_of_a_frame_a_client_that_attaches_again_misses_and_repeats_nothing(
    server: RunningServer, how: str, dialect: str
) -> None:
    headers = DIALECTS[dialect]
    run_id = ended_run(server, graph="gated", input={"gate": new_gate(server, 6)})
    everything = uncut(server, run_id, headers)
    first_two = sum(len(frame) for frame in frames_of(everything)[:2])
    for length in range(1, first_two + 2, 3):
        with get(server, f"/runs/{run_id}/stream", headers) as first:
            received = first.read_until(lambda body, length=length: len(body) >= length).body[:length]  # type: ignore[misc]
            first.cut(how)
        kept = whole(received)
        seq = data_of(frames_of(kept)[-1])["seq"] if kept else 0
        with get(server, f"/runs/{run_id}/stream", {**headers, "Last-Event-ID": f"{run_id}.{seq}"}) as second:
            assert kept + second.read_all().body == everything


def test_a_parser_that_takes_an_id_at_its_line_loses_no_frame_when_cut_at_any_byte(server: RunningServer) -> None:
    run_id = ended_run(server, graph="gated", input={"gate": new_gate(server, 6)})
    everything = uncut(server, run_id, EVENTSOURCE)
    rest_after = rests(everything)
    told = [data_of(frame)["seq"] for frame in frames_of(everything)]
    for length in range(len(everything) + 1):
        lines = everything[:length].decode(errors="replace").split("\n")[:-1]
        data = [line for line in lines if line.startswith("data: ")]
        ids = [line for line in lines if line.startswith("id: ")]
        seq = int(ids[-1].rpartition(".")[2]) if ids else 0
        # the frame whose id has come is complete: its data has come before
        assert len(data) >= seq
        assert [*told[:seq], *(data_of(frame)["seq"] for frame in frames_of(rest_after[seq]))] == told


def rests(everything: bytes) -> list[bytes]:
    """What follows the first n frames, for each n."""
    frames = frames_of(everything)
    return [b"".join(frames[count:]) for count in range(len(frames) + 1)]


@pytest.mark.parametrize("database_url", ["", "memory:"], ids=["sqlite", "memory"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_twenty_readers_at_once_early_late_and_after_the_end_get_the_same_bytes(
    server: RunningServer, memory_server: RunningServer, dialect: str, database_url: str
) -> None:
    on = memory_server if database_url else server
    gate, headers = new_gate(on), DIALECTS[dialect]
    first = post(on, {"graph": "gated", "input": {"gate": gate}}, headers)
    run_id = run_id_of(first.read_frames(1))
    readers = [first]
    for level in range(1, 7):
        readers += [get(on, f"/runs/{run_id}/stream", headers).read_head() for _ in range(3)]
        on.open_gate(gate, level)
        readers[-1].read_frames(level)
    readers.append(get(on, f"/runs/{run_id}/stream", headers))
    bodies = [reader.read_all().body for reader in readers]
    for reader in readers:
        reader.cut("FIN")
    assert len(bodies) == 20
    assert set(bodies) == {uncut(on, run_id, headers)}
    assert len(frames_of(bodies[0])) == GATED_FRAMES


@pytest.fixture(scope="module")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("memory") / "data", env={"RUNSTREAM_DATABASE_URL": "memory:"}) as server:
        yield server


@pytest.mark.parametrize("graph", ["steps", "ask", "fails"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_client_that_has_it_all_gets_204_from_a_get_and_an_empty_stream_from_a_post(
    server: RunningServer, graph: str, dialect: str
) -> None:
    headers = DIALECTS[dialect]
    run_id = ended_run(server, graph=graph, input={})
    last = len(frames_of(uncut(server, run_id, headers)))
    gets = [
        (f"/runs/{run_id}/stream", f"{run_id}.{last}"),
        (f"/runs/{run_id}/stream", str(last)),
        (f"/runs/{run_id}/stream?after={last}", None),
    ]
    if dialect == "eventsource":
        gets.append((f"/runs/stream?graph={graph}&message=x", f"{run_id}.{last}"))
    for path, last_id in gets:
        with get(server, path, {**headers, **({"Last-Event-ID": last_id} if last_id else {})}) as exchange:
            exchange.read_all()
        assert (exchange.status, exchange.body) == (204, b"")
    with post(server, {"graph": graph, "input": {}}, {**headers, "Last-Event-ID": f"{run_id}.{last}"}) as exchange:
        exchange.read_all()
    assert (exchange.status, exchange.body, exchange.is_ended) == (200, b"", True)
    assert exchange.headers["content-type"] == "text/event-stream"


def test_attaching_again_executes_nothing(server: RunningServer) -> None:
    run_id = ended_run(server, graph="steps", input={})
    mark, runs = len(server.trace()), run_count(server)
    for last in ("0", "1", "5"):
        with post(server, {"graph": "steps", "input": {}}, {"Last-Event-ID": f"{run_id}.{last}"}) as exchange:
            exchange.read_all()
        with get(server, "/runs/stream?graph=steps", {**EVENTSOURCE, "Last-Event-ID": f"{run_id}.{last}"}) as exchange:
            exchange.read_all()
    assert server.trace()[mark:] == []
    assert run_count(server) == runs


def test_a_post_that_names_its_run_is_attached_again_whatever_the_case_of_the_uuid(server: RunningServer) -> None:
    run_id = str(uuid.uuid4()).upper()
    body = {"graph": "steps", "input": {}, "run_id": run_id}
    with post(server, body, EVENTSOURCE) as first:
        everything = first.read_all().body
    last_id = id_of(frames_of(everything)[1])
    assert last_id is not None
    with post(server, body, {**EVENTSOURCE, "Last-Event-ID": last_id}) as second:
        assert b"".join(frames_of(everything)[:2]) + second.read_all().body == everything


# -- ids --------------------------------------------------------------------------------------------------------------

MALFORMED = ["x", "-1", "1.5.x", "{run}.", "{run}.-1", "{run}", ".3", "99999999999999999999"]


@pytest.mark.parametrize("last_id", MALFORMED)
def test_a_malformed_id_is_refused_everywhere_and_starts_nothing(
    server: RunningServer, client: httpx.Client, last_id: str
) -> None:
    run_id = ended_run(server, graph="steps", input={})
    header = {"Last-Event-ID": last_id.format(run=run_id)}
    runs = run_count(server)
    problem_of(client.get(f"/runs/{run_id}/stream", headers=header), 400, "bad_event_id")
    after = {"after": last_id.format(run=run_id)}
    problem_of(client.get(f"/runs/{run_id}/stream", params=after), 400, "bad_event_id")
    problem_of(client.get("/runs/stream?graph=steps", headers={**EVENTSOURCE, **header}), 400, "bad_event_id")
    problem_of(client.post("/runs/stream", json={"graph": "steps", "input": {}}, headers=header), 400, "bad_event_id")
    assert run_count(server) == runs


def test_an_id_of_another_run_is_refused_on_a_runs_own_url(server: RunningServer, client: httpx.Client) -> None:
    run_id, other_id = ended_run(server, graph="steps", input={}), ended_run(server, graph="steps", input={})
    header = {"Last-Event-ID": f"{other_id}.2"}
    problem_of(client.get(f"/runs/{run_id}/stream", headers=header), 400, "bad_event_id")
    body = {"graph": "steps", "input": {}, "run_id": run_id}
    problem_of(client.post("/runs/stream", json=body, headers=header), 400, "bad_event_id")


def test_a_seq_alone_names_no_run_where_the_url_does_not(server: RunningServer, client: httpx.Client) -> None:
    header = {"Last-Event-ID": "2"}
    problem_of(client.post("/runs/stream", json={"graph": "steps", "input": {}}, headers=header), 400, "bad_event_id")
    problem_of(client.get("/runs/stream?graph=steps", headers={**EVENTSOURCE, **header}), 400, "bad_event_id")


def test_an_unknown_run_is_not_found(client: httpx.Client) -> None:
    unknown = str(uuid.uuid4())
    header = {"Last-Event-ID": f"{unknown}.2"}
    problem_of(client.get(f"/runs/{unknown}/stream"), 404, "run_not_found")
    problem_of(client.get(f"/runs/{unknown}/stream", headers=header), 404, "run_not_found")
    problem_of(client.post("/runs/stream", json={"graph": "steps", "input": {}}, headers=header), 404, "run_not_found")
    problem_of(client.get("/runs/stream?graph=steps", headers={**EVENTSOURCE, **header}), 404, "run_not_found")


def answer_to(exchange: RawExchange) -> httpx.Response:
    """The answer, without its body when that is a stream, which may have no end."""
    with exchange:
        exchange.read_head()
        if exchange.headers.get("content-type") != "text/event-stream":
            exchange.read_all()
    return httpx.Response(exchange.status, headers=exchange.headers, content=exchange.body)


def test_an_id_beyond_the_end_of_the_log_is_refused_of_a_running_run_and_of_an_ended_one(
    server: RunningServer, client: httpx.Client
) -> None:
    gate = new_gate(server)
    with post(server, {"graph": "gated", "input": {"gate": gate}}) as running_run:
        run_id = run_id_of(running_run.read_frames(1))
        for _ in range(2):
            last = client.get(f"/runs/{run_id}").json()["last_seq"]
            for place in (last + 1, 2**62):
                header = {"Last-Event-ID": f"{run_id}.{place}"}
                for asked in (
                    get(server, f"/runs/{run_id}/stream", header),
                    get(server, f"/runs/{run_id}/stream?after={place}"),
                    get(server, "/runs/stream", {**EVENTSOURCE, **header}),
                    post(server, {}, header),
                ):
                    assert problem_of(answer_to(asked), 409, "event_id_ahead")["last_seq"] == last
            server.open_gate(gate, 6)
            running_run.read_all()


def test_the_header_wins_over_the_query_since_an_event_source_repeats_its_url(server: RunningServer) -> None:
    run_id = ended_run(server, graph="steps", input={})
    everything = frames_of(uncut(server, run_id, EVENTSOURCE))
    with get(server, f"/runs/{run_id}/stream?after=1", {**EVENTSOURCE, "Last-Event-ID": f"{run_id}.3"}) as exchange:
        assert exchange.read_all().body == b"".join(everything[3:])


def test_an_empty_header_counts_as_none(server: RunningServer) -> None:
    run_id = ended_run(server, graph="steps", input={})
    with get(server, f"/runs/{run_id}/stream", {"Last-Event-ID": ""}) as exchange:
        assert exchange.read_all().body == uncut(server, run_id, PLAIN)


# -- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("stream_mode=updates", {"node"}),
        ("stream_mode=messages", {"token"}),
        ("stream_mode=updates&stream_mode=messages", {"node", "token"}),
        ("stream_mode=updates,messages", {"node", "token"}),
        ("stream_mode=", set()),
        ("stream_mode=custom", set()),
        ("", {"node", "token"}),
    ],
)
def test_a_reader_may_ask_for_fewer_modes_and_gets_the_same_frames_less(
    server: RunningServer, query: str, kinds: set[str]
) -> None:
    run_id = ended_run(server, graph="talk", message="hi")
    everything = frames_of(uncut(server, run_id, EVENTSOURCE))
    expected = [frame for frame in everything if data_of(frame)["event"] in kinds | {"start", "complete"}]
    with get(server, f"/runs/{run_id}/stream?{query}", EVENTSOURCE) as exchange:
        assert exchange.read_all().body == b"".join(expected)
    for seen in range(1, len(expected)):
        last_id = id_of(expected[seen - 1])
        with get(server, f"/runs/{run_id}/stream?{query}", {**EVENTSOURCE, "Last-Event-ID": str(last_id)}) as exchange:
            assert exchange.read_all().body == b"".join(expected[seen:])


@pytest.mark.parametrize("query", ["stream_mode=values", "stream_mode=updates,values", "stream_mode=nonsense"])
def test_a_mode_that_was_not_recorded_is_refused(server: RunningServer, client: httpx.Client, query: str) -> None:
    run_id = ended_run(server, graph="talk", message="hi")
    found = problem_of(client.get(f"/runs/{run_id}/stream?{query}"), 422, "mode_not_recorded")
    assert found["recorded"] == ["updates", "messages", "custom"]


def test_a_reader_may_leave_subgraphs_out_and_cannot_ask_for_them_afterwards(
    server: RunningServer, client: httpx.Client
) -> None:
    with_children = ended_run(server, graph="below", message="hi", subgraphs=True)
    everything = frames_of(uncut(server, with_children, PLAIN))
    nested = [frame for frame in everything if "ns" in data_of(frame)]
    assert nested
    for query, expected in (
        ("subgraphs=true", everything),
        ("subgraphs=false", [f for f in everything if f not in nested]),
    ):
        with get(server, f"/runs/{with_children}/stream?{query}") as exchange:
            assert exchange.read_all().body == b"".join(expected)
    without = ended_run(server, graph="below", message="hi")
    problem_of(client.get(f"/runs/{without}/stream?subgraphs=true"), 422, "not_supported")
    with get(server, f"/runs/{without}/stream?subgraphs=false") as exchange:
        assert exchange.read_all().body == uncut(server, without, PLAIN)
