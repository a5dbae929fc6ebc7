"""The loop that people write by hand: it stores nothing, resumes nothing, and loses the run with the tab."""

import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from benchmarks.graph import graph

app = FastAPI()


@app.post("/runs/stream")
async def stream(request: Request) -> StreamingResponse:
    message = (await request.json())["message"]

    async def frames() -> AsyncIterator[str]:
        modes = ["updates", "messages"]
        async for mode, data in graph.astream({"messages": [("user", message)]}, stream_mode=modes):
            if mode == "messages":
                chunk, metadata = data
                frame = {"event": "token", "node": metadata["langgraph_node"], "content": chunk.content}
            else:
                frame = {"event": "node", "nodes": list(data)}
            yield f"data: {json.dumps(frame)}\n\n"
        yield 'data: {"event": "complete"}\n\n'

    return StreamingResponse(frames(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
