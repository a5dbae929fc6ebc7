"""Parts of a LangGraph stream as events: order, the gate, and what is left out; without a graph."""

import asyncio
import concurrent.futures
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from app.engine.fit import fitted
from app.engine.journal import RunJournal
from app.engine.translate import FAILED_TASK, Translator, TranslatorOptions, node_data
from app.runs.event import EventKind, NewEvent

Frame = dict[str, Any]

CHILD = ("child:p1",)
MODES = ("updates", "messages", "custom", "tasks", "values", "checkpoints", "debug")


class Told:
    """A translator, and what came out of it."""

    def __init__(
        self, *modes: str, subgraphs: bool = True, gated: bool = True, max_frame_bytes: int = 1_000_000
    ) -> None:
        self.events: list[NewEvent] = []
        options = TranslatorOptions(
            thread_id="t1",
            modes=modes or MODES,
            subgraphs=subgraphs,
            gated=gated,
            max_frame_bytes=max_frame_bytes,
        )
        self.translator = Translator(self.events.append, options)

    @property
    def frames(self) -> list[Frame]:
        return [orjson.loads(event.text) for event in self.events]

    @property
    def brief(self) -> list[str]:
        """Each frame in a word or two."""
        return [" ".join(str(frame[key]) for key in ("event", "node") if key in frame) for frame in self.frames]

    def start(self, task_id: str, node: str, ns: tuple[str, ...] = ()) -> None:
        self.translator.part(ns, "tasks", {"id": task_id, "name": node, "input": None, "triggers": ()})
        self.translator.node_started(ns, node, task_id, 1)

    def end(self, task_id: str, node: str, update: Any = None, ns: tuple[str, ...] = ()) -> None:
        self.translator.part(ns, "updates", {node: update})
        self.result(task_id, node, ns)

    def result(self, task_id: str, node: str, ns: tuple[str, ...] = (), error: Any = None) -> None:
        self.translator.part(ns, "tasks", {"id": task_id, "name": node, "error": error, "result": {}, "interrupts": []})

    def cached(self, node: str, update: Any, ns: tuple[str, ...] = ()) -> None:
        self.translator.part(ns, "updates", {node: update, "__metadata__": {"cached": True}})

    def say(self, task_id: str, node: str, text: str, ns: tuple[str, ...] = (), **fields: Any) -> None:
        message = AIMessageChunk(content=text, **{"id": f"m-{task_id}", **fields})
        self.translator.message(ns, node, task_id, message)

    def save(self, task_id: str) -> list[Frame]:
        """The texts that went into the transaction of a task's writes, which is then committed."""
        texts = self.translator.saving(task_id)
        self.translator.saved(task_id)
        return [orjson.loads(text) for text in texts]


# -- the journal ------------------------------------------------------------------------------------------------------


def test_a_save_that_comes_before_the_node_was_told_of_waits_for_it() -> None:
    async def scenario() -> None:
        told = Told("updates")
        journal = RunJournal(told.translator, UsageMetadataCallbackHandler(), attempt=1)
        told.start("t1", "plan")
        saving = asyncio.get_running_loop().create_task(journal.told("t1"))
        await asyncio.sleep(0)
        assert not saving.done()
        assert journal.told_in("") == []
        told.end("t1", "plan", {"a": 1})
        await saving
        assert (len(journal.saving("t1")), journal.told_in("")) == (1, ["t1"])
        await journal.told("of a graph that the stream says nothing of")

    asyncio.run(scenario())


def test_a_cached_result_is_told_of_without_a_result_of_its_task() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    assert not told.translator.is_told("t1")
    told.cached("plan", {"a": 1})
    assert told.translator.is_told("t1")


# -- the gate ---------------------------------------------------------------------------------------------------------


def test_a_nodes_event_waits_until_its_writes_are_saved() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    told.end("t1", "plan", {"a": 1})
    assert told.frames == []
    told.save("t1")
    assert told.frames == [{"event": "node", "node": "plan", "task_id": "t1", "data": {"a": 1}}]


