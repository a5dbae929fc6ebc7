"""Small graphs for tests over real sockets. Each node writes a line to the file that RUNSTREAM_TEST_TRACE names."""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import operator
import os
import pathlib
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, NotRequired

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, Send, interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from app.streaming import track


def trace(line: str) -> None:
    path = os.environ.get("RUNSTREAM_TEST_TRACE")
    if path:
        with open(path, "a") as file:
            file.write(line + "\n")


class Speaker(BaseChatModel):
    """Says `words` with `delay_seconds` between them; a zero delay gives the loop a turn each `turn` words."""

    words: list[str]
    delay_seconds: float = 0.0
    fails_after: int | None = None
    message_id: str | None = None
    name_of_model: str = "speaker"

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        message_id = self.message_id or f"said-{uuid.uuid4()}"
        count = len(self.words)
        for index, word in enumerate(self.words):
            last = index == count - 1
            usage = {"input_tokens": 3, "output_tokens": count, "total_tokens": 3 + count} if last else None
            yield ChatGenerationChunk(
                message=AIMessageChunk(
                    content=word,
                    id=message_id,
                    chunk_position="last" if last else None,
                    usage_metadata=usage,
                    response_metadata={"model_name": self.name_of_model} if last else {},
                )
            )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = "".join(self.words)
        usage = {"input_tokens": 3, "output_tokens": len(self.words), "total_tokens": 3 + len(self.words)}
        message = AIMessage(content=text, usage_metadata=usage, response_metadata={"model_name": self.name_of_model})
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, chunk in enumerate(self._chunks()):
            if self.fails_after == index:
                raise ConnectionError("the provider went away, password=hunter2")
            await asyncio.sleep(self.delay_seconds)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


class Mute(BaseChatModel):
    """A model that cannot stream."""

    @property
    def _llm_type(self) -> str:
        return "mute"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = AIMessage(content="all at once", response_metadata={"model_name": "mute"})
        return ChatResult(generations=[ChatGeneration(message=message)])


