import asyncio
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.runnables import Runnable
from langchain_core.tools import tool

from graphs.replies import REPLIES
from graphs.scripted import ScriptedChatModel

QUESTION: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("What do you know about tea?")]
SUM = 'What is (2 + 3) * 4, and how many words has "être ou ne pas être"?'

Model = Runnable[Any, AIMessage]


@tool
def calculator(expression: str) -> str:
    """Works out an expression."""
    raise AssertionError("the model only asks for it")


@tool
def count_words(text: str) -> str:
    """Counts words."""
    raise AssertionError("the model only asks for it")


def model(**fields: Any) -> ScriptedChatModel:
    return ScriptedChatModel(delay_seconds=0, **fields)


def with_tools() -> Model:
    return model().bind_tools([calculator, count_words])


def chunks(speaker: Model, messages: Sequence[BaseMessage]) -> list[AIMessageChunk]:
    return [chunk for chunk in speaker.stream(messages) if isinstance(chunk, AIMessageChunk)]


def async_chunks(speaker: Model, messages: Sequence[BaseMessage]) -> list[AIMessageChunk]:
    async def collect() -> list[AIMessageChunk]:
        return [chunk async for chunk in speaker.astream(messages) if isinstance(chunk, AIMessageChunk)]

    return asyncio.run(collect())


def joined(pieces: Sequence[AIMessageChunk]) -> AIMessage:
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    message = message_chunk_to_message(whole)
    assert isinstance(message, AIMessage)
    return message


def without_ids(message: BaseMessage) -> dict[str, Any]:
    said = message.model_dump(exclude={"id"})
    said["tool_calls"] = [{**call, "id": None} for call in said["tool_calls"]]
    return said


