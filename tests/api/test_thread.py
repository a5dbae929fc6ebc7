"""LangGraph's thread calls, in the whole application over both stores, and through LangGraph's own client."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import ConflictError, NotFoundError

from app.api.body import DEFAULT_MODES, parse_body
from app.api.context import Context
from app.errors import ThreadBusy
from app.main import create_app
from app.runs.model import Run
from app.runs.threads import Edit, Update
from app.settings import Settings
from tests.server import PROJECT, RunningServer, problem_of

Json = dict[str, Any]


class Talk:
    """A client of the application in this process, and the context behind it."""

    def __init__(self, http: httpx.AsyncClient, context: Context) -> None:
        self.http = http
        self.context = context

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, method: str, path: str, status: int, code: str, body: Any = None, **query: Any) -> Json:
        return problem_of(await self.http.request(method, path, json=body, params=query), status, code)

    async def run(self, graph: str | None, thread_id: str, **body: Any) -> Json:
        """A run to its end or pause."""
        action = body or {"input": {}}
        answer = await self.http.post("/runs/invoke", json={"graph": graph, "thread_id": thread_id, **action})
        outcome: Json = answer.json()
        return outcome

    async def start(self, graph: str, thread_id: str) -> Run:
        """A run that goes on in the background."""
        body = parse_body({"graph": graph, "thread_id": thread_id, "input": {}})
        asked = body.to_request(owner="", key=None, fingerprint=thread_id, default_modes=DEFAULT_MODES)
        return (await self.context.runs.start(asked)).run

    async def cancel(self, run: Run) -> None:
        await self.context.runs.cancel("", run.run_id, wait=True)

    async def ids(self, **body: Any) -> list[str]:
        return [thread["thread_id"] for thread in await self.post("/threads/search", **body)]


Story = Callable[[Talk], Awaitable[None]]
Play = Callable[[Story], None]


@pytest.fixture(params=["memory", "sqlite"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    settings = Settings(
        _env_file=None,
        config=PROJECT,
        data_dir=tmp_path / "data",
        database_url="memory:" if request.param == "memory" else "",
    )

    async def told(story: Story) -> None:
        app = create_app(settings)
        transport = httpx.ASGITransport(app=app)
        async with (
            asyncio.timeout(30),
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        ):
            await story(Talk(http, app.state.context))

    return lambda story: asyncio.run(told(story))


NOWHERE = "/threads/nowhere"


# -- rows -------------------------------------------------------------------------------------------------------


def test_a_new_thread_has_the_form_that_langgraph_gives_it(play: Play) -> None:
    async def story(talk: Talk) -> None:
        thread = await talk.post("/threads", metadata={"title": "A walk"}, ttl={"ttl": 5}, unknown=1)
        uuid.UUID(thread["thread_id"])
        assert thread["created_at"] == thread["updated_at"]
        del thread["created_at"], thread["updated_at"]
        assert thread == {
            "thread_id": thread["thread_id"],
            "metadata": {"title": "A walk"},
            "status": "idle",
            "config": {},
            "values": None,
            "interrupts": {},
            "error": None,
        }
        assert (await talk.get(f"/threads/{thread['thread_id']}", include="ttl"))["metadata"] == {"title": "A walk"}

    play(story)


def test_an_id_that_is_taken_is_a_conflict_unless_the_client_says_otherwise(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="trip", metadata={"a": 1})
        await talk.refused("POST", "/threads", 409, "thread_exists", {"thread_id": "trip"})
        await talk.refused("POST", "/threads", 409, "thread_exists", {"thread_id": "trip", "if_exists": "raise"})
        kept = await talk.post("/threads", thread_id="trip", metadata={"a": 2}, if_exists="do_nothing")
        assert kept["metadata"] == {"a": 1}
        await talk.run("steps", "ran")
        await talk.refused("POST", "/threads", 409, "thread_exists", {"thread_id": "ran"})

    play(story)


def test_a_thread_made_for_a_graph_runs_that_one(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="named", graph="ask")
        await talk.post("/threads", thread_id="meant", metadata={"graph_id": "ask"})
        await talk.post("/threads", thread_id="elsewhere", metadata={"graph_id": "a graph of another server"})
        for thread_id in ("named", "meant"):
            assert (await talk.run(None, thread_id))["status"] == "interrupted"
            body = {"graph": "steps", "thread_id": thread_id}
            await talk.refused("POST", "/runs/invoke", 409, "graph_mismatch", body)
        assert (await talk.run("steps", "elsewhere"))["status"] == "success"
        await talk.refused("POST", "/threads", 404, "graph_not_found", {"graph": "nothing"})

    play(story)


def test_supersteps_make_the_first_state_of_a_thread_or_no_thread(play: Play) -> None:
    async def story(talk: Talk) -> None:
        steps = [
            {"updates": [{"values": {"log": []}, "command": None, "as_node": "__input__"}]},
            {"updates": [{"values": {"log": ["a"]}, "command": None, "as_node": "__start__"}]},
            {"updates": [{"values": {"log": ["b"]}, "command": None, "as_node": "one"}]},
        ]
        made = await talk.post("/threads", thread_id="trip", graph="steps", supersteps=steps)
        assert (made["values"]["log"], made["status"]) == (["a", "b"], "idle")
        assert (await talk.get("/threads/trip/state"))["next"] == ["two"]
        assert (await talk.run(None, "trip", input=None))["output"]["log"] == ["a", "b", "two", "three"]

        steps.append({"updates": [{"values": {"log": 5}, "as_node": "two"}]})
        body = {"thread_id": "none", "graph": "steps", "supersteps": steps}
        await talk.refused("POST", "/threads", 422, "invalid_request", body)
        await talk.refused("GET", "/threads/none", 404, "thread_not_found")
        assert await talk.post("/threads", thread_id="none")

    play(story)


@pytest.mark.parametrize(
    "body",
    [
        {"thread_id": "a/b"},
        {"thread_id": ".."},
        {"thread_id": "x" * 256},
        {"thread_id": 7},
        {"metadata": "text"},
        {"if_exists": "overwrite"},
        {"supersteps": [{"updates": []}]},
    ],
)
def test_a_thread_that_can_not_be_is_refused_with_the_place_of_the_mistake(play: Play, body: Json) -> None:
    async def story(talk: Talk) -> None:
        problem = await talk.refused("POST", "/threads", 422, "invalid_request", body)
        assert problem["errors"][0]["loc"][:2] == ["body", next(iter(body))]

    play(story)


UNKNOWN: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("PATCH", "", {"metadata": {}}),
    ("DELETE", "", None),
    ("POST", "/copy", None),
    ("GET", "/state", None),
    ("GET", "/state/1ef00000-0000-6000-8000-000000000000", None),
    ("POST", "/state", {"values": {}}),
    ("POST", "/state/checkpoint", {"checkpoint": {}}),
    ("GET", "/history", None),
    ("POST", "/history", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN)
def test_an_unknown_thread_is_not_found_and_an_impossible_id_invalid(
    play: Play, method: str, path: str, body: Any
) -> None:
    async def story(talk: Talk) -> None:
        await talk.refused(method, NOWHERE + path, 404, "thread_not_found", body)
        problem = await talk.refused(method, "/threads/no%20where" + path, 422, "invalid_request", body)
        assert problem["errors"][0]["loc"] == ["path", "thread_id"]

    play(story)


def test_a_thread_shows_the_values_and_the_questions_of_its_newest_state(play: Play) -> None:
    async def story(talk: Talk) -> None:
        outcome = await talk.run("ask", "trip")
        thread = await talk.get("/threads/trip")
        assert thread["status"] == "interrupted"
        assert thread["values"]["log"] == ["before"]
        ((task_id, (asked,)),) = thread["interrupts"].items()
        state = await talk.get("/threads/trip/state")
        assert task_id == state["tasks"][0]["id"]
        assert asked["id"] == outcome["interrupts"][0]["id"]
        assert asked["value"] == outcome["interrupts"][0]["value"]
        await talk.run(None, "trip", resume="yes")
        thread = await talk.get("/threads/trip")
        assert (thread["status"], thread["interrupts"]) == ("idle", {})

    play(story)


def test_metadata_are_merged_and_the_servers_own_keys_are_hidden(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="trip", metadata={"a": 1, "b": 1})
        answer = await talk.http.patch("/threads/trip", json={"metadata": {"b": 2, "c": [3]}})
        assert answer.json()["metadata"] == {"a": 1, "b": 2, "c": [3]}
        quiet = await talk.http.patch(
            "/threads/trip", json={"metadata": {"runstream_x": 1}}, headers={"Prefer": "return=minimal"}
        )
        assert (quiet.status_code, quiet.content) == (204, b"")
        assert (await talk.get("/threads/trip"))["metadata"] == {"a": 1, "b": 2, "c": [3]}
        await talk.run("steps", "ran")
        for state in await talk.get("/threads/ran/history"):
            assert state["metadata"]["source"] in ("input", "loop")
            assert not [key for key in state["metadata"] if key.startswith("runstream_")]

    play(story)


# -- search and count -------------------------------------------------------------------------------------------


def test_search_finds_by_status_metadata_and_id_in_the_order_asked(play: Play) -> None:
    async def story(talk: Talk) -> None:
        for number, thread_id in enumerate(("c", "a", "b")):
            await talk.post("/threads", thread_id=thread_id, metadata={"number": number, "kind": "new"})
        await talk.run("ask", "d")
        assert await talk.ids() == ["d", "b", "a", "c"]
        assert await talk.ids(status="interrupted") == ["d"]
        assert await talk.ids(metadata={"kind": "new", "number": 1}) == ["a"]
        assert await talk.ids(ids=["a", "d", "nowhere"]) == ["d", "a"]
        assert await talk.ids(sort_by="thread_id", sort_order="asc") == ["a", "b", "c", "d"]
        assert await talk.ids(sort_by="thread_id", limit=2, offset=1) == ["c", "b"]
        assert (await talk.ids(sort_by="state_updated_at"))[0] == "d"

    play(story)


def test_count_is_a_bare_number(play: Play) -> None:
    async def story(talk: Talk) -> None:
        assert await talk.post("/threads/count") == 0
        for number in range(12):
            await talk.post("/threads", metadata={"even": number % 2 == 0})
        assert await talk.post("/threads/count") == 12
        assert await talk.post("/threads/count", metadata={"even": True}) == 6
        assert await talk.post("/threads/count", status="busy") == 0

    play(story)


def test_search_gives_each_thread_its_state_or_only_what_is_selected(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "one")
        await talk.run("steps", "two")
        await talk.post("/threads", thread_id="three")
        found = {thread["thread_id"]: thread for thread in await talk.post("/threads/search")}
        assert found["one"]["values"]["log"] == ["before"]
        assert len(found["one"]["interrupts"]) == 1
        assert found["two"]["values"]["log"] == ["one", "two", "three"]
        assert found["three"]["values"] is None
        few = await talk.post("/threads/search", select=["thread_id", "status"], sort_by="thread_id", sort_order="asc")
        assert few[0] == {"thread_id": "one", "status": "interrupted"}
        values = await talk.post("/threads/search", select=["values"], ids=["two"])
        assert values == [{"values": found["two"]["values"]}]

    play(story)


def test_search_extracts_values_by_path(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("steps", "trip")
        await talk.http.patch("/threads/trip", json={"metadata": {"a": {"b": 1}}})
        paths = {"last": "values.log[-1]", "b": "metadata.a.b", "none": "values.log[9]", "odd": "values.log.key"}
        (found,) = await talk.post("/threads/search", extract=paths, select=["thread_id"])
        assert found == {"thread_id": "trip", "extracted": {"last": "three", "b": 1, "none": None, "odd": None}}

    play(story)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"limit": 0}, "invalid_request"),
        ({"limit": 1001}, "invalid_request"),
        ({"limit": "many"}, "invalid_request"),
        ({"offset": -1}, "invalid_request"),
        ({"offset": 2**63}, "invalid_request"),
        ({"status": "tired"}, "invalid_request"),
        ({"sort_by": "colour"}, "invalid_request"),
        ({"sort_order": "up"}, "invalid_request"),
        ({"select": ["secrets"]}, "invalid_request"),
        ({"extract": {"a": "error.args"}}, "invalid_request"),
        ({"extract": {str(n): "values.a" for n in range(11)}}, "invalid_request"),
        ({"metadata": []}, "invalid_request"),
        ({"values": {"a": 1}}, "not_supported"),
    ],
)
def test_a_search_that_can_not_be_is_refused(play: Play, body: Json, code: str) -> None:
    async def story(talk: Talk) -> None:
        problem = await talk.refused("POST", "/threads/search", 422, code, body)
        assert problem["errors"][0]["loc"][:2] == ["body", next(iter(body))]

    play(story)


# -- delete and copy --------------------------------------------------------------------------------------------


def test_a_deleted_thread_leaves_nothing_and_its_id_is_free(play: Play) -> None:
    async def story(talk: Talk) -> None:
        outcome = await talk.run("ask", "trip")
        checkpoint_id = (await talk.get("/threads/trip/state"))["checkpoint"]["checkpoint_id"]
        answer = await talk.http.delete("/threads/trip")
        assert (answer.status_code, answer.content) == (204, b"")
        await talk.refused("GET", "/threads/trip", 404, "thread_not_found")
        await talk.refused("DELETE", "/threads/trip", 404, "thread_not_found")
        await talk.refused("GET", f"/runs/{outcome['run_id']}", 404, "run_not_found")
        again = await talk.run("steps", "trip")
        assert again["output"]["log"] == ["one", "two", "three"]
        await talk.refused("GET", f"/threads/trip/state/{checkpoint_id}", 404, "checkpoint_not_found")

    play(story)


def test_a_busy_thread_is_neither_deleted_nor_edited_but_can_be_read_and_copied(play: Play) -> None:
    async def story(talk: Talk) -> None:
        run = await talk.start("slow", "trip")
        for method, path, body in (("DELETE", "", None), ("POST", "/state", {"values": {"log": ["edited"]}})):
            problem = await talk.refused(method, "/threads/trip" + path, 409, "thread_busy", body)
            assert problem["run_id"] == run.run_id
        assert (await talk.get("/threads/trip"))["status"] == "busy"
        copied = await talk.post("/threads/trip/copy")
        assert copied["status"] == "idle"
        await talk.cancel(run)
        assert (await talk.http.delete("/threads/trip")).status_code == 204
        assert (await talk.get(f"/threads/{copied['thread_id']}"))["status"] == "idle"

    play(story)


def test_a_copy_has_the_state_and_the_pause_of_its_source_and_goes_its_own_way(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="trip", metadata={"title": "A walk"})
        await talk.run("ask", "trip")
        copied = await talk.post("/threads/trip/copy")
        assert copied["thread_id"] != "trip"
        assert (copied["status"], copied["metadata"]) == ("interrupted", {"title": "A walk"})
        assert copied["values"]["log"] == ["before"]
        for path in ("/state", "/history"):
            assert len(await talk.get(f"/threads/trip{path}")) == len(
                await talk.get(f"/threads/{copied['thread_id']}{path}")
            )
        answered = await talk.run(None, copied["thread_id"], resume="yes")
        assert answered["status"] == "success"
        assert (await talk.get("/threads/trip"))["status"] == "interrupted"

    play(story)


# -- state ------------------------------------------------------------------------------------------------------


def test_the_state_is_read_now_at_a_checkpoint_and_in_parts(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        state = await talk.get("/threads/trip/state")
        assert state["next"] == ["question"]
        assert state["checkpoint"]["thread_id"] == "trip"
        assert state["parent_checkpoint"]["checkpoint_id"] == state["parent_checkpoint_id"]
        assert [i["id"] for i in state["interrupts"]] == [i["id"] for i in state["tasks"][0]["interrupts"]]
        parent = await talk.get(f"/threads/trip/state/{state['parent_checkpoint_id']}")
        assert parent["next"] == ["before"]
        assert parent == await talk.post("/threads/trip/state/checkpoint", checkpoint=state["parent_checkpoint"])
        parts = await talk.get("/threads/trip/state", select=["next", "values.log"])
        assert parts == {"next": ["question"], "values": {"log": ["before"]}}

    play(story)


def test_a_thread_that_never_ran_has_an_empty_state(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="trip")
        state = await talk.get("/threads/trip/state")
        assert (state["values"], state["next"], state["created_at"]) == ({}, [], None)
        assert await talk.get("/threads/trip/history") == []
        await talk.refused("GET", "/threads/trip/state/x", 404, "checkpoint_not_found")

    play(story)


def test_the_state_of_a_subgraph_is_nested_on_request_and_found_by_its_namespace(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask_below", "trip")
        (task,) = (await talk.get("/threads/trip/state"))["tasks"]
        assert task["state"] is None
        (nested,) = (await talk.get("/threads/trip/state", subgraphs="true"))["tasks"]
        assert nested["state"]["next"] == ["inner"]
        inner = await talk.post("/threads/trip/state/checkpoint", checkpoint=task["checkpoint"])
        assert inner["next"] == ["inner"]
        assert inner["checkpoint"]["checkpoint_ns"] == task["checkpoint"]["checkpoint_ns"]
        history = await talk.post("/threads/trip/history", checkpoint=task["checkpoint"])
        assert history[0]["checkpoint"] == inner["checkpoint"]
        at = {**inner["checkpoint"], "checkpoint_id": "1ef00000-0000-6000-8000-000000000000"}
        await talk.refused("POST", "/threads/trip/state/checkpoint", 404, "checkpoint_not_found", {"checkpoint": at})

    play(story)


def test_what_an_exception_says_is_in_no_state(play: Play) -> None:
    async def story(talk: Talk) -> None:
        assert (await talk.run("fails", "trip"))["code"] == "graph_error"
        for path in ("", "/state", "/history"):
            answer = await talk.http.get(f"/threads/trip{path}", params={"subgraphs": "true"})
            assert answer.status_code == 200
            assert "hunter2" not in answer.text
        (task,) = (await talk.get("/threads/trip/state"))["tasks"]
        assert task["error"]
        assert (await talk.get("/threads/trip"))["status"] == "error"

    play(story)


def test_history_is_newest_first_and_begins_where_it_is_told_to(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("steps", "trip")
        everything = await talk.get("/threads/trip/history")
        steps = [state["metadata"]["step"] for state in everything]
        assert steps == sorted(steps, reverse=True)
        assert len(steps) == 5
        assert await talk.get("/threads/trip/history", limit=2) == everything[:2]
        second = everything[1]["checkpoint"]
        for before in (second["checkpoint_id"], second, {"configurable": second}):
            assert await talk.post("/threads/trip/history", before=before, limit=2) == everything[2:4]
        assert await talk.get("/threads/trip/history", before=second["checkpoint_id"]) == everything[2:]
        assert await talk.post("/threads/trip/history", metadata={"step": 1}) == [everything[2]]
        few = await talk.post("/threads/trip/history", select=["next"])
        assert few[0] == {"next": []}
        impossible: list[Json] = [
            {"limit": 0},
            {"limit": 1001},
            {"before": {}},
            {"before": 7},
            {"metadata": {"a'b": 1}},
        ]
        for body in impossible:
            await talk.refused("POST", "/threads/trip/history", 422, "invalid_request", body)
        await talk.refused("GET", "/threads/trip/history", 422, "invalid_request", limit=0)

    play(story)


# -- edits ------------------------------------------------------------------------------------------------------


def test_an_edited_paused_thread_stays_paused_and_is_resumed(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        made = await talk.post("/threads/trip/state", values={"log": ["edited"]})
        assert made["checkpoint"] == made["configurable"]
        state = await talk.get("/threads/trip/state")
        assert state["checkpoint"] == made["checkpoint"]
        assert state["checkpoint"]["checkpoint_id"] == made["checkpoint_id"]
        assert state["metadata"]["source"] == "update"
        assert state["next"] == ["question"]
        assert (await talk.get("/threads/trip"))["status"] == "interrupted"
        outcome = await talk.run(None, "trip", resume="yes")
        assert outcome["status"] == "success"
        assert outcome["output"]["log"][:2] == ["before", "edited"]
        assert outcome["output"]["answer"] == "yes"

    play(story)


def test_an_edit_as_the_asking_node_answers_for_it_and_one_as_the_last_node_ends_the_pause(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        await talk.post("/threads/trip/state", values={"answer": "mine"}, as_node="question")
        assert (await talk.get("/threads/trip/state"))["next"] == ["after"]
        assert (await talk.get("/threads/trip"))["status"] == "interrupted"
        await talk.post("/threads/trip/state", values=None, as_node="after")
        thread = await talk.get("/threads/trip")
        assert (thread["status"], thread["values"]["answer"]) == ("idle", "mine")
        await talk.refused("POST", "/runs/invoke", 409, "nothing_to_resume", {"thread_id": "trip", "resume": 1})

    play(story)


def test_messages_in_an_edit_go_through_the_reducer(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        await talk.post("/threads/trip/state", values={"messages": [{"role": "user", "content": "hello"}]})
        (message,) = (await talk.get("/threads/trip/state"))["values"]["messages"]
        assert (message["type"], message["content"]) == ("human", "hello")
        assert message["id"]

    play(story)


def test_an_edit_at_a_checkpoint_branches_off_there(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("steps", "trip")
        history = await talk.get("/threads/trip/history")
        base = next(state["checkpoint"] for state in history if state["next"] == ["three"])
        for body in ({"checkpoint_id": base["checkpoint_id"]}, {"checkpoint": base}):
            await talk.post("/threads/trip/state", values={"log": ["branch"]}, **body)
            state = await talk.get("/threads/trip/state")
            assert state["parent_checkpoint"]["checkpoint_id"] == base["checkpoint_id"]
            assert state["values"]["log"] == ["one", "two", "branch"]
            assert state["next"] == ["three"]
        assert (await talk.get("/threads/trip"))["status"] == "idle"
        outcome = await talk.run(None, "trip", input=None)
        assert outcome["output"]["log"] == ["one", "two", "branch", "three"]

    play(story)


def test_a_branch_from_a_question_waits_for_its_answer(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        asked = (await talk.get("/threads/trip/state"))["checkpoint"]["checkpoint_id"]
        await talk.run(None, "trip", resume="first")
        assert (await talk.get("/threads/trip"))["status"] == "idle"
        await talk.post("/threads/trip/state", values={"log": ["branch"]}, checkpoint_id=asked)
        assert (await talk.get("/threads/trip"))["status"] == "interrupted"
        assert (await talk.run(None, "trip", resume="second"))["output"]["answer"] == "second"

    play(story)


REFUSED: list[tuple[Json, int, str]] = [
    ({"values": {"log": 5}}, 422, "invalid_request"),
    ({"values": {"log": 5}, "as_node": "question"}, 422, "invalid_request"),
    ({"values": ["no", "object"]}, 422, "invalid_request"),
    ({"values": {"messages": [{"colour": "red"}]}}, 422, "invalid_request"),
    ({"values": {}, "as_node": "nobody"}, 422, "invalid_request"),
    ({"values": {}, "as_node": 7}, 422, "invalid_request"),
    ({"values": {}, "checkpoint_id": ""}, 422, "invalid_request"),
    ({"values": {}, "checkpoint_id": "1ef00000-0000-6000-8000-000000000000"}, 404, "checkpoint_not_found"),
    ({"values": {}, "checkpoint": {"checkpoint_ns": "nowhere:1"}}, 404, "checkpoint_not_found"),
    ({"values": {}, "graph": "steps"}, 409, "graph_mismatch"),
    ({"values": {}, "graph": "nothing"}, 404, "graph_not_found"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
def test_a_refused_edit_changes_nothing_and_frees_the_thread(play: Play, body: Json, status: int, code: str) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        before = [await talk.get(f"/threads/trip{path}") for path in ("", "/state", "/history")]
        await talk.refused("POST", "/threads/trip/state", status, code, body)
        assert [await talk.get(f"/threads/trip{path}") for path in ("", "/state", "/history")] == before
        assert (await talk.run(None, "trip", resume="yes"))["status"] == "success"

    play(story)


def test_an_edit_gives_a_graph_to_a_thread_that_has_none(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.post("/threads", thread_id="named")
        await talk.post("/threads/named/state", values={"log": ["first"]}, graph="ask")
        assert (await talk.get("/threads/named/state"))["next"] == ["before"]
        await talk.refused("POST", "/threads/named/state", 409, "graph_mismatch", {"values": {}, "graph": "steps"})
        assert (await talk.run(None, "named", input=None))["status"] == "interrupted"

        await talk.post("/threads", thread_id="default")
        await talk.post("/threads/default/state", values={"log": ["first"]})
        assert (await talk.get("/threads/default/state"))["next"] == ["one"]

        await talk.post("/threads", thread_id="lost", metadata={"graph_id": "elsewhere"})
        await talk.refused("POST", "/threads/lost/state", 404, "graph_not_found", {"values": {}})

    play(story)


def test_a_run_that_is_checked_during_an_edit_is_checked_again(play: Play) -> None:
    """The edit makes the thread's version grow, so no run starts from a state that is not there any more."""

    async def story(talk: Talk) -> None:
        await talk.run("ask", "trip")
        before = await talk.context.store.get_thread("/trip")
        await talk.post("/threads/trip/state", values={"log": ["edited"]})
        after = await talk.context.store.get_thread("/trip")
        assert before is not None
        assert after is not None
        assert after.version > before.version

    play(story)