def test_what_is_saved_with_the_writes_is_the_very_text_of_the_event() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    told.end("t1", "plan", {"a": 1})
    texts = told.translator.saving("t1")
    assert told.events == []
    told.translator.saved("t1")
    assert list(texts) == [event.text for event in told.events]


def test_only_the_event_of_the_task_that_is_saved_is_written() -> None:
    told = Told("updates")
    for task_id, node in (("t1", "left"), ("t2", "right")):
        told.start(task_id, node)
        told.end(task_id, node)
    told.save("t2")
    assert told.brief == ["node right"]
    told.save("t1")
    assert told.brief == ["node right", "node left"]


def test_an_event_comes_once_however_often_its_task_is_saved() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    told.end("t1", "plan")
    told.save("t1")
    told.save("t1")
    told.translator.finish()
    assert told.brief == ["node plan"]


def test_a_task_that_was_saved_before_its_update_came_waits_for_nothing() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    told.save("t1")
    told.end("t1", "plan")
    assert told.brief == ["node plan"]


def test_a_subgraph_without_checkpoints_lasts_as_long_as_the_task_round_it() -> None:
    told = Told("updates")
    told.start("p1", "child")
    told.start("c1", "inner", CHILD)
    told.end("c1", "inner", {"a": 1}, CHILD)
    told.end("p1", "child", {"a": 1})
    assert told.frames == []
    saved = told.save("p1")
    assert told.brief == ["node inner", "node child"]
    assert [frame["node"] for frame in saved] == ["inner", "child"]
    assert told.frames[0]["ns"] == list(CHILD)


def test_without_a_gate_events_are_written_at_once() -> None:
    told = Told("updates", gated=False)
    told.start("t1", "plan")
    told.end("t1", "plan")
    assert told.brief == ["node plan"]


def test_at_the_end_of_the_graph_nothing_is_held_back() -> None:
    told = Told("updates")
    told.start("t1", "plan")
    told.end("t1", "plan")
    told.translator.finish()
    assert told.brief == ["node plan"]


def test_saving_a_task_that_nobody_knows_says_nothing() -> None:
    told = Told("updates")
    assert told.save("00000000-0000-0000-0000-000000000000") == []
    assert told.frames == []


# -- updates ----------------------------------------------------------------------------------------------------------


def test_several_tasks_of_one_node_each_get_their_own_update() -> None:
    told = Told("updates", gated=False)
    for n in range(3):
        told.start(f"t{n}", "worker")
    for n in (2, 0, 1):
        told.end(f"t{n}", "worker", {"n": n})
    assert [(f["task_id"], f["data"]["n"]) for f in told.frames] == [("t2", 2), ("t0", 0), ("t1", 1)]


def test_a_result_that_was_there_before_the_attempt_is_not_told_again() -> None:
    told = Told("updates")
    told.start("t1", "worker")
    told.cached("worker", {"n": 0})
    told.start("t2", "worker")
    told.end("t2", "worker", {"n": 1})
    told.save("t2")
    told.translator.finish()
    assert [(f["task_id"], f["data"]) for f in told.frames] == [("t2", {"n": 1})]


def test_results_from_a_cache_are_told_under_their_own_tasks_when_they_are_saved() -> None:
    told = Told("updates")
    for n in range(3):
        told.translator.part((), "tasks", {"id": f"t{n}", "name": "worker", "input": None, "triggers": ()})
        told.cached("worker", {"n": n})
    for n in range(3):
        told.save(f"t{n}")
    assert [(f["task_id"], f["data"]["n"]) for f in told.frames] == [("t0", 0), ("t1", 1), ("t2", 2)]


def test_an_interrupt_among_the_updates_is_no_node() -> None:
    told = Told("updates", gated=False)
    told.translator.part((), "updates", {"__interrupt__": ()})
    assert told.frames == []


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"a": None}, {"a": None}),
        ("text", "text"),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ({"message": "mine", "messages": [AIMessage("x")]}, "as it is"),
    ],
)
def test_the_data_of_a_node_is_its_update(update: Any, expected: Any) -> None:
    assert node_data(update) == (update if expected == "as it is" else expected)