def called_functions(action: Callable[[], object]) -> list[str]:
    """The names of the built-in functions that `action` called on this thread."""
    names: list[str] = []

    def profile(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            names.append(f"{function.__module__}.{function.__name__}")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return names


@pytest.mark.parametrize("collect", [chunks, async_chunks])
@pytest.mark.parametrize(
    ("speaker", "question"),
    [
        (model(), QUESTION),
        (model(script="  two  spaces,\n\n\ta tab and a newline\n"), QUESTION),
        (with_tools(), [HumanMessage(SUM)]),
    ],
    ids=["reply", "whitespace", "tool calls"],
)
def test_the_joined_stream_is_the_generated_message(
    collect: Callable[[Model, Sequence[BaseMessage]], list[AIMessageChunk]],
    speaker: Model,
    question: Sequence[BaseMessage],
) -> None:
    streamed = without_ids(joined(collect(speaker, question)))

    assert streamed == without_ids(asyncio.run(ainvoke(speaker, question)))
    assert streamed == without_ids(speaker.invoke(question))


async def ainvoke(speaker: Model, question: Sequence[BaseMessage]) -> AIMessage:
    return await speaker.ainvoke(question)


def test_a_script_is_said_to_the_letter() -> None:
    script = "  two  spaces,\n\n\ta tab and a newline\n"

    assert joined(chunks(model(script=script), QUESTION)).text == script


def test_an_empty_script_is_an_empty_message() -> None:
    assert joined(chunks(model(script=""), QUESTION)).text == ""


def test_text_comes_a_word_at_a_time() -> None:
    assert [chunk.text for chunk in chunks(model(script="one two  three"), QUESTION)] == ["one ", "two  ", "three", ""]


def test_every_chunk_of_a_message_has_one_id_and_every_message_its_own() -> None:
    first, second = ({chunk.id for chunk in chunks(model(), QUESTION)} for _ in range(2))

    assert len(first) == len(second) == 1
    assert first.isdisjoint(second)
    assert None not in first | second


def test_only_the_last_chunk_says_that_it_is_and_tells_the_usage() -> None:
    *others, last = chunks(model(), QUESTION)

    assert last.chunk_position == "last"
    assert last.response_metadata["model_name"] == "scripted"
    assert last.usage_metadata is not None
    assert {chunk.chunk_position for chunk in others} == {None}
    assert [chunk.usage_metadata for chunk in others] == [None] * len(others)


def test_usage_counts_words_and_adds_up() -> None:
    usage = model(script="three more words").invoke(QUESTION).usage_metadata

    assert usage == {"input_tokens": 8, "output_tokens": 3, "total_tokens": 11}


def test_the_usage_callback_sums_two_calls_under_the_models_name() -> None:
    counter = UsageMetadataCallbackHandler()

    for _ in range(2):
        model(script="three more words").invoke(QUESTION, {"callbacks": [counter]})

    assert counter.usage_metadata["scripted"]["total_tokens"] == 22


@pytest.mark.parametrize("role", list(REPLIES))
def test_every_role_answers_two_topics_differently_and_one_topic_always_the_same(role: str) -> None:
    tea, again, rain = (model(role=role).invoke([HumanMessage(topic)]).text for topic in ("tea", "tea", "rain"))

    assert tea
    assert tea == again
    if role != "critic":
        assert "tea" in tea
    assert tea != rain


def test_an_answer_quotes_the_question_and_counts_the_messages() -> None:
    first = model().invoke([HumanMessage("Where is Oslo?")])
    second = model().invoke([HumanMessage("Where is Oslo?"), first, HumanMessage("And Rome?")])

    assert "Where is Oslo?" in first.text
    assert "And Rome?" in second.text
    assert "number 2" in second.text


@pytest.mark.parametrize("text", ["<p>\nWhere is Oslo?\n</p>", "I want to write about Oslo"])
def test_an_answer_quotes_what_was_said_whatever_it_looks_like(text: str) -> None:
    assert " ".join(text.split()) in model().invoke([HumanMessage(text)]).text


@pytest.mark.parametrize(
    ("request_text", "subject"),
    [("Write an essay about green tea!", "green tea"), ("I write about tea", "I write about tea"), ("", "nothing in")],
)
def test_a_plan_is_for_the_subject_of_the_request(request_text: str, subject: str) -> None:
    assert model(role="planner").invoke([HumanMessage(request_text)]).text.startswith(f"1. What {subject}")


def test_a_stop_word_ends_the_text_before_it() -> None:
    assert model(script="one two three").invoke(QUESTION, stop=["two"]).text == "one "


def test_tool_calls_come_in_pieces_and_parse() -> None:
    pieces = [piece for chunk in chunks(with_tools(), [HumanMessage(SUM)]) for piece in chunk.tool_call_chunks]
    calls = joined(chunks(with_tools(), [HumanMessage(SUM)])).tool_calls

    assert [(call["name"], call["args"]) for call in calls] == [
        ("calculator", {"expression": "(2 + 3) * 4"}),
        ("count_words", {"text": "être ou ne pas être"}),
    ]
    assert len({call["id"] for call in calls}) == 2
    for index, name in enumerate(["calculator", "count_words"]):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert (first["name"], first["args"]) == (name, "")
        assert first["id"]
        assert len(rest) > 1
        assert {(piece["name"], piece["id"]) for piece in rest} == {(None, None)}


def test_once_the_results_are_there_it_answers_from_them() -> None:
    asked = HumanMessage(SUM)
    calling = with_tools().invoke([asked])
    results = [
        ToolMessage(f"result-{call['name']}", tool_call_id=call["id"], name=call["name"]) for call in calling.tool_calls
    ]

    answer = with_tools().invoke([asked, calling, *results])

    assert answer.tool_calls == []
    assert "result-calculator" in answer.text
    assert "result-count_words" in answer.text


def test_a_new_question_after_results_calls_tools_again() -> None:
    history: list[BaseMessage] = [
        HumanMessage("What is 1 + 1?"),
        AIMessage("", tool_calls=[{"name": "calculator", "args": {"expression": "1 + 1"}, "id": "call"}]),
        ToolMessage("2", tool_call_id="call", name="calculator"),
        AIMessage("2"),
        HumanMessage("And 2 + 2?"),
    ]

    assert [call["args"] for call in with_tools().invoke(history).tool_calls] == [{"expression": "2 + 2"}]


def test_a_question_that_needs_no_tool_calls_none() -> None:
    answer = with_tools().invoke([HumanMessage("Hello there")])

    assert answer.tool_calls == []
    assert "Hello there" in answer.text


def test_without_a_delay_the_async_stream_never_yields_to_the_loop() -> None:
    async def whole() -> int:
        return len([chunk async for chunk in model(script="one two three")._astream(QUESTION)])

    # Driven by hand: with nothing to wait for its first step is its last, while a sleep, even of 0, would suspend it.
    with pytest.raises(StopIteration) as end:
        whole().send(None)
    assert end.value.value == 4


def test_a_delay_suspends_the_async_stream() -> None:
    async def first_two() -> bool:
        stream = ScriptedChatModel(delay_seconds=3600)._astream(QUESTION)
        await stream.__anext__()
        step = stream.__anext__().__await__()
        suspended = step.__next__() is not None
        step.close()
        return suspended

    assert asyncio.run(first_two())


@pytest.mark.parametrize(("delay_seconds", "sleeps"), [(0, 0), (0.000_001, 3)])
def test_the_sync_stream_sleeps_between_chunks_and_not_at_all_without_a_delay(
    delay_seconds: float, sleeps: int
) -> None:
    speaker = ScriptedChatModel(script="one two three", delay_seconds=delay_seconds)

    assert called_functions(lambda: list(speaker._stream(QUESTION))).count("time.sleep") == sleeps
