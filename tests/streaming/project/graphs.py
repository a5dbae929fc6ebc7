"""Graphs that speak, stall, report and hide, for tests of what clients see of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from app.streaming import CallEvent, progress, stream_events, stream_progress, stream_tokens, track
from tests.project.graphs import Chat, Mute, Speaker, Steps, pass_gate, trace

# -- words that stop in the middle of a message, or after it ----------------------------------------------------------


class Gated(TypedDict, total=False):
    gate: str
    messages: Annotated[list[BaseMessage], add_messages]


class Stalling(Speaker):
    """Says a word for each step that its gate was opened."""

    gate: str

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number, chunk in enumerate(self._chunks(), 1):
            await pass_gate(self.gate, number)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


async def stall(state: Gated) -> dict[str, Any]:
    trace("stall")
    return {"messages": [await Stalling(words=["one ", "two ", "three "], gate=state["gate"]).ainvoke("go")]}


stalls = StateGraph(Gated).add_node("speak", stall).add_edge(START, "speak").add_edge("speak", END).compile()


def sayer(name: str, *tags: str) -> Any:
    async def node(state: Chat) -> Chat:
        model = Speaker(words=[f"{name} ", "says", " ", "this", "."]).with_config(tags=list(tags))
        return {"messages": [await model.ainvoke("go")]}

    return node


duet = (
    StateGraph(Chat)
    .add_node("draft", sayer("draft", "loud"))
    .add_node("review", sayer("review", "quiet"))
    .add_node("sum", sayer("sum"))
    .add_edge(START, "draft")
    .add_edge(START, "review")
    .add_edge(["draft", "review"], "sum")
    .add_edge("sum", END)
    .compile()
)

# -- a state of many kinds --------------------------------------------------------------------------------------------


def add_up(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """A reducer that merges, and drops what comes to nothing."""
    merged = {key: old.get(key, 0) + new.get(key, 0) for key in {**old, **new}}
    return {key: count for key, count in merged.items() if count}


class World(TypedDict, total=False):
    then: str  # ask, fail, wait
    gate: str
    log: Annotated[list[str], lambda old, new: [*old, *new]]
    counts: Annotated[dict[str, int], add_up]
    tree: Any
    order: list[Any]
    messages: Annotated[list[BaseMessage], add_messages]


async def plan(state: World) -> dict[str, Any]:
    tree = {"a/b": {"~": [1, {"deep": True}], "gone": {"x": 1}}, "same": [True, 1, 1.0, None, "\u2028"]}
    return {"log": ["plan"], "counts": {"left": 2, "both": 1}, "tree": tree, "order": [1, 2, 3, {"k": [1]}]}


async def left(state: World) -> dict[str, Any]:
    progress(1, 2, message="left")
    return {"log": ["left"], "counts": {"left": -2, "both": 1}}


async def right(state: World) -> dict[str, Any]:
    words = ["I ", "am ", "right."]
    return {"log": ["right"], "counts": {"both": 1}, "messages": [await Speaker(words=words).ainvoke("go")]}


async def turn(state: World) -> dict[str, Any]:
    tree = {"a/b": {"~": [1, {"deep": 1}]}, "same": [1, True, None, 1.0]}
    return {"tree": tree, "order": [{"k": [True]}, 3, 2], "log": ["turn"]}


async def last(state: World) -> dict[str, Any]:
    match state.get("then"):
        case "ask":
            return {"log": [f"answer {interrupt('well?')}"]}
        case "fail":
            raise ValueError("password=hunter2")
        case "wait":
            words = [f"word{index} " for index in range(20)]
            message = await Stalling(words=words, gate=state["gate"]).ainvoke("go")
            return {"log": ["waited"], "messages": [message]}
    return {"log": ["last"]}


mirrored = (
    StateGraph(World)
    .add_node("plan", plan)
    .add_node("left", left)
    .add_node("right", right)
    .add_node("turn", turn)
    .add_node("last", last)
    .add_edge(START, "plan")
    .add_edge("plan", "left")
    .add_edge("plan", "right")
    .add_edge(["left", "right"], "turn")
    .add_edge("turn", "last")
    .add_edge("last", END)
    .compile()
)


class OwnStreaming(TypedDict, total=False):
    streaming: str
    messages: Annotated[list[BaseMessage], add_messages]


async def own_streaming(state: OwnStreaming) -> dict[str, Any]:
    return {"streaming": "mine", "messages": [await Speaker(words=["a", "b"]).ainvoke("go")]}


# its state has a key of the name that the mirror uses
own_key = (
    StateGraph(OwnStreaming)
    .add_node("first", own_streaming)
    .add_node("second", own_streaming)
    .add_edge(START, "first")
    .add_edge("first", "second")
    .add_edge("second", END)
    .compile()
)

# -- progress ---------------------------------------------------------------------------------------------------------


def work_sync(state: Steps) -> Steps:
    for _ in track(range(100_000), message="sync"):
        pass
    return {"log": ["sync"]}


async def work_async(state: Steps) -> Steps:
    for number in range(1, 100_001):
        progress(number, 100_000, message="async")
    return {"log": ["async"]}


@stream_progress(interval_seconds=60, milestones=(25, 50, 75))
async def work_milestones(state: Steps) -> Steps:
    for _ in track(range(1000)):
        pass
    return {"log": ["milestones"]}


async def work_without_total(state: Steps) -> Steps:
    for number in range(1000):
        progress(number)
    if state.get("answer") == "fail":
        raise ValueError("after all that")
    return {"log": ["counted"]}


works = (
    StateGraph(Steps)
    .add_node("counted", work_without_total)
    .add_node("sync", work_sync)
    .add_node("async", work_async)
    .add_node("milestones", work_milestones)
    .add_edge(START, "counted")
    .add_edge("counted", "sync")
    .add_edge("sync", "async")
    .add_edge("async", "milestones")
    .add_edge("milestones", END)
    .compile()
)


def shout(event: CallEvent) -> Any:
    return {"what": event.event.upper(), "output": event.output}


@stream_events()
async def heard(state: Steps) -> Steps:
    return {"log": ["heard"]}


@stream_events(name="loud", filter=lambda event: event.event == "end", transformer=shout)
def heard_loudly(state: Steps) -> Steps:
    return {"log": ["loud"]}


hears = (
    StateGraph(Steps)
    .add_node("heard", heard)
    .add_node("loudly", heard_loudly)
    .add_edge(START, "heard")
    .add_edge("heard", "loudly")
    .add_edge("loudly", END)
    .compile()
)

# -- what no client may see: everything that is hidden holds the word SECRET ------------------------------------------


class Box(BaseModel):
    internal: str = "SECRET box"


class Guarded(TypedDict, total=False):
    then: str
    internal: Any
    notes: Annotated[list[str], lambda old, new: [*old, *new]]
    messages: Annotated[list[BaseMessage], add_messages]
    hushed: Annotated[list[BaseMessage], add_messages]


async def think_aloud(text: str) -> str:
    """What runs inside a node under a tag of its own."""
    get_stream_writer()(f"{text} writing")
    progress(1, 2, message=f"{text} step")
    await adispatch_custom_event("thought", f"{text} event")
    return text


async def shown(state: Guarded) -> dict[str, Any]:
    get_stream_writer()("hello")
    await RunnableLambda(think_aloud).with_config(tags=["internal"]).ainvoke("SECRET")
    progress(1, 2, message="going")
    hidden = Speaker(words=["SECRET ", "thought"]).with_config(tags=["internal"])
    unstreamed = Speaker(words=["SECRET ", "whisper"]).with_config(tags=["internal", "nostream"])
    hushed = [await hidden.ainvoke("go"), await unstreamed.ainvoke("go")]
    hushed.append(await Mute().with_config(tags=["internal"]).ainvoke("go"))
    hushed[-1].content = "SECRET at once"
    said = await Speaker(words=["said ", "aloud"]).ainvoke("go")
    return {"notes": ["shown"], "messages": [said], "hushed": hushed, "internal": {"key": "SECRET value"}}


async def hidden_node(state: Guarded) -> dict[str, Any]:
    get_stream_writer()("SECRET custom")
    progress(1, 2, message="SECRET progress")
    await adispatch_custom_event("SECRET name", "SECRET data")
    said = await Speaker(words=["SECRET ", "words"], message_id="hidden-message").ainvoke("go")
    result = ToolMessage("SECRET result", tool_call_id="c1", name="secret")
    if state.get("then") == "wait":
        trace("waiting")
        await Speaker(words=["SECRET ", "partial"] * 500, delay_seconds=0.05).ainvoke("go")
    if state.get("then") == "fail":
        raise ValueError("SECRET error")
    return {"internal": [said, result], "hushed": [said]}


async def below(state: Guarded) -> dict[str, Any]:
    get_stream_writer()("SECRET below")
    said = await Speaker(words=["SECRET ", "below"]).ainvoke("go")
    return {"notes": ["SECRET note"], "internal": "SECRET", "hushed": [said]}


async def visible_below(state: Guarded) -> dict[str, Any]:
    get_stream_writer()("from below")
    if state.get("then") == "ask below":
        interrupt("a question from below")
    return {"notes": ["visible"], "internal": [ToolMessage("SECRET result", tool_call_id="c2", name="secret")]}


class HiddenBelow(TypedDict, total=False):
    notes: Annotated[list[str], lambda old, new: [*old, *new]]
    internal: Any
    hushed: Annotated[list[BaseMessage], add_messages]


class Nothing(TypedDict, total=False):
    hushed: Annotated[list[BaseMessage], add_messages]


# its state has a `notes` of its own, which its parent never gets
hidden_graph = (
    StateGraph(HiddenBelow, output_schema=Nothing)
    .add_node("shown", below)
    .add_edge(START, "shown")
    .add_edge("shown", END)
    .compile()
)
shown_graph = (
    StateGraph(Guarded).add_node("inner", visible_below).add_edge(START, "inner").add_edge("inner", END).compile()
)


async def scatter(state: Guarded) -> dict[str, Any]:
    return {"notes": ["scatter"]}


def to_workers(state: Guarded) -> list[Send]:
    return [Send("worker", "SECRET argument"), Send("worker", Box())]


async def worker(state: Box) -> Any:
    """Several writes to one key make a list of its update."""
    secret = {"notes": ["one"], "hushed": [AIMessage("SECRET update")]}
    return [Command(update=secret), Command(update={"notes": ["two"]})]


async def closing(state: Guarded) -> dict[str, Any]:
    if state.get("then") == "ask":
        interrupt("a question")
    return {"notes": ["closing"]}


guarded = (
    StateGraph(Guarded)
    .add_node("shown", shown)
    .add_node("hidden", hidden_node)
    .add_node("hidden_child", hidden_graph)
    .add_node("child", shown_graph)
    .add_node("scatter", scatter)
    .add_node("worker", worker)
    .add_node("closing", closing)
    .add_edge(START, "shown")
    .add_edge("shown", "hidden")
    .add_edge("hidden", "hidden_child")
    .add_edge("hidden_child", "child")
    .add_edge("child", "scatter")
    .add_conditional_edges("scatter", to_workers, ["worker"])
    .add_edge("worker", "closing")
    .add_edge("closing", END)
    .compile()
)


async def hush(state: Chat) -> Chat:
    model = Speaker(words=["not ", "streamed"]).with_config(tags=["nostream"])
    return {"messages": [await model.ainvoke("go")]}


class Switched(Speaker):
    """A model with the switch that several providers' classes have."""

    streaming: bool = True