def test_the_newest_message_stands_beside_the_update() -> None:
    data = node_data({"messages": [HumanMessage("q", id="1"), AIMessage("a", id="2")]})
    assert data["message"]["type"] == "AIMessage"
    assert data["message"]["content"] == "a"
    assert data["message"]["id"] == "2"
    assert len(data["messages"]) == 2


def test_a_message_without_an_id_has_one_in_its_event_and_keeps_it() -> None:
    told = Told("updates", gated=False)
    message = AIMessage("made by the node")
    told.start("t1", "plan")
    told.end("t1", "plan", {"messages": [message]})
    assert message.id
    assert told.frames[0]["data"]["message"]["id"] == message.id


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_over_when_its_node_is_and_before_its_event() -> None:
    told = Told("updates", "messages", gated=False)
    told.start("t1", "talk")
    told.say("t1", "talk", "a")
    told.end("t1", "talk")
    assert told.brief == ["token talk", "token talk", "node talk"]
    assert told.frames[1]["data"] == {"id": "m-t1", "content": "", "role": "assistant", "last": True}


def test_messages_of_parallel_nodes_are_kept_apart() -> None:
    told = Told("messages")
    told.start("t1", "left")
    told.start("t2", "right")
    for text in ("a", "b"):
        told.say("t1", "left", text)
        told.say("t2", "right", text.upper())
    assert [(f["node"], f["data"]["id"], f["data"]["content"]) for f in told.frames] == [
        ("left", "m-t1", "a"),
        ("right", "m-t2", "A"),
        ("left", "m-t1", "b"),
        ("right", "m-t2", "B"),
    ]
    assert told.translator.partial() == {"m-t1": "ab", "m-t2": "AB"}


def test_partial_is_only_what_no_node_has_ended_with() -> None:
    told = Told("messages")
    told.start("t1", "left")
    told.start("t2", "right")
    told.say("t1", "left", "done")
    told.say("t2", "right", "half")
    told.say("t2", "right", "", id="silent", tool_call_chunks=[{"index": 0, "id": "c", "name": "n", "args": "{"}])
    told.end("t1", "left")
    assert told.translator.partial() == {"m-t2": "half"}


def test_a_tools_result_names_its_call() -> None:
    told = Told("messages")
    told.start("t1", "tools")
    result = ToolMessage("4", tool_call_id="c1", name="add", status="error", id="r1")
    told.translator.message((), "tools", "t1", result)
    assert told.frames == [
        {
            "event": "tool_result",
            "node": "tools",
            "data": {"id": "c1", "name": "add", "content": "4", "status": "error"},
        }
    ]


def test_what_a_human_said_is_no_token() -> None:
    told = Told("messages")
    told.translator.message((), "ask", "t1", HumanMessage("q", id="1"))
    assert told.frames == []


# -- retries ----------------------------------------------------------------------------------------------------------


def test_a_retry_voids_what_the_try_before_said() -> None:
    told = Told("messages")
    told.start("t1", "talk")
    told.say("t1", "talk", "half", id="first")
    told.start("t1", "talk")
    told.say("t1", "talk", "whole", id="second")
    assert told.frames[1] == {"event": "discard", "node": "talk", "discard": ["first"], "reason": "retry"}
    assert told.translator.partial() == {"second": "whole"}


def test_a_retry_of_a_node_that_said_nothing_voids_nothing() -> None:
    told = Told("messages")
    told.start("t1", "talk")
    told.start("t1", "talk")
    assert told.frames == []


