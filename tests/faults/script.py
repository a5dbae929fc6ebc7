"""What a client does on a thread, one action after the other: the same words for whoever plays it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

OWNER: Final = ""  # of a server without authentication
THREAD: Final = "t"


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """A run, or with `kind="edit"` an edit of the thread's state.

    `value` is the input, the answer, the answers by their questions, or the command; an answer in a command may be
    given by questions too, as `answers`. `at` names nodes: from the oldest checkpoint at which they were next;
    questions are then those of the first run that asked them, otherwise of the last.
    """

    kind: Literal["input", "continue", "resume", "answers", "command", "edit"]
    value: Any = None
    at: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A graph, and what is done with it; `log` is what the state's log has at the end, in any order."""

    graph: str
    acts: Sequence[Act]
    log: Sequence[str]


START = Act(kind="input", value={"log": ["in"]})


def start(**options: Any) -> Act:
    return Act(kind="input", value={"log": ["in"]}, options=options)


ONE_TWO_THREE = ["in", "one", "two", "three"]
BELOW = ["in", "one", "in", "one", "x", "y", "three"]  # a subgraph gives back what it was given, too

SCRIPTS: Mapping[str, Script] = {
    "linear": Script(graph="linear", acts=[START], log=ONE_TWO_THREE),
    "linear, async": Script(graph="linear", acts=[start(durability="async")], log=ONE_TWO_THREE),
    "linear, twice": Script(graph="linear", acts=[START, START], log=[*ONE_TWO_THREE, *ONE_TWO_THREE]),
    "parallel": Script(graph="parallel", acts=[START], log=["in", "a", "b", "c", "join"]),
    "parallel, async": Script(graph="parallel", acts=[start(durability="async")], log=["in", "a", "b", "c", "join"]),
    "subgraph": Script(graph="below", acts=[start(subgraphs=True)], log=BELOW),
    "subgraph with its own memory": Script(graph="own", acts=[start(subgraphs=True)], log=BELOW),
    "subgraph without checkpoints": Script(graph="apart", acts=[start(subgraphs=True)], log=BELOW),
    "retrying": Script(graph="flaky", acts=[START], log=["in", "before", "flaky"]),
    "fan-out": Script(graph="fan", acts=[START], log=["in", "scatter", "worker0", "worker1", "worker2", "gather"]),
    "fan-out of subgraphs": Script(
        graph="family",
        acts=[start(subgraphs=True)],
        log=["in", "scatter", "gather", *(part for number in "012" for part in (number, "x", "y"))],
    ),
    "a subgraph that hands over": Script(graph="handoff", acts=[start(subgraphs=True)], log=["in", "left", "three"]),
    "nodes in threads": Script(graph="threads", acts=[START], log=["in", "thread", "thread", "c", "join"]),
    "words only": Script(graph="parallel", acts=[start(stream_mode=["messages"])], log=["in", "a", "b", "c", "join"]),
    "words of subgraphs only": Script(graph="below", acts=[start(stream_mode=["messages"], subgraphs=True)], log=BELOW),
    "state": Script(
        graph="ask",
        acts=[start(stream_mode=["state"]), Act(kind="resume", value="yes", options={"stream_mode": ["state"]})],
        log=["in", "before", "q0=yes", "after"],
    ),
    "question": Script(
        graph="ask",
        acts=[START, Act(kind="answers", value={"q0?": "yes"})],
        log=["in", "before", "q0=yes", "after"],
    ),
    "question, a bare answer": Script(
        graph="ask", acts=[START, Act(kind="resume", value="yes")], log=["in", "before", "q0=yes", "after"]
    ),
    "question, answered with an edit": Script(
        graph="ask",
        acts=[START, Act(kind="command", value={"answers": {"q0?": "yes"}, "update": {"log": ["edit"]}})],
        log=["in", "before", "edit", "q0=yes", "after"],
    ),
    "two questions at once, one by one": Script(
        graph="ask_both",
        acts=[START, Act(kind="answers", value={"l0?": "L"}), Act(kind="answers", value={"r0?": "R"})],
        log=["in", "l0=L", "r0=R", "slow", "join"],
    ),
    "two questions at once, the second with an edit": Script(
        graph="ask_both",
        acts=[
            START,
            Act(kind="answers", value={"l0?": "L"}),
            Act(kind="command", value={"answers": {"r0?": "R"}, "update": {"log": ["edit"]}}),
        ],
        log=["in", "edit", "l0=L", "r0=R", "slow", "join"],
    ),
    "two questions at once, answered together": Script(
        graph="ask_both",
        acts=[START, Act(kind="answers", value={"l0?": "L", "r0?": "R"})],
        log=["in", "l0=L", "r0=R", "slow", "join"],
    ),
    "questions of one node": Script(
        graph="ask_often",
        acts=[START, *(Act(kind="resume", value=value) for value in ("a", "b", "c"))],
        log=["in", "before", "q0=a", "q1=b", "q2=c", "after"],
    ),
    "questions below": Script(
        graph="ask_below",
        acts=[start(subgraphs=True), *(Act(kind="resume", value=v, options={"subgraphs": True}) for v in ("a", "b"))],
        log=["in", "before", "in", "before", "x", "q0=a", "q1=b", "after"],
    ),
    "question below, without checkpoints": Script(
        graph="ask_apart",
        acts=[start(subgraphs=True), Act(kind="resume", value="a", options={"subgraphs": True})],
        log=["in", "before", "in", "before", "x", "q0=a", "after"],
    ),
    "questions after an edit": Script(
        graph="ask_often",
        acts=[
            START,
            Act(kind="edit", value={"log": ["edit"]}),
            *(Act(kind="resume", value=value) for value in ("a", "b", "c")),
        ],
        log=["in", "before", "edit", "q0=a", "q1=b", "q2=c", "after"],
    ),
    "questions below after an edit": Script(
        graph="ask_below",
        acts=[
            START,
            Act(kind="edit", value={"log": ["edit"]}),
            *(Act(kind="resume", value=value) for value in ("a", "b")),
        ],
        log=["in", "before", "edit", "in", "before", "edit", "x", "q0=a", "q1=b", "after"],
    ),
    "breakpoint before": Script(
        graph="linear",
        acts=[start(interrupt_before=("two", "three")), Act(kind="continue", options={"interrupt_before": ("three",)})],
        log=["in", "one", "two"],
    ),
    "breakpoints everywhere": Script(
        graph="linear",
        acts=[start(interrupt_after="*"), Act(kind="continue", options={"interrupt_after": "*"}), Act(kind="continue")],
        log=ONE_TWO_THREE,
    ),
    "breakpoint below": Script(
        graph="pause_below",
        acts=[start(subgraphs=True), Act(kind="continue", options={"subgraphs": True})],
        log=["in", "before", "in", "before", "x", "y", "after"],
    ),
    "command": Script(
        graph="linear",
        acts=[START, Act(kind="command", value={"update": {"log": ["edit"]}, "goto": "two"})],
        log=[*ONE_TWO_THREE, "edit", "two", "three"],
    ),
    "back in time": Script(graph="linear", acts=[START, Act(kind="continue", at="two")], log=ONE_TWO_THREE),
    "back in time, with input": Script(
        graph="linear",
        acts=[START, Act(kind="input", value={"log": ["again"]}, at="two")],
        log=["in", "one", "again", "one", "two", "three"],
    ),
    "back in time, with an edit": Script(
        graph="linear",
        acts=[START, Act(kind="command", value={"update": {"log": ["edit"]}}, at="three")],
        log=["in", "one", "two", "edit", "three"],
    ),
    "back in time, to a question that was left": Script(
        graph="ask",
        acts=[START, start(on_interrupted="discard"), Act(kind="answers", value={"q0?": "no"}, at="question")],
        log=["in", "before", "q0=no", "after"],
    ),
    "back in time, to questions that were left, with an edit": Script(
        graph="ask_two",
        acts=[
            START,
            start(on_interrupted="discard"),
            Act(
                kind="command",
                value={"answers": {"l0?": "L", "r0?": "R"}, "update": {"log": ["edit"]}},
                at="left right",
            ),
        ],
        log=["in", "edit", "l0=L", "r0=R", "join"],
    ),
    "functional": Script(
        graph="function", acts=[START, Act(kind="resume", value="yes")], log=["in", "a", "b", "yes", "c"]
    ),
}