def switched(model: Speaker) -> Any:
    async def node(state: Chat) -> Chat:
        return {"messages": [await model.ainvoke("go")]}

    return StateGraph(Chat).add_node("say", node).add_edge(START, "say").add_edge("say", END).compile()


unstreamed = switched(Switched(words=["not ", "streamed"], streaming=False))
disabled = switched(Speaker(words=["not ", "streamed"], disable_streaming=True))

hushes = StateGraph(Chat).add_node("hush", hush).add_edge(START, "hush").add_edge("hush", END).compile()

# -- stopping in the middle of a conversation with tools --------------------------------------------------------------


class Strict(Speaker):
    """As providers do, it refuses a conversation in which a tool call has no result."""

    words: list[str] = Field(default_factory=lambda: ["All ", "is ", "well."])
    gate: str = ""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        refuse_dangling(messages)
        if str(messages[-1].content) != "tools":
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        for chunk in calling("wait", "quick"):
            if run_manager:
                await run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


def calling(*names: str) -> list[ChatGenerationChunk]:
    calls = [{"name": name, "args": "{}", "id": f"call-{name}", "index": n} for n, name in enumerate(names)]
    pieces: list[dict[str, Any]] = [{"content": "I look."}, {"tool_call_chunks": calls}, {"chunk_position": "last"}]
    return [
        ChatGenerationChunk(message=AIMessageChunk(**{"content": "", "id": "calling", **piece})) for piece in pieces
    ]