def test_a_retry_voids_what_its_subgraph_said_and_holds_too() -> None:
    told = Told("updates", "messages")
    told.start("p1", "child")
    told.start("c1", "inner", CHILD)
    told.say("c1", "inner", "ended", CHILD)
    told.end("c1", "inner", {"try": 1}, CHILD)
    told.start("c2", "next", CHILD)
    told.say("c2", "next", "half", CHILD)
    told.start("p1", "child")
    told.start("c3", "inner", CHILD)
    told.end("c3", "inner", {"try": 2}, CHILD)
    told.end("p1", "child")
    told.save("p1")
    discards = [f for f in told.frames if f["event"] == "discard"]
    assert [(f["node"], f["discard"]) for f in discards] == [("child", ["m-c1", "m-c2"])]
    assert [f["data"] for f in told.frames if f["event"] == "node"] == [{"try": 2}, {}]


def test_a_discard_is_sent_whatever_the_modes() -> None:
    told = Told("messages")
    told.start("t1", "talk")
    told.say("t1", "talk", "half")
    told.start("t1", "talk")
    assert "discard talk" in told.brief
    assert not any(b.startswith("node_start") for b in told.brief)


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [asyncio.CancelledError(), concurrent.futures.CancelledError()])
@pytest.mark.parametrize("failed_first", [True, False])
def test_the_node_that_failed_is_named_not_the_one_it_took_along(cancelled: BaseException, failed_first: bool) -> None:
    told = Told()
    told.start("t1", "left")
    told.start("t2", "right")
    ends: list[tuple[str, str, BaseException]] = [("t2", "right", ValueError("secret")), ("t1", "left", cancelled)]
    for task_id, node, error in ends if failed_first else ends[::-1]:
        told.result(task_id, node, error=error)
    assert told.translator.failed_node == "right"


def test_of_a_failure_in_a_subgraph_the_graphs_own_node_is_named() -> None:
    told = Told()
    told.start("p1", "child")
    told.start("c1", "inner", CHILD)
    told.result("c1", "inner", CHILD, ValueError("secret"))
    assert told.translator.failed_node == "inner"
    told.result("p1", "child", error=ValueError("secret"))
    assert told.translator.failed_node == "child"


def test_a_failure_that_a_retry_made_good_is_forgotten() -> None:
    told = Told()
    told.start("p1", "child")
    told.start("c1", "inner", CHILD)
    told.result("c1", "inner", CHILD, ValueError("secret"))
    told.start("p1", "child")
    assert told.translator.failed_node is None


def test_a_task_that_failed_makes_no_event_even_when_it_is_saved() -> None:
    told = Told("updates")
    told.start("t1", "left")
    told.result("t1", "left", error=ValueError("secret"))
    told.save("t1")
    told.translator.finish()
    assert told.frames == []


# -- modes and subgraphs ----------------------------------------------------------------------------------------------


def everything(told: Told, ns: tuple[str, ...] = ()) -> None:
    told.start("t1", "talk", ns)
    told.say("t1", "talk", "a", ns)
    told.translator.custom(ns, "talk", {"n": 1})
    told.end("t1", "talk", {"a": 1}, ns)
    told.translator.part(ns, "values", {"a": 1, "__interrupt__": ()})
    told.translator.part(ns, "checkpoints", {"values": {}, "metadata": {}, "tasks": [], "next": []})
    told.translator.part(ns, "debug", {"type": "task", "step": 1, "payload": {"id": "t1", "name": "talk"}})


KINDS_BY_MODE: Mapping[str, set[str]] = {
    "updates": {"node"},
    "messages": {"token"},
    "custom": {"custom"},
    "tasks": {"node_start"},
    "values": {"values"},
    "checkpoints": {"checkpoint"},
    "debug": {"debug"},
}


@pytest.mark.parametrize("mode", [mode for mode in KINDS_BY_MODE if mode not in ("checkpoints", "debug")])
def test_each_mode_gives_its_own_frames_and_no_others(mode: str) -> None:
    told = Told(mode, gated=False)
    told.start("t1", "talk")
    told.say("t1", "talk", "a")
    told.translator.custom((), "talk", {"n": 1})
    told.end("t1", "talk", {"a": 1})
    told.translator.part((), "values", {"a": 1})
    assert {frame["event"] for frame in told.frames} == KINDS_BY_MODE[mode]


