"""A model provider on loopback: OpenAI's chat completions, which stream, stall, break off and refuse as they are told.

It runs in a thread of the tests' process. What it answers is set beforehand, an `Answer` a request; what it was asked
is in `requests`.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

START_SECONDS = 20.0
API_KEY = "sk-test-never-shown"
SECRET = "provider-secret-hunter2"  # what no client of ours may ever see


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of the model.

    `then` says what comes after the words: the end, silence until the client leaves, a connection that is cut, or an
    event that tells of an error.
    """

    words: Sequence[str] = ("Hello", ", ", "world", ".")
    tool_calls: Sequence[Mapping[str, Any]] = ()  # {"id", "name", "arguments": pieces of JSON text}
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Literal["end", "stall", "drop", "error"] = "end"
    says_usage: bool = True
    model: str = "test-model"

    @property
    def usage(self) -> dict[str, int]:
        count = len(self.words) + sum(len(call["arguments"]) for call in self.tool_calls)
        return {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"


class ModelEndpoint:
    """Answers in the order of `will`; `answer_always` for all requests that have no answer of their own."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.left = threading.Semaphore(0)  # released for each client that left while it was answered
        self.answer_always = Answer()
        self._answers: deque[Answer] = deque()
        self._count = 0

    def will(self, *answers: Answer) -> None:
        self.requests.clear()
        self._answers = deque(answers)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        self._count += 1
        answer = self._answers.popleft() if self._answers else self.answer_always
        about = {"id": f"chatcmpl-{self._count}", "created": 1_700_000_000, "model": answer.model}
        if answer.status != 200:
            error = {"message": f"refused, {SECRET}", "type": "server_error", "code": None}
            return JSONResponse({"error": error}, answer.status, headers=dict(answer.headers))
        if not body.get("stream"):
            return JSONResponse(whole(answer, about))
        return Chunks(self, answer, about)


def whole(answer: Answer, about: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request that does not ask for a stream."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.words) or None}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
            }
            for call in answer.tool_calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    usage = {"usage": answer.usage} if answer.says_usage else {}
    return {**about, "object": "chat.completion", "choices": [choice], **usage}


def deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    yield from ({"content": word} for word in answer.words)
    for index, call in enumerate(answer.tool_calls):
        function = {"name": call["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
        for piece in call["arguments"]:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


class Chunks(Response):
    """The answer as Server-Sent Events."""

    def __init__(self, endpoint: ModelEndpoint, answer: Answer, about: Mapping[str, Any]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._answer = answer
        self._about = {**about, "object": "chat.completion.chunk"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for delta in deltas(self._answer):
            await self._event(send, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        match self._answer.then:
            case "stall":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._endpoint.left.release()
                return
            case "drop":
                raise ConnectionError("cut, as the test asks")
            case "error":
                await self._data(send, {"error": {"message": f"overloaded, {SECRET}", "type": "server_error"}})
            case "end":
                last = {"index": 0, "delta": {}, "finish_reason": self._answer.finish_reason}
                await self._event(send, choices=[last])
                if self._answer.says_usage:
                    await self._event(send, choices=[], usage=self._answer.usage)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _event(self, send: Send, **fields: Any) -> None:
        await self._data(send, {**self._about, **fields})

    async def _data(self, send: Send, body: Mapping[str, Any]) -> None:
        text = f"data: {json.dumps(body)}\n\n".encode()
        await send({"type": "http.response.body", "body": text, "more_body": True})


class RunningEndpoint(ModelEndpoint):
    """A ModelEndpoint that listens at `url`."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        app = Starlette(routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])])
        config = uvicorn.Config(app, log_level=60, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="model-endpoint", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._socket.close()

    @property
    def env(self) -> dict[str, str]:
        """The variables that make the repository's graphs speak through this endpoint."""
        return {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": self.url, "OPENAI_MODEL": "test-model"}


@contextlib.contextmanager
def model_endpoint() -> Iterator[RunningEndpoint]:
    endpoint = RunningEndpoint()
    try:
        yield endpoint
    finally:
        endpoint.close()
