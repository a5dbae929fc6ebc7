"""Two owners, every route, every trick: nothing of somebody else is seen, changed, or known to be there."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.api.test_ws import opened
from tests.raw_client import EVENTSOURCE
from tests.server import RunningServer, frames_of, problem_of, running

KEYS = {"ada": "key-of-ada", "bob": "key-of-bob", "a": "key-of-a", "a/ada": "key-of-a-ada"}
ENV = {"RUNSTREAM_API_KEYS": ",".join(f"{owner}:{key}" for owner, key in KEYS.items())}
UNKNOWN_RUN = str(uuid.uuid4())
UNKNOWN_THREAD = "nobodys"

Case = Mapping[str, Any]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with several owners, the name of one beginning with another's."""
    with running(tmp_path_factory.mktemp("house") / "data", env=ENV) as server:
        yield server


def client_of(house: RunningServer, owner: str) -> httpx.Client:
    return house.client(headers={"X-Api-Key": KEYS[owner]})


@pytest.fixture(scope="module")
def ada(house: RunningServer) -> Iterator[httpx.Client]:
    with client_of(house, "ada") as client:
        yield client


@pytest.fixture(scope="module")
def bob(house: RunningServer) -> Iterator[httpx.Client]:
    with client_of(house, "bob") as client:
        yield client


@dataclass(frozen=True, kw_only=True)
class Victim:
    """What Ada has: a thread that waits for an answer, its run, and a checkpoint."""

    client: httpx.Client = field(repr=False)
    thread_id: str
    run_id: str
    checkpoint_id: str
    interrupt_id: str

    def view(self) -> list[Any]:
        """All that there is to see of it."""
        get = self.client.get
        thread = f"/threads/{self.thread_id}"
        found = [
            get(path) for path in (f"/runs/{self.run_id}", f"/runs/{self.run_id}/events", thread, f"{thread}/state")
        ]
        found += [get(f"{thread}/history", params={"limit": 100}), get("/runs", params={"limit": 1000})]
        found.append(self.client.post("/threads/search", json={"limit": 1000}))
        assert all(answer.status_code == 200 for answer in found)
        return [answer.json() for answer in found]


@pytest.fixture(scope="module")
def victim(ada: httpx.Client) -> Victim:
    thread_id = f"trip-{uuid.uuid4().hex}"
    body = {"graph": "ask", "input": {}, "thread_id": thread_id, "metadata": {"note": "ada's"}}
    run = ada.post("/runs/invoke", json=body, headers={"Idempotency-Key": "one"}).json()
    state = ada.get(f"/threads/{thread_id}/state").json()
    return Victim(
        client=ada,
        thread_id=thread_id,
        run_id=run["run_id"],
        checkpoint_id=state["checkpoint"]["checkpoint_id"],
        interrupt_id=run["interrupts"][0]["id"],
    )


# What is sent to each route of the document that names a run or a thread in its path.
BODIES: Mapping[tuple[str, str], list[Case]] = {
    ("get", "/runs/{run_id}"): [{}],
    ("get", "/runs/{run_id}/stream"): [
        {}, {"headers": {**EVENTSOURCE, "Last-Event-ID": "1"}}, {"params": {"after": "999"}},
    ],
    ("get", "/runs/{run_id}/events"): [{}, {"params": {"after": 999}}, {"params": {"wait_seconds": 1}}],
    ("post", "/runs/{run_id}/cancel"): [{}, {"params": {"wait": "true"}}, {"json": {"keep_partial": True}}],
    ("post", "/runs/{run_id}/token"): [{}],
    ("get", "/threads/{thread_id}"): [{}],
    ("patch", "/threads/{thread_id}"): [{"json": {"metadata": {"owner": "bob"}}}],
    ("delete", "/threads/{thread_id}"): [{}],
    ("post", "/threads/{thread_id}/copy"): [{}],
    ("get", "/threads/{thread_id}/state"): [{}, {"params": {"subgraphs": "true"}}],
    ("post", "/threads/{thread_id}/state"): [
        {"json": {"values": {"answer": "bob"}}}, {"json": {"values": None, "as_node": "x"}},
    ],
    ("get", "/threads/{thread_id}/state/{checkpoint_id}"): [{}],
    ("post", "/threads/{thread_id}/state/checkpoint"): [{"json": {"checkpoint": {"checkpoint_ns": ""}}}],
    ("get", "/threads/{thread_id}/history"): [{}],
    ("post", "/threads/{thread_id}/history"): [{"json": {}}],
    ("get", "/threads/{thread_id}/runs/stream"): [{}, {"headers": {"Last-Event-ID": f"{UNKNOWN_RUN}.1"}}],
    ("post", "/threads/{thread_id}/token"): [{}],
}  # fmt: skip