def refuse_dangling(messages: list[BaseMessage]) -> None:
    open_calls: set[str | None] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            raise ValueError(f"calls without a result: {open_calls}")
        if isinstance(message, AIMessage):
            open_calls = {call["id"] for call in message.tool_calls}
    if open_calls:
        raise ValueError(f"calls without a result: {open_calls}")


class Talk(TypedDict, total=False):
    route: str
    messages: Annotated[list[BaseMessage], add_messages]


async def answer(state: Talk) -> dict[str, Any]:
    slowly = str(state["messages"][-1].content) == "slowly"
    words = [f"word{n} " for n in range(300)] if slowly else ["All ", "is ", "well."]
    model = Strict(words=words, delay_seconds=0.05 if slowly else 0)
    return {"messages": [await model.ainvoke(state["messages"])], "route": "known"}


class Call(TypedDict):
    """What a model writes of a call, so far as it is looked at."""

    name: str
    id: str


def to_tools(state: Talk) -> list[Send] | str:
    """As a graph may: it needs what only the node writes."""
    assert state["route"] == "known"
    message = state["messages"][-1]
    return [Send("tool", call) for call in message.tool_calls] if isinstance(message, AIMessage) else END


async def tool(state: Call) -> dict[str, Any]:
    trace(f"tool {state['name']}")
    if state["name"] == "wait":
        await asyncio.sleep(60)
    return {"messages": [ToolMessage("done", name=state["name"], tool_call_id=state["id"])]}


