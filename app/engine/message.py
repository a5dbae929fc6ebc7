"""Messages of a model as events: tokens, tool calls, reasoning (wire contract, section 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import uuid4

import orjson
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, RemoveMessage, convert_to_messages

from app.engine.jsonable import dumps
from app.runs.event import EventKind, NewEvent

TEXTS: Final = frozenset({"text", "output_text"})
# blocks that have frames of their own, or nothing to show
TOLD_ELSEWHERE: Final = frozenset(
    {
        *TEXTS,
        "reasoning",
        "thinking",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "input_json_delta",
        "function_call",
    }
)


class OpenMessage:
    """A message that a model has begun to speak; it makes the events of its pieces and knows when it is over."""

    def __init__(self, *, id: str, node: str, ns: tuple[str, ...], tags: Sequence[str] = ()) -> None:
        self.id = id
        self.node = node
        self._place: dict[str, Any] = {**({"ns": ns} if ns else {}), "node": node, **({"tags": tags} if tags else {})}
        # what stands before the text is the same for every token of the message
        self._before = dumps({"event": "token", **self._place})[:-1] + b',"data":' + dumps({"id": id})[:-1]
        self._texts: list[str] = []
        self._calls: list[_Call] = []
        self._call_at: dict[Any, _Call] = {}  # the call that a piece without an id goes on with
        self._spoke = False
        self._closed = False

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def is_closed(self) -> bool:
        return self._closed

    def add(self, chunk: AIMessageChunk) -> Iterator[NewEvent]:
        """The events of one chunk. The last one says so, where the model does."""
        is_last = chunk.chunk_position == "last"
        if self._closed and not (chunk.content or chunk.tool_call_chunks):
            return
        said_last = False
        if isinstance(chunk.content, str) and not chunk.additional_kwargs:
            if chunk.content:
                said_last = is_last
                yield self._token(_Piece(chunk.content), last=is_last)
        else:
            pieces = list(pieces_of(chunk))
            said_last = is_last and bool(pieces)
            yield from self._tokens(pieces, last=is_last)
        for piece in chunk.tool_call_chunks:
            yield self._delta(piece)
        if is_last:
            yield from self.close(said_last=said_last)

    def whole(self, message: AIMessage) -> Iterator[NewEvent]:
        """The events of a message that came at once: from a model that cannot stream, or made by a node."""
        if self._spoke or self._calls:
            return
        yield from self._tokens(list(pieces_of(message)), last=True)
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        self._calls = [_Call(id=call["id"], name=call["name"], args=call["args"]) for call in calls]
        yield from self.close(said_last=True)

    def close(self, *, said_last: bool = False) -> Iterator[NewEvent]:
        """The message is over: mark its last token, where that was not done, and give its complete tool calls."""
        if self._closed:
            return
        self._closed = True
        if self._spoke and not said_last:
            yield self._token(_Piece(""), last=True)
        for call in self._calls:
            data = {"id": call.id, "name": call.name, "args": call.arguments, "message_id": self.id}
            yield self._event("tool_call", data)

    def _tokens(self, pieces: "Sequence[_Piece]", *, last: bool) -> Iterator[NewEvent]:
        for number, piece in enumerate(pieces, 1):
            yield self._token(piece, last=last and number == len(pieces))

    def _token(self, piece: "_Piece", *, last: bool = False) -> NewEvent:
        self._spoke = True
        if piece.content:
            self._texts.append(piece.content)
        text = b'%b,"content":%b,"role":"assistant"' % (self._before, dumps(piece.content))
        if piece.index is not None:
            text += b',"index":%b' % dumps(piece.index)
        if piece.reasoning:
            text += b',"reasoning":%b' % dumps(piece.reasoning)
        if piece.annotations:
            text += b',"annotations":%b' % dumps(piece.annotations)
        if piece.block:
            text += b',"block":%b' % dumps(piece.block)
        return NewEvent("token", text + (b',"last":true}}' if last else b"}}"))

    def _delta(self, piece: Mapping[str, Any]) -> NewEvent:
        call = self._call_of(piece)
        args = piece.get("args") or ""
        call.pieces.append(args)
        data = {"id": call.id, "name": call.name, "args": args, "message_id": self.id}
        return self._event("tool_call_delta", data)

    def _call_of(self, piece: Mapping[str, Any]) -> "_Call":
        """The call that a piece belongs to: told by its index, yet another id begins another call."""
        key, id = piece.get("index"), piece.get("id")
        if key is None:
            key = id or next(reversed(self._call_at), None)
        call = self._call_at.get(key)
        if call is None or (id and call.id and id != call.id):
            call = self._call_at[key] = _Call(id=id, name=piece.get("name"))
            self._calls.append(call)
        call.id = call.id or id
        call.name = call.name or piece.get("name")
        return call

    def _event(self, kind: EventKind, data: Mapping[str, Any]) -> NewEvent:
        return NewEvent(kind, dumps({"event": kind, **self._place, "data": data}))


class _Piece(NamedTuple):
    """What a token frame says of one block of the content: text, or beside it what is not text."""

    content: str
    index: Any = None
    reasoning: str = ""
    annotations: Sequence[Any] = ()
    block: Mapping[str, Any] | None = None


def pieces_of(message: AIMessage) -> Iterator[_Piece]:
    """The pieces of a content that is a string or made of blocks, and of what comes beside it."""
    reasoning = message.additional_kwargs.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        yield _Piece("", reasoning=reasoning)
    for block in blocks_of(message):
        if isinstance(block, str):
            if block:
                yield _Piece(block)
        elif thought := thought_of(block):
            yield _Piece("", block.get("index"), thought)
        elif block.get("type") in TEXTS:
            notes = notes_of(block)
            if block.get("text") or notes:
                yield _Piece(block.get("text") or "", block.get("index"), annotations=notes)
        elif block.get("type") and block["type"] not in TOLD_ELSEWHERE:
            yield from (_Piece("", block.get("index"), block=one) for one in standard(block, message))


def blocks_of(message: AIMessage) -> Iterator[str | Mapping[str, Any]]:
    """A message's content as blocks; speech, which one provider puts beside the content, is the last of them."""
    yield from [message.content] if isinstance(message.content, str) else message.content
    speech = message.additional_kwargs.get("audio")
    if isinstance(speech, Mapping):
        sound = {"base64": speech["data"]} if "data" in speech else {}
        yield {"type": "audio", **{key: value for key, value in speech.items() if key != "data"}, **sound}