def test_a_client_that_leaves_during_an_edit_leaves_no_held_thread(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("steps", "trip")
        for number in range(20):
            edit = Edit(supersteps=[[Update(values={"log": [str(number)]}, as_node="three")]])
            try:
                async with asyncio.timeout(0):
                    await talk.context.threads.update_state("", "trip", edit)
            except TimeoutError:
                pass
            await free(talk)
        log = (await talk.get("/threads/trip/state"))["values"]["log"]
        assert log[3:] == [str(number) for number in range(20)]

    async def free(talk: Talk) -> None:
        """Wait until nobody holds the thread: the test's own time is the limit."""
        while True:
            try:
                await talk.context.store.hold("/trip", "test")
            except ThreadBusy:
                await asyncio.sleep(0)
            else:
                return await talk.context.store.release("/trip", "test", status=None)

    play(story)


def test_two_edits_at_once_are_both_done_or_one_is_told_that_the_thread_is_busy(play: Play) -> None:
    async def story(talk: Talk) -> None:
        await talk.run("steps", "trip")
        edits = [{"values": {"log": [str(number)]}, "as_node": "three"} for number in range(10)]
        answers = await asyncio.gather(*(talk.http.post("/threads/trip/state", json=edit) for edit in edits))
        assert {answer.status_code for answer in answers} <= {200, 409}
        done = [str(number) for number, answer in enumerate(answers) if answer.status_code == 200]
        log = (await talk.get("/threads/trip/state"))["values"]["log"]
        assert done
        assert sorted(log[3:]) == done

    play(story)


# -- LangGraph's own client -------------------------------------------------------------------------------------


def test_langgraphs_own_client_works_unchanged(server: RunningServer) -> None:
    async def story() -> None:
        async with get_client(url=server.url, api_key=None) as client:
            threads = client.threads
            title = str(uuid.uuid4())
            made = await threads.create(graph_id="ask", metadata={"title": title}, ttl=60)
            thread_id = made["thread_id"]
            assert (await threads.get(thread_id, include=["ttl"]))["status"] == "idle"
            with pytest.raises(ConflictError):
                await threads.create(thread_id=thread_id)
            assert (await threads.create(thread_id=thread_id, if_exists="do_nothing"))["thread_id"] == thread_id
            updated = await threads.update(thread_id, metadata={"seen": True})
            assert updated["metadata"] == {"graph_id": "ask", "title": title, "seen": True}
            await threads.update(thread_id, metadata={"seen": 2}, return_minimal=True)
            assert (await threads.get(thread_id))["metadata"] == {**(updated["metadata"] or {}), "seen": 2}

            async with httpx.AsyncClient(base_url=server.url) as http:
                paused = await http.post("/runs/invoke", json={"thread_id": thread_id, "input": {}})
            assert paused.json()["status"] == "interrupted"
            await check_search(threads, title, thread_id)
            await check_state(threads, thread_id)

            await threads.delete(thread_id)
            with pytest.raises(NotFoundError):
                await threads.get(thread_id)

    async def check_search(threads: Any, title: str, thread_id: str) -> None:
        wanted = {"title": title}
        found = await threads.search(
            metadata=wanted, status="interrupted", limit=5, sort_by="updated_at", sort_order="asc"
        )
        assert [thread["thread_id"] for thread in found] == [thread_id]
        assert next(iter(found[0]["interrupts"].values()))[0]["value"]
        (few,) = await threads.search(ids=[thread_id], select=["thread_id"], extract={"log": "values.log[0]"})
        assert few == {"thread_id": thread_id, "extracted": {"log": "before"}}
        assert await threads.count(metadata=wanted, status="interrupted") == 1
        await threads.copy(thread_id)
        assert await threads.count(metadata=wanted) == 2

    async def check_state(threads: Any, thread_id: str) -> None:
        state = await threads.get_state(thread_id, subgraphs=True)
        assert state["next"] == ["question"]
        by_id = await threads.get_state(thread_id, checkpoint_id=state["checkpoint"]["checkpoint_id"])
        assert by_id["values"] == state["values"]
        made = await threads.update_state(thread_id, {"log": ["edited"]}, as_node="before")
        state = await threads.get_state(thread_id, checkpoint=made["checkpoint"], select=["values.log"])
        assert state == {"values": {"log": ["before", "edited"]}}
        history = await threads.get_history(thread_id, limit=10)
        assert history[0]["checkpoint"] == made["checkpoint"]
        older = await threads.get_history(thread_id, before=made["checkpoint"], metadata={"source": "loop"})
        assert older[0]["checkpoint"]["checkpoint_id"] == by_id["checkpoint"]["checkpoint_id"]
        branch = await threads.update_state(thread_id, None, as_node="before", checkpoint=history[1]["checkpoint"])
        state = await threads.get_state(thread_id)
        assert state["checkpoint"] == branch["checkpoint"]
        assert state["parent_checkpoint"]["checkpoint_id"] == history[1]["checkpoint"]["checkpoint_id"]

    asyncio.run(story())


def test_every_example_of_the_documents_bodies_is_taken(play: Play) -> None:
    async def story(talk: Talk) -> None:
        paths = (await talk.get("/openapi.json"))["paths"]
        await talk.run("ask", "example")
        taken = 0
        for path, operations in paths.items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                if path.startswith("/threads") and "example" in content:
                    answer = await talk.http.request(
                        method, path.format(thread_id="example"), content=json.dumps(content["example"]), headers=JSON
                    )
                    assert answer.status_code == 200, f"{method} {path}: {answer.text}"
                    taken += 1
        assert taken == 7

    play(story)


JSON = {"Content-Type": "application/json"}