talks = (
    StateGraph(Talk)
    .add_node("answer", answer)
    .add_node("tool", tool)
    .add_edge(START, "answer")
    .add_conditional_edges("answer", to_tools, ["tool", END])
    .add_edge("tool", "answer")
    .compile()
)
only_branches = (
    StateGraph(Talk)
    .add_node("answer", answer)
    .add_edge(START, "answer")
    .add_conditional_edges("answer", lambda state: {"known": END}[state["route"]], [END])
    .compile()
)


async def speak_and_protest(state: Talk) -> dict[str, Any]:
    """Has much to say when it is stopped."""
    write = get_stream_writer()
    try:
        words = [f"word{n} " for n in range(300)]
        return {"messages": [await Speaker(words=words, delay_seconds=0.05).ainvoke("go")]}
    finally:
        for number in range(200):
            write(number)
            await asyncio.sleep(0)


protests = (
    StateGraph(Talk).add_node("speak", speak_and_protest).add_edge(START, "speak").add_edge("speak", END).compile()
)


class Plain(TypedDict, total=False):
    messages: list[BaseMessage]


async def speak_plain(state: Plain) -> dict[str, Any]:
    words = [f"word{n} " for n in range(300)]
    return {"messages": [*state["messages"], await Speaker(words=words, delay_seconds=0.05).ainvoke("go")]}


# its messages have no reducer
plain_list = StateGraph(Plain).add_node("speak", speak_plain).add_edge(START, "speak").add_edge("speak", END).compile()


# -- what is no text, and structured text; how their authors want it sent ---------------------------------------------

FORM = ['{"title": "A bo', 'at", "tags": ["sea"', ', "wind"], "year"', ": 19", "60}"]
PICTURE = {"type": "image", "base64": "aGk=", "mime_type": "image/png", "index": 1}
CITED = {"type": "text", "text": "", "annotations": [{"type": "citation", "url": "https://example.org"}], "index": 0}


class Painter(Speaker):
    """Says a word, cites its source, and shows a picture."""

    def _chunks(self) -> Any:
        text = {"type": "text", "text": "look ", "index": 0}
        contents: list[list[Any]] = [[text], [text], [CITED], [PICTURE], [{**text, "text": "there", "index": 2}]]
        for number, content in enumerate(contents, 1):
            end = {"chunk_position": "last"} if number == len(contents) else {}
            yield ChatGenerationChunk(message=AIMessageChunk(content=content, id=self.message_id, **end))


async def paint(state: Chat) -> Chat:
    return {"messages": [await Painter(words=[], message_id="painted").ainvoke("go")]}


@stream_tokens(format="structured", flush={"count": 2})
async def fill_in(state: Chat) -> Chat:
    return {"messages": [await Speaker(words=FORM, message_id="form").ainvoke("go")]}


@stream_tokens(exclude_whitespace=True, flush={"count": 3})
@stream_events(filter=lambda event: False)
async def remark(state: Chat) -> Chat:
    return {"messages": [await Speaker(words=["a ", "b ", " ", "c "], message_id="remark").ainvoke("go")]}


authored = (
    StateGraph(Chat)
    .add_node("paint", paint)
    .add_node("fill_in", fill_in)
    .add_node("remark", remark)
    .add_edge(START, "paint")
    .add_edge("paint", "fill_in")
    .add_edge("fill_in", "remark")
    .add_edge("remark", END)
    .compile()
)
authored_below = StateGraph(Chat).add_node("child", authored).add_edge(START, "child").add_edge("child", END).compile()
