"""T, H, G: many short runs, pauses and their answers, and a thread that grows."""

import uuid
from collections.abc import Sequence
from typing import Final

from benchmarks.client import Answer, converse, post
from benchmarks.contender import Server
from benchmarks.frames import check, check_end, check_seqs, frames_of
from benchmarks.scenario import ALONE, Cost, Figure, Row, Scale, Shared, Target, median
from benchmarks.streams import first_token_seconds, lasted, question

CALLERS: Final = 8
REST_SECONDS: Final = 0.005
TURNS: Final = 60
TURN_WORDS: Final = 20
COMPARED: Final = 3  # so many turns at the beginning, and at the end


def short_runs(server: Server, scale: Scale) -> Row:
    runs = scale.of(100)
    cost = Cost(server)
    with cost.counted():
        answers = flat(converse(server.port, [[server.post(question(1))] * runs] * CALLERS))
    idle = flat(converse(server.port, [[server.post(question(1))] * scale.of(100, least=5)], rest_seconds=REST_SECONDS))
    for answer in [*answers, *idle]:
        check(answer, 1)
    return {
        "runs/s": len(answers) / lasted(answers),
        "CPU ms a run": cost.seconds / len(answers) * 1000,
        "first frame ms, idle": 1000 * median([answer.first_frame_seconds for answer in idle]),
        "first token ms, idle": 1000 * median([first_token_seconds(answer) for answer in idle]),
    }


def pauses(server: Server, scale: Scale) -> Row:
    pairs = scale.of(40)
    cost = Cost(server)
    with cost.counted():
        answers = converse(server.port, [pause_and_resume(pairs) for _ in range(CALLERS)])
    for caller in answers:
        for asked, answered in zip(caller[::2], caller[1::2], strict=True):
            check_pair(asked, answered, is_runstream=server.is_runstream)
    return {
        "pairs/s": pairs * CALLERS / lasted(flat(answers)),
        "CPU ms a pair": cost.seconds / pairs / CALLERS * 1000,
    }


def pause_and_resume(pairs: int) -> list[bytes]:
    requests = []
    for _ in range(pairs):
        thread = {"graph": "asking", "thread_id": str(uuid.uuid4())}
        requests += [post({**thread, "message": "ask me"}), post({**thread, "resume": "yes"})]
    return requests


def check_pair(asked: Answer, answered: Answer, *, is_runstream: bool) -> None:
    paused, resumed = frames_of(asked), frames_of(answered)
    check_seqs(paused)
    check_seqs(resumed)
    if is_runstream:
        check_end(paused, "interrupt")
    else:
        assert any(frame["event"] == "interrupt" for frame in paused), paused
    check_end(resumed)
    assert any(frame["event"] == "node" for frame in resumed), resumed


def growing_thread(server: Server, scale: Scale) -> Row:
    first, last, cpu = list[float](), list[float](), (Cost(server), Cost(server))
    threads = scale.of(5)
    for _ in range(threads):
        request = post(question(TURN_WORDS, thread_id=str(uuid.uuid4())))
        parts = (COMPARED, TURNS - 2 * COMPARED, COMPARED)
        for answers, cost, turns in zip((first, None, last), (cpu[0], Cost(server), cpu[1]), parts, strict=True):
            with cost.counted():
                given = flat(converse(server.port, [[request] * turns]))
            for answer in given:
                check(answer, TURN_WORDS)
            if answers is not None:
                answers.extend(answer.seconds for answer in given)
    return growth(first, last, cpu[0].seconds, cpu[1].seconds, turns=threads * COMPARED)


def growth(first: Sequence[float], last: Sequence[float], cpu_first: float, cpu_last: float, *, turns: int) -> Row:
    return {
        "first turns ms": 1000 * median(first),
        "last turns ms": 1000 * median(last),
        "last to first": median(last) / median(first),
        "CPU growth ms a turn": 1000 * (cpu_last - cpu_first) / turns,
    }


def flat(answers: Sequence[Sequence[Answer]]) -> list[Answer]:
    return [answer for caller in answers for answer in caller]


SCENARIOS: Final = (
    Shared(
        key="T",
        title=f"runs of one token, {CALLERS} callers",
        figures=(
            Figure(name="runs/s", better="more", target=Target(value=300)),
            Figure(name="CPU ms a run", better="less"),
            Figure(name="first frame ms, idle", better="less", target=Target(value=3)),
            Figure(name="first token ms, idle", better="less"),
        ),
        contenders=("runstream", "bare loop", "saving loop", "langgraph dev"),
        measure=short_runs,
    ),
    Shared(
        key="H",
        title=f"pause and resume, {CALLERS} callers",
        figures=(Figure(name="pairs/s", better="more"), Figure(name="CPU ms a pair", better="less")),
        contenders=("runstream", "bare loop"),
        measure=pauses,
    ),
    Shared(
        key="G",
        title=f"{TURNS} turns of {TURN_WORDS} tokens on a thread, the first {COMPARED} against the last",
        figures=(
            Figure(name="first turns ms", better="less"),
            Figure(name="last turns ms", better="less"),
            Figure(name="last to first", better="less", target=Target(value=1.2, of=ALONE)),
            Figure(name="CPU growth ms a turn", better="less"),
        ),
        contenders=("runstream",),
        measure=growing_thread,
        is_in_quick=False,
    ),
)