def standard(block: Mapping[str, Any], message: AIMessage) -> Sequence[Mapping[str, Any]]:
    """A block that is neither text nor reasoning, in LangChain's standard form; as it is, where there is none."""
    try:
        # the translators are made for whole messages of their providers, and a piece may lack what they look for
        found = AIMessage(content=[dict(block)], response_metadata=message.response_metadata).content_blocks
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [block]
    return [block if one["type"] == "non_standard" else one for one in found if one["type"] not in TOLD_ELSEWHERE]


def notes_of(block: Mapping[str, Any]) -> Sequence[Any]:
    """What is noted of a text: citations, in the forms that providers give them."""
    notes = block.get("annotations") or block.get("citations") or []
    return notes if isinstance(notes, list) else [notes]


class _Call:
    """A tool call while its arguments come as pieces of JSON text, or one whose arguments are there."""

    def __init__(self, *, id: str | None, name: str | None, args: Any = None) -> None:
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self._args = args

    @property
    def arguments(self) -> Any:
        """The parsed arguments; the text itself where a model wrote no JSON."""
        if self._args is not None:
            return self._args
        text = "".join(self.pieces)
        try:
            return orjson.loads(text or "{}")
        except orjson.JSONDecodeError:
            return text


def thought_of(block: Mapping[str, Any]) -> str:
    """The reasoning text of a content block, in the forms providers give it."""
    match block.get("type"):
        case "reasoning":
            if isinstance(block.get("reasoning"), str):
                return str(block["reasoning"])
            summary = block.get("summary") or ()
            return "".join(str(s.get("text", "")) for s in summary if isinstance(s, Mapping))
        case "thinking":
            return str(block.get("thinking") or "")
        case _:
            return ""


def give_ids(update: Any, depth: int = 3) -> None:
    """Give the messages of an update their ids: the event, the saved writes and the state then all have the same ones.

    LangGraph's reducer would do so later, when the event has been made.
    """
    if isinstance(update, BaseMessage):
        if update.id is None:
            update.id = str(uuid4())
    elif depth and isinstance(update, Mapping | list | tuple):
        for value in update.values() if isinstance(update, Mapping) else update:
            give_ids(value, depth - 1)


def newest_message(update: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The newest message of a node's update: of its `messages`, else of another key; `type` is the class."""
    keys = ["messages", *(k for k in update if k != "messages")] if "messages" in update else list(update)
    for key in keys:
        if message := _last_message(update[key], is_chat=key == "messages"):
            fields = message.model_dump()
            fields["type"] = type(message).__name__.removesuffix("Chunk")
            return {"type": fields["type"], "content": fields.get("content"), "id": fields.get("id"), **fields}
    return None


def _last_message(value: Any, *, is_chat: bool) -> BaseMessage | None:
    if isinstance(value, BaseMessage):
        return None if isinstance(value, RemoveMessage) else value
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        return _converted(value) if is_chat and isinstance(value, Mapping | str) else None
    for item in reversed(value):
        if isinstance(item, BaseMessage):
            if not isinstance(item, RemoveMessage):
                return item
        elif is_chat and (message := _converted(item)):
            return message
    return None


def _converted(value: Any) -> BaseMessage | None:
    """A message in one of the short forms that LangGraph's reducer takes: a pair, a dict, a string."""
    try:
        return convert_to_messages([value])[0]
    except (ValueError, TypeError, NotImplementedError, KeyError):
        return None