# What no path shows whose it is: tried below, by tricks of their own.
BY_TRICKS = {
    ("post", "/runs/stream"),
    ("get", "/runs/stream"),
    ("post", "/runs/invoke"),
    ("post", "/runs/token"),
    ("get", "/runs"),
    ("post", "/threads"),
    ("post", "/threads/search"),
    ("post", "/threads/count"),
}
OF_NOBODY = {("get", path) for path in ("/graphs", "/graphs/{name}", "/metrics", "/health", "/ready")}

# Who else one may say that one is.
CLAIMS: list[Case] = [
    {},
    {"headers": {"X-Owner": "ada", "X-Forwarded-User": "ada", "X-User-Id": "ada", "X-Remote-User": "ada"}},
    {"headers": {"Cookie": f"owner=ada; x-api-key={KEYS['ada']}"}},
    {"params": {"owner": "ada", "user_id": "ada", "token": KEYS["ada"], "api_key": KEYS["ada"]}},
    {"headers": {"X-HTTP-Method-Override": "GET", "X-Original-URL": "/health", "X-Rewrite-URL": "/health"}},
]


def test_every_route_of_the_document_has_a_case(ada: httpx.Client) -> None:
    paths = ada.get("/openapi.json").json()["paths"]
    real = {(method, path) for path, item in paths.items() for method in item}

    assert real == {*BODIES, *BY_TRICKS, *OF_NOBODY}


def merged(one: Case, other: Case) -> dict[str, Any]:
    return {
        name: {**one.get(name, {}), **other.get(name, {})} if name != "json" else one["json"] for name in {*one, *other}
    }


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_what_is_somebody_elses_is_not_there(bob: httpx.Client, victim: Victim, method: str, path: str) -> None:
    before = victim.view()
    real = {"run_id": victim.run_id, "thread_id": victim.thread_id, "checkpoint_id": victim.checkpoint_id}
    nobodys = {**real, "run_id": UNKNOWN_RUN, "thread_id": UNKNOWN_THREAD}
    for case in BODIES[method, path]:
        for claim in CLAIMS:
            sent = merged(case, claim)
            foreign = bob.request(method, path.format(**real), **sent)
            unknown = bob.request(method, path.format(**nobodys), **sent)
            problem_of(foreign, 404, foreign.json()["code"])
            assert named(foreign, real) == named(unknown, nobodys), sent
    assert victim.view() == before


def named(answer: httpx.Response, ids: Mapping[str, str]) -> tuple[int, str, list[tuple[str, str]]]:
    """An answer with what ids it has taken out; the length of its body, too."""
    text = answer.text
    for name, value in ids.items():
        text = text.replace(value, name)
    headers = [(name, value) for name, value in answer.headers.items() if name not in ("date", "content-length")]
    return answer.status_code, text, headers


