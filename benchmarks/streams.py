"""S, B, P, Q: streams, one or many, in a burst or at a model's pace."""

from typing import Final

from benchmarks.client import Answer, Query, exchange
from benchmarks.contender import Server
from benchmarks.frames import check, delays
from benchmarks.scenario import Cost, Figure, Row, Scale, Shared, Target, median, percentile

SSE: Final = "text/event-stream"


def question(words: int, pace_ms: int = 0, **more: object) -> Query:
    return {"graph": "counting", "message": f"{words}@{pace_ms}" if pace_ms else str(words), **more}


def one_stream(server: Server, scale: Scale) -> Row:
    words, rounds = 2000, scale.of(3)
    cost, answers = Cost(server), []
    with cost.counted():
        for _ in range(rounds):
            answers.extend(exchange(server.port, [server.post(question(words))]))
    with_ids = exchange(server.port, [server.post(question(words), accept=SSE)])[0]
    for answer in [*answers, with_ids]:
        check(answer, words)
    return {
        "tokens/s": words / median([answer.seconds for answer in answers]),
        "CPU µs a token": cost.seconds / rounds / words * 1e6,
        "bytes a token": median([len(answer.raw) / words for answer in answers]),
        "bytes a token with ids": len(with_ids.raw) / words,
    }


def burst(server: Server, scale: Scale) -> Row:
    words, streams = 200, scale.of(50)
    cost = Cost(server)
    with cost.counted():
        answers = exchange(server.port, [server.post(question(words))] * streams)
    for answer in answers:
        check(answer, words)
    return {
        "tokens/s": words * streams / lasted(answers),
        "first frame ms, 95th": 1000 * percentile([answer.first_frame_seconds for answer in answers], 95),
        "CPU µs a token": cost.seconds / streams / words * 1e6,
    }


def paced(server: Server, streams: int, words: int, pace_ms: int) -> Row:
    cost = Cost(server)
    with cost.counted():
        answers = exchange(server.port, [server.post(question(words, pace_ms))] * streams)
    for answer in answers:
        check(answer, words)
    waits = [delay for answer in answers for delay in delays(answer)]
    return {
        "first token ms, 95th": 1000 * percentile([first_token_seconds(answer) for answer in answers], 95),
        "delay ms, median": 1000 * median([wait.said for wait in waits]),
        "delay ms, 99th": 1000 * percentile([wait.said for wait in waits], 99),
        "behind its time ms, 99th": 1000 * percentile([wait.due for wait in waits], 99),
        "CPU µs a token": cost.seconds / streams / words * 1e6,
    }


def first_token_seconds(answer: Answer) -> float:
    for at, part in zip(answer.arrived_at, answer.parts, strict=True):
        if b'"token"' in part or b"event: messages" in part:
            return at - answer.sent_at
    raise AssertionError("no token")


def lasted(answers: list[Answer]) -> float:
    """From the first request to the last byte."""
    return max(answer.arrived_at[-1] for answer in answers) - min(answer.sent_at for answer in answers)


PACED: Final = (
    Figure(name="first token ms, 95th", better="less", target=Target(value=1.0, of="bare loop")),
    Figure(name="delay ms, median", better="less", target=Target(value=1.0)),
    Figure(name="delay ms, 99th", better="less", target=Target(value=5.0)),
    Figure(name="behind its time ms, 99th", better="less"),
    Figure(name="CPU µs a token", better="less", target=Target(value=1.3, of="bare loop")),
)

SCENARIOS: Final = (
    Shared(
        key="S",
        title="one stream of 2,000 tokens in a burst",
        figures=(
            Figure(name="tokens/s", better="more", target=Target(value=1.0, of="bare loop")),
            Figure(name="CPU µs a token", better="less"),
            Figure(name="bytes a token", better="less", target=Target(value=80)),
            Figure(name="bytes a token with ids", better="less", target=Target(value=125)),
        ),
        contenders=("runstream", "bare loop", "saving loop", "langgraph dev"),
        measure=one_stream,
    ),
    Shared(
        key="B",
        title="50 streams of 200 tokens in a burst",
        figures=(
            Figure(name="tokens/s", better="more", target=Target(value=1.0, of="bare loop")),
            Figure(name="first frame ms, 95th", better="less"),
            Figure(name="CPU µs a token", better="less"),
        ),
        contenders=("runstream", "bare loop", "saving loop", "langgraph dev"),
        measure=burst,
    ),
    Shared(
        key="P",
        title="50 streams of 200 tokens at 20 ms",
        figures=PACED,
        contenders=("runstream", "bare loop", "saving loop", "langgraph dev"),
        measure=lambda server, scale: paced(server, 50, scale.of(200, least=20), 20),
    ),
    Shared(
        key="Q",
        title="200 streams of 100 tokens at 50 ms",
        figures=PACED,
        contenders=("runstream", "bare loop", "saving loop", "langgraph dev"),
        measure=lambda server, scale: paced(server, 200, scale.of(100, least=10), 50),
    ),
)
