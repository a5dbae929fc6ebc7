"""Requests checked against the state of their thread, and what LangGraph is given for them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from app.engine.inputs import TAKEN, check_nodes, graph_config, graph_input, is_map, jumps
from app.errors import (
    AmbiguousResume,
    CheckpointNotFound,
    Invalid,
    NothingToContinue,
    NothingToResume,
    ThreadInterrupted,
    ThreadNotFound,
    UnknownInterrupt,
)
from app.runs.model import Run
from app.runs.request import Action, Continue, LongForm, Message, NewInput, Resume
from tests.engine.attempt import NOW, Bench, asked, bench, play
from tests.project.graphs import ask, ask_below, ask_both, fails, form, steps, talk

SOMEBODY = "a" * 32


async def plan(one: Bench, action: Action, **fields: Any) -> Any:
    request = asked(action=action, **fields)
    return await one.engine.plan(request, graph="graph-0", thread_id="t", thread=one.threads.get("t"))


def planned(
    graph: Any, action: Action, *, before: Callable[[Bench], Awaitable[Any]] | None = None, **fields: Any
) -> Any:
    """The plan of a request, on a thread on which `before` ran."""

    async def scenario() -> Any:
        async with bench(graph) as one:
            if before is not None:
                await before(one)
            return await plan(one, action, **fields)

    return play(scenario)


async def ran(one: Bench) -> None:
    await one.run({"log": []})


async def paused_at_a_breakpoint(one: Bench) -> None:
    await one.run({"log": []}, interrupt_after=["one"])


async def talked(one: Bench) -> None:
    await one.run({"messages": []})


async def talk_paused(one: Bench) -> None:
    await one.run({"messages": []}, interrupt_before=["speak"])


# -- input ------------------------------------------------------------------------------------------------------------


def test_new_input_is_passed_on_as_it_is() -> None:
    assert planned(steps, NewInput(value={"log": ["a"]}))["input"] == {"log": ["a"]}
    assert planned(steps, NewInput(value={"log": ["a"]}), before=ran)["input"] == {"log": ["a"]}


@pytest.mark.parametrize("value", ["text", 5, ["a"], True])
def test_input_that_is_no_object_is_refused_where_the_graph_takes_none(value: Any) -> None:
    with pytest.raises(Invalid):
        planned(steps, NewInput(value=value))


def test_new_input_on_a_paused_thread_would_throw_the_question_away() -> None:
    with pytest.raises(ThreadInterrupted) as caught:
        planned(ask, NewInput(value={"log": []}), before=ran)
    assert [question["value"] for question in caught.value.fields["interrupts"]] == [{"question": "May I?"}]
    assert planned(ask, NewInput(value={"log": []}), before=ran, on_interrupted="discard")["input"] == {"log": []}


def test_going_on_needs_something_that_waits() -> None:
    with pytest.raises(NothingToContinue):
        planned(steps, Continue())
    with pytest.raises(NothingToContinue):
        planned(steps, Continue(), before=ran)
    with pytest.raises(ThreadInterrupted):
        planned(ask, Continue(), before=ran)
    assert "input" not in planned(steps, Continue(), before=paused_at_a_breakpoint)
    assert "input" not in planned(fails, Continue(), before=ran)


def test_a_checkpoint_that_the_thread_does_not_have_is_not_found() -> None:
    for before in (None, ran):
        with pytest.raises(CheckpointNotFound):
            planned(
                steps, NewInput(value={"log": []}), before=before, checkpoint_id="1ef00000-0000-6000-8000-000000000000"
            )


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_a_user_message_where_the_graph_has_messages() -> None:
    expected = {"messages": [{"role": "user", "content": "hi"}]}
    assert planned(talk, Message(text="hi"))["input"] == expected
    assert planned(talk, Message(text="hi"), before=talked)["input"] == expected


def test_a_message_is_the_one_text_that_the_graph_asks_for() -> None:
    assert planned(form, Message(text="tea"))["input"] == {"topic": "tea"}


def test_a_graph_that_takes_no_message_says_so() -> None:
    class Numbers(TypedDict):
        left: int
        right: int

    builder = StateGraph(Numbers).add_node("n", lambda state: state).add_edge(START, "n")
    with pytest.raises(Invalid):
        planned(builder, Message(text="hi"))


def test_a_message_to_a_thread_that_asks_is_the_answer() -> None:
    [(id, answer)] = planned(ask, Message(text="yes"), before=ran)["command"]["resume"].items()
    assert is_map({id: answer})
    assert answer == "yes"


def test_a_message_can_not_answer_two_questions() -> None:
    with pytest.raises(AmbiguousResume):
        planned(ask_both, Message(text="yes"), before=ran)


def test_at_a_breakpoint_an_empty_message_goes_on_and_another_is_added_first() -> None:
    assert "command" not in planned(talk, Message(text=""), before=talk_paused)
    command = planned(talk, Message(text="wait"), before=talk_paused)["command"]
    assert command == {"update": {"messages": [{"role": "user", "content": "wait"}]}}


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, 0, "", {}, [], {"a": 1}, "yes", {SOMEBODY.upper(): 1}])
def test_any_json_value_answers_the_one_question(value: Any) -> None:
    [(id, answer)] = planned(ask, Resume(value=value), before=ran)["command"]["resume"].items()
    assert len(id) == 32
    assert answer == value


def test_an_answer_finds_a_question_in_a_subgraph() -> None:
    resume = planned(ask_below, Resume(value="yes"), before=ran)["command"]["resume"]
    assert list(resume.values()) == ["yes"]


def test_some_of_several_questions_may_be_answered_by_their_ids() -> None:
    async def scenario() -> None:
        async with bench(ask_both) as one:
            pending = (await one.run({"log": []})).last["interrupts"]
            first = {pending[0]["id"]: "yes"}
            assert (await plan(one, Resume(value=first)))["command"] == {"resume": first}
            both = {question["id"]: None for question in pending}
            assert (await plan(one, Resume(value=both)))["command"] == {"resume": both}

    play(scenario)


def test_answers_that_fit_no_question_are_refused_with_the_ones_there_are() -> None:
    with pytest.raises(AmbiguousResume) as ambiguous:
        planned(ask_both, Resume(value="yes"), before=ran)
    assert len(ambiguous.value.fields["interrupts"]) == 2
    with pytest.raises(UnknownInterrupt) as unknown:
        planned(ask, Resume(value={SOMEBODY: "yes"}), before=ran)
    assert len(unknown.value.fields["interrupts"]) == 1


def test_there_must_be_something_to_answer() -> None:
    with pytest.raises(ThreadNotFound):
        planned(ask, Resume(value="yes"))
    with pytest.raises(NothingToResume):
        planned(steps, Resume(value="yes"), before=ran)


def test_an_answer_at_a_breakpoint_goes_on() -> None:
    assert planned(steps, Resume(value="anything"), before=paused_at_a_breakpoint)["command"] is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({SOMEBODY: 1}, True),
        ({}, False),
        ({SOMEBODY: 1, "other": 2}, False),
        ({"A" * 32: 1}, False),
        ([SOMEBODY], False),
    ],
)
def test_a_map_of_answers_has_the_form_of_interrupt_ids_in_all_its_keys(value: Any, expected: bool) -> None:
    assert is_map(value) is expected


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_may_answer_edit_and_jump_at_once() -> None:
    command = LongForm(has_resume=True, resume="yes", update={"log": ["edit"]}, goto="after")
    made = planned(ask, command, before=ran)["command"]
    assert (list(made["resume"].values()), made["update"], made["goto"]) == (["yes"], {"log": ["edit"]}, "after")


def test_a_command_that_does_not_answer_is_refused_on_a_thread_that_asks_unless_it_jumps() -> None:
    with pytest.raises(ThreadInterrupted):
        planned(ask, LongForm(has_resume=False, update={"log": ["edit"]}), before=ran)
    assert planned(ask, LongForm(has_resume=False, goto="after"), before=ran)["command"] == {"goto": "after"}


@pytest.mark.parametrize("goto", ["nowhere", ["one", "nowhere"], {"node": "nowhere"}, {"no": "node"}, [5]])
def test_a_jump_to_no_node_is_refused(goto: Any) -> None:
    with pytest.raises(Invalid):
        planned(steps, LongForm(has_resume=False, goto=goto), before=ran)


def test_jumps_are_names_or_sends() -> None:
    assert jumps(["one", {"node": "two", "input": {"a": 1}}]) == [("one", None), ("two", {"a": 1})]
    made = graph_input({"command": {"goto": ["one", {"node": "two", "input": {"a": 1}}], "update": {"a": 1}}}, "r")
    assert made == Command(update=[("a", 1), (TAKEN, "r")], goto=["one", Send("two", {"a": 1})])


def test_a_plan_without_a_command_is_its_input() -> None:
    assert graph_input({"input": {"a": 1}}, "r") == {"a": 1}
    assert graph_input({"input": None}, "r") is None
    assert graph_input({"command": None}, "r") is None


def test_a_breakpoint_on_no_node_is_refused() -> None:
    with pytest.raises(Invalid, match="nowhere"):
        planned(steps, NewInput(value={"log": []}), interrupt_before=["nowhere"])
    with pytest.raises(Invalid):
        check_nodes(steps, ["__start__"], ("body",))


def test_with_hitl_the_graph_pauses_after_every_node_unless_its_registration_says_where() -> None:
    made = planned(steps, NewInput(value={"log": []}), use_hitl=True, interrupt_before=["two"])
    assert (made["interrupt_before"], made["interrupt_after"]) == (["two"], "*")


# -- configs ----------------------------------------------------------------------------------------------------------


def run_of(**config: Any) -> Run:
    return Run(
        owner="o",
        run_id="run-1",
        thread_id="t",
        graph="graph-0",
        status="running",
        request={"config": config},
        fingerprint="",
        idempotency_key=None,
        stream_modes=(),
        metadata={},
        multitask_strategy="reject",
        on_disconnect="cancel",
        epoch=1,
        attempt=1,
        crashes=0,
        last_seq=0,
        created_at=NOW,
    )


def test_a_config_is_the_clients_and_says_whose_thread_and_run_it_is() -> None:
    made = graph_config(
        run_of(tags=["a"], metadata={"k": 1, "runstream_run_id": "forged"}, configurable={"user": "u"}),
        recursion_limit=10,
    )
    assert made["tags"] == ["a"]
    assert made["metadata"] == {"k": 1, "runstream_run_id": "run-1"}
    assert made["configurable"] == {"user": "u", "thread_id": "t"}


@pytest.mark.parametrize(("given", "expected"), [(None, 10), (3, 3), (11, 10)])
def test_the_servers_limit_of_steps_caps_the_clients(given: int | None, expected: int) -> None:
    config = {} if given is None else {"recursion_limit": given}
    assert graph_config(run_of(**config), recursion_limit=10)["recursion_limit"] == expected


def test_a_state_of_one_value_takes_it_as_its_input() -> None:
    @entrypoint()
    async def flow(text: str) -> str:
        return text.upper()

    async def scenario() -> Any:
        async with bench(flow) as one:
            return (await one.run("tea", include_output=True)).last["output"]

    assert play(scenario) == "TEA"


def test_what_the_state_does_not_know_is_left_to_the_graph() -> None:
    assert planned(steps, NewInput(value={"nope": 1}))["input"] == {"nope": 1}