PATHS: list[Callable[[Victim], str]] = [
    lambda victim: f"/runs/ada%2F{victim.run_id}",
    lambda victim: f"/runs/..%2Fada%2F{victim.run_id}",
    lambda victim: f"/threads/ada%2F{victim.thread_id}",
    lambda victim: f"/threads/ada%2F{victim.thread_id}/state",
    lambda victim: f"/threads/x/../{victim.thread_id}/state",
    lambda victim: f"/threads/{victim.thread_id}%00/state",
    lambda victim: f"/runs/{victim.run_id}%20",
    lambda victim: f"//runs/{victim.run_id}",
    lambda victim: f"/runs/{victim.run_id}/",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("owner", ["bob", "a"])
def test_no_spelling_of_a_path_leads_there(
    house: RunningServer, victim: Victim, owner: str, path: Callable[[Victim], str]
) -> None:
    with client_of(house, owner) as client:
        request = client.build_request("GET", "/", extensions={"target": path(victim).encode()})
        answer = client.send(request)
        if answer.status_code == 307:
            answer = client.get(answer.headers["location"])
    assert answer.status_code in (404, 422)
    assert "ada's" not in answer.text


def starts(victim: Victim) -> list[Case]:
    """Bodies of a start that name what is Ada's; each is refused."""
    thread_id, checkpoint_id = victim.thread_id, victim.checkpoint_id
    steps = {"graph": "steps", "input": {}}
    configurables = [
        {"thread_id": thread_id}, {"thread_id": f"ada/{thread_id}"},
        {"checkpoint_ns": "x"}, {"checkpoint_id": checkpoint_id},
        {"checkpoint_map": {"": checkpoint_id}}, {"__pregel_checkpointer": {}}, {"__pregel_resume": True},
        {"langgraph_auth_user": {"identity": "ada"}}, {"langgraph_auth_user_id": "ada"},
    ]  # fmt: skip
    return [
        *({**steps, "config": {"configurable": each}} for each in configurables),
        *({**steps, "thread_id": f"{owner}/{thread_id}"} for owner in ("ada", "..", "")),
        {"thread_id": thread_id, "resume": "bob's"},
        {"thread_id": thread_id, "resume": {victim.interrupt_id: "bob's"}},
        {"thread_id": thread_id, "command": {"resume": "bob's"}},
        {"thread_id": thread_id, "input": {}, "graph": "ask", "if_not_exists": "reject"},
        {**steps, "thread_id": f"bobs-{uuid.uuid4().hex}", "checkpoint_id": checkpoint_id},
        {**steps, "owner": "ada"},
        {**steps, "config": {"owner": "ada"}},
        {**steps, "config": {"thread_id": thread_id}},
        {**steps, "checkpoint": {"thread_id": thread_id, "checkpoint_id": checkpoint_id}},
        {**steps, "run_id": f"ada/{victim.run_id}"},
    ]


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/invoke"])
def test_no_start_gets_at_somebody_elses_thread(bob: httpx.Client, victim: Victim, path: str) -> None:
    before = victim.view()
    for body in starts(victim):
        for claim in CLAIMS:
            answer = bob.post(path, json=body, **claim)
            assert answer.status_code in (404, 422), (body, answer.text)
            assert "ada's" not in answer.text
    assert victim.view() == before


def test_no_event_id_gets_at_somebody_elses_run(house: RunningServer, bob: httpx.Client, victim: Victim) -> None:
    own = bob.post("/runs/invoke", json={"graph": "steps", "input": {}}).json()
    with client_of(house, "a") as a:
        for run_id in (victim.run_id, f"ada/{victim.run_id}", f"../ada/{victim.run_id}", victim.run_id.upper()):
            headers = {**EVENTSOURCE, "Last-Event-ID": f"{run_id}.1"}
            for client in (bob, a):
                assert client.post("/runs/stream", json={}, headers=headers).status_code == 404
                assert client.get("/runs/stream", params={"message": "x"}, headers=headers).status_code == 404
            problem_of(bob.get(f"/runs/{own['run_id']}/stream", headers=headers), 400, "bad_event_id")
            answer = bob.get(f"/threads/{own['thread_id']}/runs/stream", headers=headers)
            assert answer.status_code in (400, 404)


def test_lists_and_searches_show_what_is_ones_own(house: RunningServer, bob: httpx.Client, victim: Victim) -> None:
    thread_id = victim.thread_id
    with client_of(house, "a") as a:
        for client in (bob, a):
            for given in (thread_id, f"ada/{thread_id}", f"../ada/{thread_id}", "%", "*", "ada"):
                assert client.get("/runs", params={"thread_id": given}).json()["runs"] == []
                query = {"ids": [given]}
                assert client.post("/threads/search", json=query).json() == []
                assert client.post("/threads/count", json=query).json() == 0
            for number in range(20):
                runs = client.get("/runs", params={"cursor": number, "limit": 1000}).json()["runs"]
                assert victim.run_id not in [run["run_id"] for run in runs]
            for metadata in ({}, {"note": "ada's"}, {"owner": "ada"}):
                asked = {"metadata": metadata, "limit": 1000}
                assert thread_id not in client.post("/threads/search", json=asked).text


def test_an_owner_whose_name_holds_a_slash_meets_nobody(house: RunningServer, victim: Victim) -> None:
    with client_of(house, "a/ada") as slashed, client_of(house, "a") as a:
        made = slashed.post("/runs/invoke", json={"graph": "steps", "input": {}, "thread_id": "t"}).json()
        assert [run["run_id"] for run in slashed.get("/runs", params={"thread_id": "t"}).json()["runs"]] == [
            made["run_id"]
        ]
        assert slashed.post("/threads/search", json={"ids": ["t"]}).json()[0]["thread_id"] == "t"
        assert slashed.get("/threads/t/state").status_code == 200
        assert a.get("/runs", params={"thread_id": "ada/t"}).json()["runs"] == []
        assert a.post("/runs/stream", json={}, headers={"Last-Event-ID": f"ada/{made['run_id']}.1"}).status_code == 404
        assert slashed.get(f"/runs/{victim.run_id}").status_code == 404


def test_two_owners_use_the_same_ids_and_keys_without_meeting(
    ada: httpx.Client, bob: httpx.Client, victim: Victim
) -> None:
    before = victim.view()
    run_id, key = str(uuid.uuid4()), {"Idempotency-Key": "one"}
    body = {"graph": "ask", "input": {}, "thread_id": victim.thread_id, "metadata": {"note": "bob's"}}

    by_key = bob.post("/runs/invoke", json=body, headers=key).json()
    assert by_key["run_id"] != victim.run_id
    assert bob.post("/runs/invoke", json={"thread_id": victim.thread_id, "resume": "yes"}).json()["status"] == "success"
    assert bob.delete(f"/threads/{victim.thread_id}").status_code == 204
    assert victim.view() == before

    named_body = {"graph": "steps", "input": {}, "run_id": run_id}
    found = [frames_of(client.post("/runs/stream", json=named_body).text) for client in (ada, bob)]
    assert found[0][0]["run_id"] == found[1][0]["run_id"] == run_id
    assert found[0][0]["thread_id"] != found[1][0]["thread_id"]
    assert ada.get(f"/runs/{run_id}").json() != bob.get(f"/runs/{run_id}").json()
    taken = bob.post("/runs/invoke", json={"graph": "steps", "input": {}, "run_id": victim.run_id})
    assert taken.json()["thread_id"] != victim.thread_id


def test_no_message_of_a_socket_gets_at_somebody_elses_run(house: RunningServer, victim: Victim) -> None:
    before = victim.view()
    with opened(house, additional_headers={"X-Api-Key": KEYS["a"]}) as ws:
        for run_id in (victim.run_id, victim.run_id.upper(), f"ada/{victim.run_id}"):
            for kind in ("subscribe_execution", "cancel_run"):
                ws.say(kind, executionId=run_id)
                assert ws.hear()["payload"]["code"] in ("run_not_found", "invalid_request")
        ws.say("start_run", thread_id=victim.thread_id, resume="bob's")
        assert ws.hear()["payload"]["code"] == "thread_not_found"
    assert victim.view() == before
