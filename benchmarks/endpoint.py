"""An OpenAI-compatible endpoint on loopback that says `w0 w1 w2 ...`, as many words as it is asked, an event each."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.contender import ROOT, free_port, on_core

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ABOUT: Final = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "endpoint", "object": "chat.completion.chunk"}


def event(choices: list[object], **fields: object) -> bytes:
    data = f"data: {json.dumps({**ABOUT, 'choices': choices, **fields})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            words = int(json.loads(await reader.readexactly(size))["messages"][-1]["content"])
            writer.write(HEAD + delta({"role": "assistant", "content": ""}))
            for index in range(words):
                writer.write(delta({"content": f"w{index} "}))
                await writer.drain()
            usage = {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": words + 1}
            writer.write(delta({}, "stop") + event([], usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    except asyncio.IncompleteReadError:
        writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def endpoint() -> Iterator[None]:
    """A process of its own on the client's core; the graphs of all processes started within the block find it."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.endpoint", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, preexec_fn=on_core(1))
    os.environ["BENCHMARK_ENDPOINT"] = f"http://127.0.0.1:{port}/v1"
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
