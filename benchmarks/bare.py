"""The loop that people write by hand: it stores nothing, resumes nothing, and loses the run with the tab."""

import importlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command


def load(path: str) -> Any:
    """The graph at `module:attribute`; with a checkpointer if it asks, since an interrupt needs one."""
    module, attribute = path.split(":")
    graph = getattr(importlib.import_module(module), attribute)
    return graph.copy(update={"checkpointer": InMemorySaver()}) if attribute == "asking" else graph


def asked(body: dict[str, Any]) -> Any:
    """The graph's input, or the answer to its question."""
    return Command(resume=body["resume"]) if "resume" in body else {"messages": [("user", body["message"])]}


async def frames(graph: Any, given: Any, config: Any, **options: Any) -> AsyncIterator[str]:
    async for mode, data in graph.astream(given, config, stream_mode=["updates", "messages"], **options):
        if mode == "messages":
            chunk, metadata = data
            frame = {"event": "token", "node": metadata["langgraph_node"], "content": chunk.content}
        elif "__interrupt__" in data:
            frame = {"event": "interrupt", "values": [i.value for i in data["__interrupt__"]]}
        else:
            frame = {"event": "node", "nodes": list(data)}
        yield f"data: {json.dumps(frame)}\n\n"
    yield 'data: {"event": "complete"}\n\n'


def serve() -> None:
    graphs = {name: load(path) for name, path in json.loads(Path(sys.argv[2]).read_text())["graphs"].items()}
    app = FastAPI()

    @app.post("/runs/stream")
    async def stream(request: Request) -> StreamingResponse:
        body = await request.json()
        config = {"configurable": {"thread_id": body["thread_id"]}} if "thread_id" in body else None
        return StreamingResponse(frames(graphs[body["graph"]], asked(body), config), media_type="text/event-stream")

    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")


if __name__ == "__main__":
    serve()