class Steps(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    answer: Any
    messages: Annotated[list[BaseMessage], add_messages]


def step(name: str) -> Any:
    async def node(state: Steps) -> Steps:
        trace(name)
        return {"log": [name]}

    return node


steps = (
    StateGraph(Steps)
    .add_node("one", step("one"))
    .add_node("two", step("two"))
    .add_node("three", step("three"))
    .add_edge(START, "one")
    .add_edge("one", "two")
    .add_edge("two", "three")
    .add_edge("three", END)
    .compile()
)


class Chat(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


WORDS = ["Hello", ", ", "wide", " ", "world", "\u2028", "\u0085", "“ü”", "\n", "end."]


async def speak(state: Chat) -> Chat:
    trace("speak")
    return {"messages": [await Speaker(words=WORDS).ainvoke(state["messages"])]}


talk = StateGraph(Chat).add_node("speak", speak).add_edge(START, "speak").add_edge("speak", END).compile()


async def burst_node(state: Chat) -> Chat:
    count = int(str(state["messages"][-1].content) or 2000)
    words = [f"w{i} " for i in range(count)]
    return {"messages": [await Speaker(words=words, message_id=f"b{len(state['messages'])}").ainvoke("go")]}


burst = StateGraph(Chat).add_node("model", burst_node).add_edge(START, "model").add_edge("model", END).compile()


async def before(state: Steps) -> Steps:
    trace("before")
    return {"log": ["before"]}


async def question(state: Steps) -> Steps:
    trace("question")
    answer = interrupt({"question": "May I?"})
    trace("answered")
    return {"answer": answer, "log": ["answered"]}


async def after(state: Steps) -> Steps:
    trace("after")
    return {"log": ["after"]}


ask = (
    StateGraph(Steps)
    .add_node("before", before)
    .add_node("question", question)
    .add_node("after", after)
    .add_edge(START, "before")
    .add_edge("before", "question")
    .add_edge("question", "after")
    .add_edge("after", END)
    .compile()
)


async def two_questions(state: Steps) -> Steps:
    first = interrupt("first?")
    second = interrupt("second?")
    return {"answer": [first, second], "log": ["both"]}


ask_twice = StateGraph(Steps).add_node("twice", two_questions).add_edge(START, "twice").add_edge("twice", END).compile()


def asker(name: str) -> Any:
    async def node(state: Steps) -> Steps:
        trace(f"ask {name}")
        answer = interrupt({"from": name})
        trace(f"got {name}")
        return {"log": [f"{name}={answer}"]}

    return node


ask_both = (
    StateGraph(Steps)
    .add_node("left", asker("left"))
    .add_node("right", asker("right"))
    .add_node("after", after)
    .add_edge(START, "left")
    .add_edge(START, "right")
    .add_edge(["left", "right"], "after")
    .add_edge("after", END)
    .compile()
)

inner_ask = StateGraph(Steps).add_node("inner", question).add_edge(START, "inner").add_edge("inner", END).compile()
ask_below = (
    StateGraph(Steps)
    .add_node("child", inner_ask)
    .add_node("after", after)
    .add_edge(START, "child")
    .add_edge("child", "after")
    .add_edge("after", END)
    .compile()
)

inner_talk = StateGraph(Chat).add_node("speak", speak).add_edge(START, "speak").add_edge("speak", END).compile()
below = StateGraph(Chat).add_node("child", inner_talk).add_edge(START, "child").add_edge("child", END).compile()


async def tick(state: Steps) -> Steps:
    """Works on in silence, a line each tenth of a second."""
    try:
        for _ in range(300):
            trace("tick")
            await asyncio.sleep(0.1)
    finally:
        trace("left")
    return {"log": ["slow"]}


slow = (
    StateGraph(Steps)
    .add_node("before", before)
    .add_node("tick", tick)
    .add_node("after", after)
    .add_edge(START, "before")
    .add_edge("before", "tick")
    .add_edge("tick", "after")
    .add_edge("after", END)
    .compile()
)


async def slow_speak(state: Chat) -> Chat:
    words = [f"word{i} " for i in range(300)]
    trace("speaking")
    try:
        said = await Speaker(words=words, delay_seconds=0.1).ainvoke(state["messages"])
    finally:
        trace("left")
    return {"messages": [said]}


slow_talk = StateGraph(Chat).add_node("speak", slow_speak).add_edge(START, "speak").add_edge("speak", END).compile()
slow_below = StateGraph(Chat).add_node("child", slow_talk).add_edge(START, "child").add_edge("child", END).compile()


def sync_tick(state: Steps) -> Steps:
    wait = threading.Event()
    for _ in range(15):
        trace("tick")
        wait.wait(0.1)
    trace("left")
    return {"log": ["sync"]}


slow_sync = StateGraph(Steps).add_node("tick", sync_tick).add_edge(START, "tick").add_edge("tick", END).compile()


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: float


@dataclasses.dataclass
class Box:
    name: str
    points: list[Point]


class Opaque:
    pass


class Odd(TypedDict, total=False):
    colour: Colour
    point: Point
    box: Box
    when: datetime.datetime
    plain: Any
    seen: str


def odd_values() -> dict[Any, Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return {
        "bytes": b"\x00\xff",
        "decimal": decimal.Decimal("1.10"),
        "path": pathlib.PurePosixPath("/tmp/x"),
        "nan": float("nan"),
        "inf": float("inf"),
        "set": {1, 2},
        "tuple": (1, "two"),
        "delta": datetime.timedelta(seconds=90),
        "uuid": uuid.UUID(int=5),
        "lines": "a\u2028b\u2029c\u0085d\r\ne",
        1: "one",
        None: "none",
        "big": 2**70,
        "surrogate": "\ud800",
    }


async def make_odd(state: Odd) -> dict[str, Any]:
    get_stream_writer()({"opaque": Opaque(), "values": odd_values()})
    return {
        "colour": Colour.RED,
        "point": Point(x=1, y=float("nan")),
        "box": Box("b", [Point(x=2, y=0.5)]),
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "plain": {"delta": datetime.timedelta(seconds=90), "lines": "a\u2028b"},
    }


async def see_odd(state: Odd) -> dict[str, Any]:
    return {"seen": f"{type(state['colour']).__name__} {type(state['point']).__name__} {type(state['box']).__name__}"}


odd = (
    StateGraph(Odd)
    .add_node("make", make_odd)
    .add_node("see", see_odd)
    .add_edge(START, "make")
    .add_edge("make", "see")
    .add_edge("see", END)
    .compile()
)


async def fail(state: Steps) -> Steps:
    trace("fail")
    raise ValueError("password=hunter2")


fails = (
    StateGraph(Steps)
    .add_node("before", before)
    .add_node("fail", fail)
    .add_edge(START, "before")
    .add_edge("before", "fail")
    .add_edge("fail", END)
    .compile()
)


class Attempts(TypedDict, total=False):
    messages: Annotated[list[BaseMessage], add_messages]


def make_retries() -> Any:
    async def flaky(state: Attempts) -> Attempts:
        trace("flaky")
        count = pathlib.Path(os.environ["RUNSTREAM_TEST_TRACE"]).read_text().count("flaky")  # noqa: ASYNC240 a test's file
        fails_after = 3 if count % 2 == 1 else None
        said = await Speaker(words=["a", "b", "c", "d"], fails_after=fails_after).ainvoke("go")
        return {"messages": [said]}

    policy = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False, retry_on=ConnectionError)
    builder = StateGraph(Attempts).add_node("flaky", flaky, retry_policy=policy)
    return builder.add_edge(START, "flaky").add_edge("flaky", END).compile()


retries = make_retries()


def writer(name: str) -> Any:
    async def node(state: Steps) -> Steps:
        write = get_stream_writer()
        for index in range(3):
            write({"from": name, "index": index})
            await asyncio.sleep(0.005)
        await adispatch_custom_event("note", {"from": name})
        return {"log": [name]}

    return node


writers = (
    StateGraph(Steps)
    .add_node("left", writer("left"))
    .add_node("right", writer("right"))
    .add_edge(START, "left")
    .add_edge(START, "right")
    .add_edge("left", END)
    .add_edge("right", END)
    .compile()
)


class Caller(Speaker):
    """Thinks, and calls a tool, in pieces; once it has the result, it speaks."""

    words: list[str] = Field(default_factory=lambda: ["It ", "is ", "4."])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if any(isinstance(message, ToolMessage) for message in messages):
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        message_id = f"call-{uuid.uuid4()}"
        pieces: list[dict[str, Any]] = [
            {"content": [{"type": "reasoning", "reasoning": "Let me add.", "index": 0}]},
            {"content": [{"type": "text", "text": "I add.", "index": 1}]},
            {"tool_call_chunks": [{"name": "add", "args": "", "id": "call_1", "index": 2}]},
            {"tool_call_chunks": [{"name": None, "args": '{"a": 2, ', "id": None, "index": 2}]},
            {"tool_call_chunks": [{"name": None, "args": '"b": 2}', "id": None, "index": 2}]},
            {"chunk_position": "last"},
        ]
        for piece in pieces:
            chunk = ChatGenerationChunk(message=AIMessageChunk(**{"content": [], "id": message_id, **piece}))
            await asyncio.sleep(0)
            if run_manager:
                await run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


async def think(state: Chat) -> Chat:
    return {"messages": [await Caller().ainvoke(state["messages"])]}


async def use_tools(state: Chat) -> Chat:
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    results: list[BaseMessage] = [
        ToolMessage(str(call["args"]["a"] + call["args"]["b"]), name=call["name"], tool_call_id=call["id"])
        for call in last.tool_calls
    ]
    return {"messages": results}


def wants_tools(state: Chat) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


agent = (
    StateGraph(Chat)
    .add_node("think", think)
    .add_node("tools", use_tools)
    .add_edge(START, "think")
    .add_conditional_edges("think", wants_tools, ["tools", END])
    .add_edge("tools", "think")
    .compile()
)


async def speak_at_once(state: Chat) -> Chat:
    return {"messages": [await Mute().ainvoke(state["messages"])]}


mute = StateGraph(Chat).add_node("mute", speak_at_once).add_edge(START, "mute").add_edge("mute", END).compile()


class Form(TypedDict):
    topic: str


class FormState(Form, total=False):
    result: str
    secret: list[BaseMessage]


async def fill(state: FormState) -> dict[str, Any]:
    return {"result": state["topic"].upper(), "secret": [HumanMessage("internal"), AIMessage("internal too")]}


form = (
    StateGraph(FormState, input_schema=Form)
    .add_node("fill", fill)
    .add_edge(START, "fill")
    .add_edge("fill", END)
    .compile()
)


async def scatter(state: Steps) -> Steps:
    return {"log": ["scatter"]}


def to_workers(state: Steps) -> list[Send]:
    return [Send("worker", {"log": [str(index)]}) for index in range(3)]


async def worker(state: Steps) -> Steps:
    trace(f"worker {state['log'][0]}")
    return {"log": [f"worker {state['log'][0]}"]}


async def quiet(state: Steps) -> None:
    trace("quiet")


fan = (
    StateGraph(Steps)
    .add_node("scatter", scatter)
    .add_node("worker", worker)
    .add_node("quiet", quiet)
    .add_edge(START, "scatter")
    .add_conditional_edges("scatter", to_workers, ["worker"])
    .add_edge("worker", "quiet")
    .add_edge("quiet", END)
    .compile()
)

loops = StateGraph(Steps).add_node("again", step("again")).add_edge(START, "again").add_edge("again", "again").compile()


async def paced_speak(state: Chat) -> Chat:
    trace("paced")
    words = [f"w{i} " for i in range(40)]
    return {"messages": [await Speaker(words=words, delay_seconds=0.04).ainvoke(state["messages"])]}


# long enough for a client that was cut off to come back while the run still goes on (EventSource waits for 1 s)
paced = StateGraph(Chat).add_node("speak", paced_speak).add_edge(START, "speak").add_edge("speak", END).compile()


async def brisk_speak(state: Chat) -> Chat:
    words = [f"w{i} " for i in range(40)]
    return {"messages": [await Speaker(words=words, delay_seconds=0.01).ainvoke(state["messages"])]}


# the same for clients that come back at once
brisk = StateGraph(Chat).add_node("speak", brisk_speak).add_edge(START, "speak").add_edge("speak", END).compile()


@dataclasses.dataclass
class Place:
    city: str
    days: int = 1


async def tell(state: Steps, runtime: Runtime[Place]) -> Steps:
    config = get_config()
    own = {key: value for key, value in config["configurable"].items() if not key.startswith(("__", "checkpoint"))}
    metadata = {key: value for key, value in config["metadata"].items() if key.startswith("own")}
    tags = sorted(tag for tag in config.get("tags") or () if not tag.startswith("graph:"))
    place = None if runtime.context is None else dataclasses.asdict(runtime.context)
    return {"answer": {"configurable": own, "metadata": metadata, "tags": tags, "context": place}}


# what reaches a node of a request's config and context
told = StateGraph(Steps, context_schema=Place).add_node("tell", tell).add_edge(START, "tell").add_edge("tell", END)


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


ask_far = (
    StateGraph(Log)
    .add_node("near", inner_ask)
    .add_node("far", ask_below)
    .add_edge(START, "near")
    .add_edge(START, "far")
    .add_edge("near", END)
    .add_edge("far", END)
    .compile()
)


async def drill_on(state: Steps) -> Steps:
    answer = interrupt(len(state.get("log", [])))
    trace(f"drill {answer}")
    return {"log": [str(answer)], "answer": answer}


# asks again after each answer, until it is told to stop
drill = (
    StateGraph(Steps)
    .add_node("drill", drill_on)
    .add_edge(START, "drill")
    .add_conditional_edges("drill", lambda state: END if state["answer"] == "stop" else "drill", ["drill", END])
    .compile()
)


async def answer_and_fail(state: Steps) -> Steps:
    answer = interrupt("again?")
    trace(f"answered {answer}")
    if answer == "fail":
        raise ValueError("password=hunter2")
    return {"answer": answer}


ask_fail = StateGraph(Steps).add_node("ask", answer_and_fail).add_edge(START, "ask").add_edge("ask", END).compile()

inner_fails = StateGraph(Steps).add_node("fail", fail).add_edge(START, "fail").add_edge("fail", END).compile()
fails_below = StateGraph(Steps).add_node("child", inner_fails).add_edge(START, "child").add_edge("child", END).compile()


async def speak_and_fail(state: Chat) -> Chat:
    return {"messages": [await Speaker(words=["a", "b"], fails_after=1).ainvoke("go")]}


model_fails = (
    StateGraph(Chat).add_node("speak", speak_and_fail).add_edge(START, "speak").add_edge("speak", END).compile()
)


async def fail_once(state: Steps) -> Steps:
    trace("fail_once")
    if state.get("answer") != "mended":
        raise ValueError("not mended yet")
    return {"log": ["once"]}


# fails until its state is edited
mendable = (
    StateGraph(Steps)
    .add_node("before", before)
    .add_node("once", fail_once)
    .add_edge(START, "before")
    .add_edge("before", "once")
    .add_edge("once", END)
    .compile()
)


def beside_trace(suffix: str) -> pathlib.Path:
    """A file by which a test talks to a graph."""
    return pathlib.Path(os.environ["RUNSTREAM_TEST_TRACE"] + "." + suffix)


def gate_level(name: str) -> int:
    path = beside_trace(f"gate-{name}")
    return path.stat().st_size if path.exists() else 0


class Gate(TypedDict):
    gate: str
    count: NotRequired[int]


class Gated(Gate, total=False):
    done: bool


async def pass_gate(name: str, level: int) -> None:
    while gate_level(name) < level:  # noqa: ASYNC110 another process opens it
        await asyncio.sleep(0.002)


async def gated_node(state: Gated) -> dict[str, Any]:
    """A piece for each byte that the test has put into the gate's file."""
    write = get_stream_writer()
    for index in range(state.get("count", 6)):
        await pass_gate(state["gate"], index + 1)
        write({"piece": index, "text": "“ü”\u2028 \n" * index})
    return {"done": True}


gated = (
    StateGraph(Gated, input_schema=Gate)
    .add_node("gate", gated_node)
    .add_edge(START, "gate")
    .add_edge("gate", END)
    .compile()
)


async def block_loop(state: Gated) -> dict[str, Any]:
    """What no node should do: it keeps the whole process from doing anything, until the test says so, or 10 s."""
    wait = threading.Event()
    for _ in range(1000):
        if gate_level(state["gate"]):
            trace("released")
            return {"done": True}
        wait.wait(0.01)
    trace("gave up")
    return {"done": False}


blocks = StateGraph(Gated).add_node("block", block_loop).add_edge(START, "block").add_edge("block", END).compile()


async def make_opening(config: dict[str, Any]) -> Any:
    """A factory that takes its time for a run, and none for a check."""
    if "runstream_run_id" in config["metadata"]:
        trace("opening")
        try:
            await asyncio.sleep(30)
        finally:
            trace("left")
    return steps


async def reluctant_node(state: Steps) -> Steps:
    """Needs a moment to stop."""
    trace("tick")
    try:
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.4)
        trace("left")
    return {}


reluctant = (
    StateGraph(Steps)
    .add_node("before", before)
    .add_node("tick", reluctant_node)
    .add_edge(START, "before")
    .add_edge("before", "tick")
    .add_edge("tick", END)
    .compile()
)


async def slow_write(state: Steps) -> Steps:
    write = get_stream_writer()
    try:
        for index in range(300):
            trace("tick")
            write({"index": index})
            await asyncio.sleep(0.1)
    finally:
        trace("left")
    return {"log": ["slow"]}


slow_custom = StateGraph(Steps).add_node("tick", slow_write).add_edge(START, "tick").add_edge("tick", END).compile()


async def flood_node(state: Gated) -> dict[str, Any]:
    write = get_stream_writer()
    text = "x" * 10_000
    for index in range(state.get("count", 1000)):
        write({"index": index, "text": text})
        await asyncio.sleep(0)
    return {"done": True}


flood = StateGraph(Gated).add_node("flood", flood_node).add_edge(START, "flood").add_edge("flood", END).compile()


async def name_tasks(state: Gated) -> dict[str, Any]:
    get_stream_writer()({"tasks": sorted(str(task.get_coro()) for task in asyncio.all_tasks())})
    return {"done": True}


all_tasks = StateGraph(Gated).add_node("name", name_tasks).add_edge(START, "name").add_edge("name", END).compile()


async def recite(state: Gated) -> dict[str, Any]:
    """Says so many words at once, then goes on when the test says so."""
    await Speaker(words=[f"w{index} " for index in range(state.get("count", 1000))]).ainvoke("go")
    await pass_gate(state["gate"], 1)
    return {"done": True}


recites = StateGraph(Gated).add_node("speak", recite).add_edge(START, "speak").add_edge("speak", END).compile()


async def report(state: Steps) -> Steps:
    return {"log": list(track(["a", "b"], message="reading"))}


reports = StateGraph(Steps).add_node("read", report).add_edge(START, "read").add_edge("read", END).compile()


class GatedSpeaker(Speaker):
    """Says each word when the test has put another byte into the gate's file."""

    gate: str

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, chunk in enumerate(self._chunks()):
            await pass_gate(self.gate, index + 1)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


async def speak_by_gate(state: Gated) -> dict[str, Any]:
    await GatedSpeaker(words=[f"w{index} " for index in range(state.get("count", 6))], gate=state["gate"]).ainvoke("go")
    return {"done": True}


halts = StateGraph(Gated).add_node("speak", speak_by_gate).add_edge(START, "speak").add_edge("speak", END).compile()
