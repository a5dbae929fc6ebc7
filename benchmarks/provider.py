"""C: a provider's model, spoken to by `ChatOpenAI`, at an endpoint on loopback."""

from typing import Final

from benchmarks.client import Answer, exchange, post
from benchmarks.contender import Server
from benchmarks.frames import check
from benchmarks.scenario import ALONE, Cost, Figure, Row, Scale, Shared, Target, median

WORDS: Final = 2000


def one_stream(server: Server, scale: Scale) -> Row:
    rounds = scale.of(3)
    exchange(server.port, [post({"graph": "chat", "message": "10"})])  # the first one imports and looks for proxies
    cost, answers = Cost(server), list[Answer]()
    with cost.counted():
        for _ in range(rounds):
            answers += exchange(server.port, [post({"graph": "chat", "message": str(WORDS)})])
    for answer in answers:
        check(answer, WORDS)
    return {
        "tokens/s": WORDS / median([answer.seconds for answer in answers]),
        "CPU µs a token": cost.seconds / rounds / WORDS * 1e6,
    }


SCENARIOS: Final = (
    Shared(
        key="C",
        title="one stream of 2,000 tokens of ChatOpenAI",
        figures=(
            Figure(name="tokens/s", better="more", target=Target(value=0.95, of=ALONE)),
            Figure(name="CPU µs a token", better="less"),
        ),
        contenders=("runstream", "bare loop"),
        measure=one_stream,
    ),
)
