"""The bare loop as somebody would write it who must lose nothing, and still nobody can come back to it.

LangGraph's own SQLite checkpointer, and each frame is committed before it is sent. Both are in the working directory,
with every commit synced.
"""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.bare import asked, frames, load

SETTINGS = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
TABLE = "CREATE TABLE frames (run_id TEXT NOT NULL, text TEXT NOT NULL);"


def serve() -> None:
    graphs = {name: load(path) for name, path in json.loads(Path(sys.argv[2]).read_text())["graphs"].items()}

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        checkpoints = AsyncSqliteSaver.from_conn_string("checkpoints.db")
        async with checkpoints as app.state.saver, aiosqlite.connect("frames.db") as app.state.frames:
            await app.state.saver.conn.executescript(SETTINGS)
            await app.state.frames.executescript(SETTINGS + TABLE)
            yield

    app = FastAPI(lifespan=opened)

    @app.post("/runs/stream")
    async def stream(request: Request) -> StreamingResponse:
        body = await request.json()
        run_id = str(uuid.uuid4())
        config = {"configurable": {"thread_id": body.get("thread_id", run_id)}}
        graph = graphs[body["graph"]].copy(update={"checkpointer": app.state.saver})

        async def saved() -> AsyncIterator[str]:
            async for frame in frames(graph, asked(body), config, durability="sync"):
                await app.state.frames.execute("INSERT INTO frames VALUES (?, ?)", (run_id, frame))
                await app.state.frames.commit()
                yield frame

        return StreamingResponse(saved(), media_type="text/event-stream")

    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")


if __name__ == "__main__":
    serve()