def test_frames_of_a_subgraph_say_where_they_come_from() -> None:
    told = Told(gated=False)
    everything(told, CHILD)
    assert {frame["event"] for frame in told.frames} == set().union(*KINDS_BY_MODE.values())
    assert all(frame["ns"] == list(CHILD) for frame in told.frames)
    assert all(event.text.startswith(b'{"event":"%b","ns":' % event.kind.encode()) for event in told.events)


def test_subgraphs_that_were_not_asked_for_are_silent() -> None:
    told = Told(gated=False, subgraphs=False)
    everything(told, CHILD)
    assert told.frames == []


def test_the_values_hold_no_interrupts() -> None:
    told = Told("values")
    told.translator.part((), "values", {"a": 1, "__interrupt__": ()})
    assert told.frames == [{"event": "values", "data": {"a": 1}}]


def test_an_exceptions_text_is_in_no_checkpoint_and_no_debug_frame() -> None:
    told = Told("checkpoints", "debug")
    task = {"id": "t1", "name": "n", "error": "ValueError('password=hunter2')", "interrupts": (), "state": None}
    checkpoint = {"values": {}, "metadata": {}, "tasks": [task], "next": []}
    told.translator.part((), "checkpoints", checkpoint)
    told.translator.part((), "debug", {"type": "checkpoint", "step": 1, "payload": checkpoint})
    told.translator.part((), "debug", {"type": "task_result", "step": 1, "payload": {**task, "result": {}}})
    assert all(b"hunter2" not in event.text for event in told.events)
    assert all(FAILED_TASK.encode() in event.text for event in told.events)


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_a_frame_that_is_too_large_says_so_and_where_the_state_is() -> None:
    told = Told("updates", gated=False, max_frame_bytes=300)
    told.start("t1", "plan")
    told.end("t1", "plan", {"text": "x" * 300})
    assert told.frames == [
        {
            "event": "node",
            "node": "plan",
            "task_id": "t1",
            "data": {},
            "truncated": True,
            "state_url": "/threads/t1/state",
        }
    ]


def test_a_truncated_token_still_says_whose_it_is() -> None:
    told = Told("messages", max_frame_bytes=200)
    told.start("t1", "talk")
    told.translator.message((), "talk", "t1", AIMessage("x" * 300, id="m1"))
    [frame] = told.frames
    assert frame["data"] == {"id": "m1", "role": "assistant", "last": True}
    assert frame["truncated"] is True


def shortened(kind: EventKind, **fields: Any) -> Frame:
    event = NewEvent(kind, orjson.dumps({"event": kind, **fields}))
    frame = orjson.loads(fitted(event, max_bytes=50, thread_id="t1").text)
    assert (frame.pop("truncated"), frame.pop("state_url")) == (True, "/threads/t1/state")
    assert next(iter(frame)) == "event"
    return dict(frame)


def test_a_truncated_interrupt_keeps_the_ids_that_an_answer_needs() -> None:
    asked = {"id": "a" * 32, "value": "x" * 100, "node": "n", "ns": [], "response_schema": {"type": "string"}}
    frame = shortened("interrupt", next=["n"], interrupts=[asked], usage=None)
    assert frame["interrupts"] == [{"id": "a" * 32, "value": None, "node": "n", "ns": [], "response_schema": None}]
    assert frame["next"] == ["n"]


def test_truncated_ends_keep_how_the_run_ended() -> None:
    assert shortened("complete", status="success", output={"a": "x" * 100}, usage={"m": 1}) == {
        "event": "complete",
        "status": "success",
        "usage": {"m": 1},
    }
    assert shortened("cancelled", reason="user", partial={"m": "x" * 100}, usage=None) == {
        "event": "cancelled",
        "reason": "user",
        "partial": {},
        "usage": None,
    }


def test_a_frame_that_fits_is_left_as_it_is() -> None:
    event = NewEvent("custom", b'{"event":"custom","node":"n","data":1}')
    assert fitted(event, max_bytes=len(event.text), thread_id="t1") is event
