"""One stage of a token's way, so many times: `python -m benchmarks.stages translate 1000`, for a counter round it."""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.contender import scratch

if TYPE_CHECKING:
    from app.runs.event import NewEvent
    from app.runs.model import Lease
    from app.storage.sqlite import SqliteStore

BATCH: Final = 50  # events of an append, of a page, and of a write to a socket
NO_SWITCH_SECONDS: Final = 3600.0  # threads take turns when they wait, and at no other time: the same in every run
TEXT: Final = b'{"event":"token","node":"model","data":{"id":"lc_run--0192f0c1","content":"w%d "}'


async def translate(tokens: int) -> None:
    """What the model says as events, from LangChain's chunks."""
    from langchain_core.messages import AIMessageChunk

    from app.engine.translate import Translator, TranslatorOptions

    options = TranslatorOptions(
        thread_id="t", modes=("updates", "messages"), subgraphs=False, gated=True, max_frame_bytes=1024 * 1024
    )
    events: list[NewEvent] = []
    translator = Translator(events.append, options)
    translator.node_started((), "model", "task", 1)
    for index in range(tokens):
        translator.message((), "model", "task", AIMessageChunk(content=f"w{index} ", id="m"))
    assert len(events) == tokens


async def chunks(tokens: int) -> None:
    """LangChain's own part of `translate`: the chunks, which nobody reads."""
    from langchain_core.messages import AIMessageChunk

    import app.engine.translate  # noqa: F401  # the same imports

    for index in range(tokens):
        AIMessageChunk(content=f"w{index} ", id="m")


async def encode(tokens: int) -> None:
    """Events of the log as frames."""
    from app.protocols.sse import encode
    from app.runs.event import Event

    events = [Event(seq, b'%b,"seq":%d}' % (TEXT % seq, seq)) for seq in range(BATCH)]
    for _ in range(tokens // BATCH):
        encode(events, "0192f0c1-0000-4000-8000-000000000000", "plain")


async def append(tokens: int) -> None:
    """From events to the disk, by the writer's thread."""
    with scratch() as path:
        await written(path, tokens)


async def read(tokens: int) -> None:
    """A page of what is new, from memory, behind the writer. With `append`."""
    from app.runs.store import Page

    pages: list[Page] = []

    async def look(store: "SqliteStore", lease: "Lease", after: int) -> None:
        pages.append(await store.read(lease.run_key, after=after))

    with scratch() as path:
        await written(path, tokens, look)
    assert sum(len(page.events) for page in pages) == tokens // BATCH * BATCH


async def nothing(store: "SqliteStore", lease: "Lease", after: int) -> None:
    pass


async def written(
    path: Path, tokens: int, then: "Callable[[SqliteStore, Lease, int], Awaitable[None]]" = nothing
) -> None:
    from app.runs.event import NewEvent
    from app.storage.sqlite import SqliteStore

    store = await SqliteStore.open(path)
    lease = await accepted(store)
    after = 1  # the start
    for start in range(0, tokens // BATCH * BATCH, BATCH):
        batch = [NewEvent("token", TEXT % seq + b"}") for seq in range(start, start + BATCH)]
        last = await store.append(lease, batch)
        await then(store, lease, after)
        after = last
    await store.aclose()


async def accepted(store: "SqliteStore") -> "Lease":
    from app.runs.event import NewEvent
    from app.runs.model import Admission, NewRun

    new = NewRun(owner="", run_id="r", thread_id="t", graph="counting", request={}, fingerprint="")
    start = NewEvent("start", b'{"event":"start"}')
    done = await store.accept(new, worker="w", start=start, admission=Admission(max_active=1))
    assert done.lease is not None
    return done.lease


STAGES: Final[Mapping[str, Callable[[int], Coroutine[Any, Any, None]]]] = {
    "chunks": chunks,
    "translate": translate,
    "append": append,
    "read": read,
    "encode": encode,
}


def main() -> None:
    stage, tokens = STAGES[sys.argv[1]], int(sys.argv[2])
    sys.setswitchinterval(NO_SWITCH_SECONDS)
    gc.disable()  # it would run when what the imports left behind says so
    asyncio.run(stage(tokens))


if __name__ == "__main__":
    main()
