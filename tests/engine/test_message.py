"""Messages of a model as token, tool call and reasoning frames."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from app.engine.message import OpenMessage, give_ids, newest_message
from app.runs.event import NewEvent

Frame = dict[str, Any]


def opened(**place: Any) -> OpenMessage:
    return OpenMessage(**{"id": "m1", "node": "agent", "ns": (), **place})


def frames(events: Iterable[NewEvent]) -> list[Frame]:
    return [orjson.loads(event.text) for event in events]


def data(events: Iterable[NewEvent]) -> list[Frame]:
    return [frame["data"] for frame in frames(events)]


def said(message: OpenMessage, *chunks: AIMessageChunk) -> list[Frame]:
    return [frame for chunk in chunks for frame in frames(message.add(chunk))]


def chunk(content: Any = "", **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, **fields)


def call_piece(args: str, *, index: int | None = 0, id: str | None = None, name: str | None = None) -> AIMessageChunk:
    piece = {"index": index, "id": id, "name": name, "args": args, "type": "tool_call_chunk"}
    return AIMessageChunk(content="", tool_call_chunks=[piece])


# -- text -----------------------------------------------------------------------------------------------------------


def test_a_token_says_its_node_its_message_and_the_new_text_only() -> None:
    assert said(opened(), chunk("Hel"), chunk("lo")) == [
        {"event": "token", "node": "agent", "data": {"id": "m1", "content": "Hel", "role": "assistant"}},
        {"event": "token", "node": "agent", "data": {"id": "m1", "content": "lo", "role": "assistant"}},
    ]


def test_a_token_of_a_subgraph_says_where_right_behind_its_event() -> None:
    [event] = opened(ns=("child:1",)).add(chunk("x"))
    assert event.text.startswith(b'{"event":"token","ns":["child:1"],"node":"agent"')


def test_the_last_token_says_so_where_the_provider_does() -> None:
    found = said(opened(), chunk("a"), chunk("b", chunk_position="last"))
    assert [f["data"].get("last") for f in found] == [None, True]


def test_an_empty_last_chunk_still_marks_the_end_of_the_text() -> None:
    found = said(opened(), chunk("a"), chunk("", chunk_position="last"))
    assert [(f["data"]["content"], f["data"].get("last")) for f in found] == [("a", None), ("", True)]


def test_what_a_provider_never_ends_is_ended_by_close_and_once_only() -> None:
    message = opened()
    said(message, chunk("a"))
    assert data(message.close()) == [{"id": "m1", "content": "", "role": "assistant", "last": True}]
    assert data(message.close()) == []


def test_close_after_a_last_token_says_nothing_more() -> None:
    message = opened()
    said(message, chunk("a", chunk_position="last"))
    assert data(message.close()) == []


def test_chunks_with_nothing_in_them_make_no_frame() -> None:
    assert said(opened(), chunk(""), chunk([]), chunk("", chunk_position="last")) == []


def test_a_chunk_of_usage_behind_the_last_one_says_nothing() -> None:
    message = opened()
    said(message, chunk("a", chunk_position="last"))
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    assert said(message, chunk("", usage_metadata=usage), chunk("", chunk_position="last")) == []


def test_the_text_so_far_is_all_tokens_joined() -> None:
    message = opened()
    said(message, chunk("a\u2028"), chunk([{"type": "text", "text": "b", "index": 0}]), chunk("ü"))
    assert message.text == "a\u2028bü"


def test_characters_at_which_clients_split_lines_are_escaped_in_tokens() -> None:
    [event] = opened().add(chunk("a\u2028b\u2029c\u0085d\re\nf"))
    assert not {"\u2028", "\u2029", "\u0085", "\r", "\n"} & set(event.text.decode())
    assert orjson.loads(event.text)["data"]["content"] == "a\u2028b\u2029c\u0085d\re\nf"


# -- blocks and reasoning ---------------------------------------------------------------------------------------------


def test_each_block_of_a_content_keeps_its_index() -> None:
    found = said(
        opened(),
        chunk([{"type": "text", "text": "a", "index": 0}, {"type": "text", "text": "b", "index": 1}]),
        chunk([{"type": "text", "text": "c", "index": "lc_txt_2"}], chunk_position="last"),
    )
    assert [(f["data"]["content"], f["data"]["index"], f["data"].get("last")) for f in found] == [
        ("a", 0, None),
        ("b", 1, None),
        ("c", "lc_txt_2", True),
    ]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "reasoning", "reasoning": "hm", "index": 0}],
        [{"type": "thinking", "thinking": "hm", "signature": "s", "index": 0}],
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "h"}, {"text": "m"}], "index": 0}],
    ],
    ids=["standard", "anthropic", "openai-responses"],
)
def test_reasoning_stands_under_its_own_key_and_is_no_text(content: Any) -> None:
    message = opened()
    assert data(message.add(chunk(content))) == [
        {"id": "m1", "content": "", "role": "assistant", "index": 0, "reasoning": "hm"}
    ]
    assert message.text == ""


def test_reasoning_beside_the_content_comes_before_it() -> None:
    found = said(opened(), chunk("yes", additional_kwargs={"reasoning_content": "hm"}))
    assert [(f["data"]["content"], f["data"].get("reasoning")) for f in found] == [("", "hm"), ("yes", None)]


BLOCKS: list[Any] = [
    {"type": "image", "base64": "aGk=", "mime_type": "image/png", "index": 1},
    {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav", "index": 2},
    {"type": "file", "url": "https://example.org/a.pdf", "mime_type": "application/pdf", "index": "lc_file_3"},
    {"type": "server_tool_call", "id": "c1", "name": "web_search", "args": {"q": "x"}, "index": 4},
    {"type": "of_tomorrow", "anything": [1], "index": 5},
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["type"])
def test_a_block_that_is_no_text_keeps_its_type_and_its_index_and_is_no_text(block: Any) -> None:
    message = opened()
    assert said(message, chunk([block]), chunk([block], chunk_position="last")) == [
        {
            "event": "token",
            "node": "agent",
            "data": {"id": "m1", "content": "", "role": "assistant", "index": block["index"], "block": block, **end},
        }
        for end in ({}, {"last": True})
    ]
    assert message.text == ""


@pytest.mark.parametrize(
    ("provider", "block", "standard"),
    [
        (
            None,
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "image", "url": "https://x/y.png"},
        ),
        (
            "openai",
            {"type": "image_generation_call", "id": "i1", "result": "aGk=", "index": 2},
            {"type": "image", "id": "i1", "base64": "aGk="},
        ),
        (
            "anthropic",
            {"type": "server_tool_use", "id": "c1", "name": "web_search", "input": {"q": 1}, "index": 0},
            {"type": "server_tool_call", "id": "c1", "name": "web_search", "args": {"q": 1}},
        ),
        # pieces that lack what LangChain looks for are as they came
        ("openai", {"type": "image_url"}, {"type": "image_url"}),
        ("anthropic", {"type": "document"}, {"type": "document"}),
    ],
)
def test_a_providers_block_has_langchains_standard_form(provider: str | None, block: Any, standard: Any) -> None:
    metadata = {} if provider is None else {"model_provider": provider}
    [token] = data(opened().add(chunk([block], response_metadata=metadata)))
    assert token["content"] == ""
    assert token.get("index") == block.get("index")
    assert standard.items() <= token["block"].items()


@pytest.mark.parametrize("key", ["annotations", "citations"])
def test_citations_stand_beside_the_text_they_are_of(key: str) -> None:
    note = {"type": "citation", "url": "https://example.org", "cited_text": "a"}
    blocks = [
        {"type": "text", "text": "a", "index": 0},
        {"type": "text", "text": "", key: [note], "index": 0},
        {"type": "text", "text": "b", key: [], "index": 1},
    ]
    found = data(opened().add(chunk(blocks)))
    assert [(d["content"], d["index"], d.get("annotations")) for d in found] == [
        ("a", 0, None),
        ("", 0, [note]),
        ("b", 1, None),
    ]


def test_speech_beside_the_content_is_a_block() -> None:
    speech = {"id": "a1", "data": "aGk=", "transcript": "hi"}
    [token] = data(opened().add(chunk("", additional_kwargs={"audio": speech})))
    assert token["block"] == {"type": "audio", "id": "a1", "base64": "aGk=", "transcript": "hi"}


def test_a_whole_message_gives_its_blocks_too() -> None:
    found = data(opened().whole(AIMessage(["look: ", *BLOCKS])))
    assert [d.get("block") for d in found] == [None, *BLOCKS]
    assert [d.get("last") for d in found] == [None] * len(BLOCKS) + [True]


def test_blocks_that_have_frames_of_their_own_or_say_nothing_are_left_out() -> None:
    blocks = [{"type": "tool_use"}, "plain", {"type": "text", "text": ""}, {"type": "tool_call_chunk"}, {}]
    assert [f["data"]["content"] for f in said(opened(), chunk(blocks))] == ["plain"]


# -- tool calls -------------------------------------------------------------------------------------------------------


def test_every_piece_of_a_tool_call_has_its_id_and_name() -> None:
    message = opened()
    found = said(message, call_piece("", id="c1", name="add"), call_piece('{"a":'), call_piece(" 1}"))
    assert [f["event"] for f in found] == ["tool_call_delta"] * 3
    assert [f["data"] for f in found] == [
        {"id": "c1", "name": "add", "args": args, "message_id": "m1"} for args in ("", '{"a":', " 1}")
    ]
    assert frames(message.close()) == [
        {
            "event": "tool_call",
            "node": "agent",
            "data": {"id": "c1", "name": "add", "args": {"a": 1}, "message_id": "m1"},
        }
    ]


def test_calls_that_are_written_at_once_are_told_apart_by_their_index() -> None:
    message = opened()
    said(
        message,
        call_piece("", index=0, id="c1", name="add"),
        call_piece("", index=1, id="c2", name="sub"),
        call_piece('{"x": 1}', index=0),
        call_piece('{"y": 2}', index=1),
    )
    assert [(d["id"], d["name"], d["args"]) for d in data(message.close())] == [
        ("c1", "add", {"x": 1}),
        ("c2", "sub", {"y": 2}),
    ]


def test_another_id_at_the_same_index_is_another_call() -> None:
    message = opened()
    said(message, call_piece('{"x": 1}', id="c1", name="add"), call_piece('{"y": ', id="c2", name="sub"))
    assert said(message, call_piece("2}"))[0]["data"]["id"] == "c2"
    assert [(d["id"], d["args"]) for d in data(message.close())] == [("c1", {"x": 1}), ("c2", {"y": 2})]


def test_without_an_index_pieces_belong_to_the_call_that_was_begun_last() -> None:
    message = opened()
    found = said(
        message,
        call_piece("{", index=None, id="c1", name="add"),
        call_piece("}", index=None),
        call_piece("{}", index=None, id="c2", name="sub"),
    )
    assert [f["data"]["id"] for f in found] == ["c1", "c1", "c2"]
    assert [d["args"] for d in data(message.close())] == [{}, {}]


def test_arguments_that_are_no_json_are_given_as_their_text() -> None:
    message = opened()
    said(message, call_piece('{"a": oops', id="c1", name="add"))
    assert data(message.close())[0]["args"] == '{"a": oops'


def test_a_call_without_arguments_has_an_empty_object() -> None:
    message = opened()
    said(message, call_piece("", id="c1", name="now"))
    assert data(message.close())[0]["args"] == {}


def test_complete_calls_come_behind_the_last_token() -> None:
    message = opened()
    found = said(message, chunk("I add."), call_piece("{}", id="c1", name="add"), chunk("", chunk_position="last"))
    assert [f["event"] for f in found] == ["token", "tool_call_delta", "token", "tool_call"]
    assert found[2]["data"]["last"] is True


# -- whole messages ---------------------------------------------------------------------------------------------------


def test_a_message_that_came_at_once_is_one_frame_with_the_whole_text() -> None:
    message = opened()
    assert data(message.whole(AIMessage("all of it"))) == [
        {"id": "m1", "content": "all of it", "role": "assistant", "last": True}
    ]
    assert data(message.close()) == []


def test_of_a_whole_message_only_the_last_block_is_the_last() -> None:
    content: list[Any] = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    found = data(opened().whole(AIMessage(content)))
    assert [d.get("last") for d in found] == [None, None, True]


def test_a_whole_message_gives_its_calls_the_broken_ones_too() -> None:
    message = AIMessage(
        "",
        tool_calls=[{"id": "c1", "name": "add", "args": {"a": 1}}],
        invalid_tool_calls=[{"id": "c2", "name": "sub", "args": "{oops", "error": None}],
    )
    assert [(d["id"], d["name"], d["args"]) for d in data(opened().whole(message))] == [
        ("c1", "add", {"a": 1}),
        ("c2", "sub", "{oops"),
    ]


def test_a_message_that_was_streamed_is_not_said_again_as_a_whole() -> None:
    message = opened()
    said(message, chunk("a"))
    assert data(message.whole(AIMessage("a"))) == []


# -- of a node's update -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"messages": [HumanMessage("q", id="1"), AIMessage("a", id="2")]}, ("AIMessage", "a", "2")),
        ({"messages": AIMessage("alone", id="2")}, ("AIMessage", "alone", "2")),
        ({"messages": [AIMessageChunk(content="sum", id="2")]}, ("AIMessage", "sum", "2")),
        ({"messages": [ToolMessage("4", tool_call_id="c", id="3")]}, ("ToolMessage", "4", "3")),
        ({"messages": [SystemMessage("s", id="4")]}, ("SystemMessage", "s", "4")),
        ({"messages": [AIMessage("a", id="2"), RemoveMessage(id="1")]}, ("AIMessage", "a", "2")),
        ({"messages": [{"role": "user", "content": "d", "id": "5"}]}, ("HumanMessage", "d", "5")),
        ({"messages": [("ai", "pair")]}, ("AIMessage", "pair", None)),
        ({"messages": "plain"}, ("HumanMessage", "plain", None)),
        ({"answer": AIMessage("other key", id="6")}, ("AIMessage", "other key", "6")),
        ({"answer": AIMessage("no", id="6"), "messages": [AIMessage("yes", id="7")]}, ("AIMessage", "yes", "7")),
    ],
)
def test_the_newest_message_is_told_by_its_class(update: Any, expected: tuple[Any, ...]) -> None:
    found = newest_message(update)
    assert found is not None
    assert (found["type"], found["content"], found["id"]) == expected
    assert list(found)[:3] == ["type", "content", "id"]


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"messages": []},
        {"messages": None},
        {"messages": 5},
        {"messages": [5, object()]},
        {"messages": [RemoveMessage(id="1")]},
        {"text": "ai", "list": ["user", ("ai", "no message under this key")]},
    ],
)
def test_without_a_message_there_is_none(update: Any) -> None:
    assert newest_message(update) is None


def test_ids_are_given_to_messages_that_have_none_wherever_an_update_holds_them() -> None:
    alone, listed, kept = AIMessage("a"), ToolMessage("b", tool_call_id="c"), AIMessage("c", id="mine")
    give_ids([{"messages": [listed, kept]}, {"answer": alone}])
    assert alone.id
    assert listed.id
    assert alone.id != listed.id
    assert kept.id == "mine"


def test_giving_ids_ends_on_an_update_that_holds_itself() -> None:
    update: dict[str, Any] = {"messages": [AIMessage("a")]}
    update["self"] = update
    give_ids(update)
    message: BaseMessage = update["messages"][0]
    assert message.id
