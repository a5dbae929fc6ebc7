"""The cuts, stalls, interrupts and resumes that every client must stand, whichever its language."""

from collections.abc import Callable
from typing import Any

from tests.clients.edge import answer, problem
from tests.clients.stage import CLOSED_PORT, Scenario, Stage
from tests.e2e.proof import ODD_TEXT, PACED_TEXT, log_of, parsed
from tests.e2e.proxy import Cut
from tests.server import events, wait_until

TALK = {"graph": "talk", "message": "hi", "thread_id": "$thread"}
PACED = {"graph": "brisk", "message": "hi", "thread_id": "$thread"}
STATE = {"do": "state", "thread": "$thread"}
SOON_SILENT = {"silence_seconds": 0.4}


def said(text: str, *, statuses: list[int] | None = None) -> Callable[[Stage], None]:
    """The first step saw one whole run, which said this; nothing else ran."""

    def check(stage: Stage) -> None:
        [result, *_] = stage.results
        assert result["error"] is None
        assert list(result["texts"].values()) == [text]
        assert events(result["frames"])[-1] == "complete"
        assert [run["status"] for run in stage.runs()] == ["success"]
        assert statuses is None or stage.statuses == statuses, stage.statuses

    return check


def check_every_frame(stage: Stage) -> None:
    said(ODD_TEXT)(stage)
    # a frame a connection; or none, since a browser forgets what was not read when a connection broke
    assert set(stage.statuses) == {200}
    assert len(stage.statuses) >= len(stage.frames())


def check_short(stage: Stage) -> None:
    assert events(stage.frames()) == ["start", "complete"]
    # a browser may have dropped what came right before the reset, and ask for that again
    assert not any(exchange.headers.get("last-event-id", "").endswith(".2") for exchange in stage.proxy.streams)


def check_ahead(stage: Stage) -> None:
    assert stage.results[1]["error"]["code"] == "event_id_ahead"
    assert stage.statuses == [200, 409]


def check_idempotent(stage: Stage) -> None:
    first, again, other = stage.results
    assert first["frames"] == again["frames"]
    assert other["error"]["code"] == "idempotency_conflict"
    assert len(stage.runs()) == 1


def check_late(stage: Stage) -> None:
    whole, late, after, at_end = (result["frames"] for result in stage.results)
    assert whole == late
    assert after == whole[3:]
    assert at_end == []
    assert stage.statuses == [200, 200, 200, 204]


def check_parts(stage: Stage) -> None:
    begun, rest = (result["frames"] for result in stage.results)
    assert len(begun) == 5
    assert begun + rest == stage.log(begun[0]["run_id"])
    assert len(stage.runs()) == 1


def check_view(stage: Stage) -> None:
    """A view, cut off, is the view that was not."""
    [run] = stage.runs()
    with stage.server.client() as client:
        path = f"/runs/{run['run_id']}/stream"
        answer = client.get(path, params={"stream_mode": "messages", "tokens": '{"flush": {"count": 5}}'})
    whole = parsed([block.removeprefix("data: ") for block in answer.text.split("\n\n")[:-1]])
    assert stage.frames(0) == stage.frames(1) == whole
    assert set(events(whole)) == {"start", "token", "complete"}
    assert all(list(result["texts"].values()) == [PACED_TEXT] for result in stage.results)


def check_joined(stage: Stage) -> None:
    said(PACED_TEXT)(stage)
    assert events(stage.frames()).count("token") < 10
    whole = parsed(log_of(stage.server, stage.frames()[0]["run_id"]))
    assert [frame["seq"] for frame in stage.frames()] == [frame["seq"] for frame in whole]


def check_resumed(stage: Stage) -> None:
    asked, answered = (result["frames"] for result in stage.results)
    assert asked[-1]["interrupts"][0]["value"] == {"question": "May I?"}
    assert events(answered)[-1] == "complete"
    assert stage.values() == {"log": ["before", "answered", "after"], "answer": False, "messages": []}
    assert len(stage.runs()) == 2


def check_resumed_both(stage: Stage) -> None:
    asked, half, answered = (result["frames"][-1] for result in stage.results)
    assert {interrupt["node"] for interrupt in asked["interrupts"]} == {"left", "right"}
    assert [interrupt["node"] for interrupt in half["interrupts"]] == ["right"]
    assert answered["event"] == "complete"
    assert stage.values()["log"] == ["left=None", "right={}", "after"]


def refused(*codes: tuple[int, str]) -> Callable[[Stage], None]:
    """Each step was refused in this way, at once."""

    def check(stage: Stage) -> None:
        assert [result["frames"] for result in stage.results] == [[] for _ in codes]
        errors = [result["error"] for result in stage.results]
        assert [(error["status"], error["code"]) for error in errors] == list(codes)
        assert all(error["problem"]["code"] == error["code"] for error in errors)
        # nothing was asked twice, and following looks for the thread's runs first
        lookups = sum(exchange.path.startswith("/runs?") for exchange in stage.proxy.exchanges)
        asked = [exchange for exchange in stage.proxy.exchanges if exchange.method != "OPTIONS"]
        assert len(asked) == len(codes) + lookups

    return check


def check_unknown_interrupt(stage: Stage) -> None:
    asked, wrong, right = stage.results
    assert wrong["error"]["code"] == "unknown_interrupt"
    assert wrong["error"]["problem"]["interrupts"] == asked["frames"][-1]["interrupts"]
    assert events(right["frames"])[-1] == "complete"


def check_busy(stage: Stage) -> None:
    error = stage.results[1]["error"]
    assert (error["code"], error["problem"]["run_id"]) == ("thread_busy", stage.frames()[0]["run_id"])
    assert len(stage.runs()) == 1


def check_abandoned(stage: Stage) -> None:
    """Leaving ends the connection, so the run notices that nobody looks on."""
    [result] = stage.results
    assert result["error"] == {"kind": "aborted"}
    assert len(result["frames"]) == 4
    wait_until(lambda: stage.runs()[0]["status"] == "cancelled", "the run to be cancelled")
    assert stage.log(stage.frames()[0]["run_id"])[-1]["reason"] == "disconnect"


def check_cancelled(stage: Stage) -> None:
    [result] = stage.results
    end = result["frames"][-1]
    assert (end["event"], end["reason"]) == ("cancelled", "user")
    assert result["texts"] == end["partial"]
    message = stage.values()["messages"][-1]
    assert {message["id"]: message["content"]} == end["partial"]
    assert message["additional_kwargs"] == {"partial": True}


def mirrors(*steps: int) -> Callable[[Stage], None]:
    """The mirror of these steps equals the thread's state, as the last step read it."""

    def check(stage: Stage) -> None:
        values = stage.results[-1]["value"]["values"]
        assert values == stage.values()
        for step in steps:
            assert "state" in events(stage.frames(step))
            assert stage.results[step]["mirror"] == values
            assert not stage.results[step]["is_stale"]

    return check


def check_discarded(stage: Stage) -> None:
    [result] = stage.results
    assert "discard" in events(result["frames"])
    assert list(result["texts"].values()) == ["abcd"]


def check_invoked(stage: Stage) -> None:
    asked, answered, failed = stage.results
    assert asked["value"]["status"] == "interrupted"
    assert events(answered["frames"])[-1] == "complete"
    error = failed["error"]
    assert (error["status"], error["code"]) == (500, "graph_error")
    assert error["problem"]["run_id"]


def check_patient(stage: Stage) -> None:
    streamed, invoked, state = stage.results
    assert list(streamed["texts"].values()) == [ODD_TEXT]
    assert len(state["value"]["values"]["messages"]) == 4
    assert invoked["value"]["output"] == state["value"]["values"]
    assert len(stage.runs()) == 2


def check_broken(stage: Stage) -> None:
    [result] = stage.results
    assert result["error"] == {"kind": "problem", "status": 500, "code": "unknown", "problem": {}}


def check_arrived(stage: Stage) -> None:
    invoked, streamed = stage.results
    assert invoked["value"]["status"] == "success"
    assert list(streamed["texts"].values()) == [ODD_TEXT]
    assert len(stage.runs()) == 2


def check_lost(stage: Stage) -> None:
    assert [result["error"] for result in stage.results] == [{"kind": "lost"}] * 3
    assert len([exchange for exchange in stage.proxy.exchanges if exchange.method != "OPTIONS"]) >= 3


def arrive(stage: Stage) -> None:
    """The server is there once the client has asked twice in vain."""
    wait_until(lambda: len(stage.proxy.exchanges) > 1, "two requests")
    stage.proxy.port = stage.server.port


def run_again(stage: Stage) -> None:
    """Once somebody follows, and the thread is idle, run something else on it."""
    wait_until(lambda: any("/threads/" in exchange.path for exchange in stage.proxy.streams), "somebody to follow")
    wait_until(lambda: all(run["finished_at"] for run in stage.runs()), "the first run's end")
    stage.post("/runs/invoke", graph=None, message="hi", stream_mode=["updates", "messages"])


def check_followed(stage: Stage) -> None:
    begun, followed = stage.results
    second, first = stage.runs()
    assert followed["frames"] == stage.log(first["run_id"]) + stage.log(second["run_id"])
    assert followed["frames"][: len(begun["frames"])] == begun["frames"]


def check_followed_after(stage: Stage) -> None:
    second, _ = stage.runs()
    assert stage.frames(1) == stage.log(second["run_id"])


def check_followed_idle(stage: Stage) -> None:
    """The next run, and nothing of before."""
    assert stage.frames() == stage.log(stage.runs()[0]["run_id"])


def check_followed_unseen(stage: Stage) -> None:
    second, first = stage.runs()
    assert stage.frames() == stage.log(first["run_id"]) + stage.log(second["run_id"])


def kept_waiting(stage: Stage) -> None:
    [result] = stage.results
    assert events(result["frames"])[-1] == "complete"
    assert stage.statuses == [200]


def run_unseen(stage: Stage) -> None:
    """Twice, while somebody who followed can't come back."""
    wait_until(lambda: len(stage.proxy.streams) > 0, "somebody to follow")
    stage.proxy.port = CLOSED_PORT
    for _ in range(2):
        stage.post("/runs/invoke", graph="talk", message="hi", stream_mode=["updates", "messages"])
    stage.proxy.port = stage.server.port


def new_thread(stage: Stage) -> None:
    stage.post("/threads")


def used_thread(stage: Stage) -> None:
    stage.post("/runs/invoke", graph="talk", message="hi", stream_mode=["updates", "messages"])


MIRRORED: dict[str, Any] = {
    "graph": "agent",
    "message": "2 + 2?",
    "thread_id": "$thread",
    "stream_mode": ["state", "messages"],
    "tokens": {"in_state": True},
}

SCENARIOS = [
    Scenario(
        name="a run that nothing befalls, with characters at which a bad parser splits",
        steps=[{"do": "stream", "body": TALK}],
        check=said(ODD_TEXT, statuses=[200]),
    ),
    Scenario(
        name="cut off in the middle of frames while the model speaks, by FIN and by RST",
        steps=[{"do": "stream", "body": PACED}],
        cuts=[Cut(frames=3, torn_bytes=30), Cut(frames=5, how="reset"), Cut(frames=2, torn_bytes=90, how="reset")],
        check=said(PACED_TEXT, statuses=[200, 200, 200, 200]),
    ),
    Scenario(
        name="cut off after every single frame",
        steps=[{"do": "stream", "body": TALK}],
        cuts=[Cut(frames=1)] * 40,
        options={"retries": 100, "max_retry_seconds": 0.05},
        check=check_every_frame,
    ),
    Scenario(
        name="cut off in the id that follows a frame's data",
        steps=[{"do": "stream", "body": TALK}],
        cuts=[Cut(frames=1, torn_bytes=n) for n in (1, 6, 110, 150)],
        check=said(ODD_TEXT),
    ),
    Scenario(
        name="a start whose answer is lost: in its headers, then before its first frame",
        steps=[{"do": "stream", "body": TALK}],
        cuts=[Cut(frames=0, torn_bytes=-40), Cut(frames=0, torn_bytes=-40, how="reset"), Cut(frames=0)],
        check=said(ODD_TEXT, statuses=[200] * 4),
    ),
    Scenario(
        name="the same with an idempotency key, and no run id of the client's",
        steps=[{"do": "stream", "body": TALK, "key": "$thread"}],
        cuts=[Cut(frames=0, torn_bytes=-40), Cut(frames=0), Cut(frames=2)],
        check=said(ODD_TEXT, statuses=[200] * 4),
    ),
    Scenario(
        name="cut off right after the end, which is no reason to come back",
        steps=[{"do": "stream", "body": {**TALK, "stream_mode": []}}],
        cuts=[Cut(frames=2, how="reset")],
        check=check_short,
    ),
    Scenario(
        name="a connection that goes silent in the middle of a frame, and one before the first",
        steps=[{"do": "stream", "body": PACED}],
        cuts=[Cut(frames=0, how="stall"), Cut(frames=4, torn_bytes=20, how="stall"), Cut(frames=6)],
        options=SOON_SILENT,
        check=said(PACED_TEXT),  # how often a patient client has to ask depends on the machine
    ),
    Scenario(
        name="a node that is silent for longer than a client's patience, with heartbeats",
        steps=[{"do": "stream", "body": {"graph": "slow_sync", "input": {}, "thread_id": "$thread"}}],
        options={"silence_seconds": 1.0},
        check=kept_waiting,
    ),
    Scenario(
        name="readers that come late: from the start, from a seq, at the end",
        steps=[
            {"do": "stream", "body": TALK},
            {"do": "attach"},
            {"do": "attach", "after": 3},
            {"do": "attach", "after": "last"},
        ],
        check=check_late,
    ),
    Scenario(
        name="a reader that leaves early and comes back for the rest",
        steps=[{"do": "stream", "body": PACED, "leave_after": 5}, {"do": "attach", "after": "last"}],
        cuts=[None, Cut(frames=3)],
        check=check_parts,
    ),
    Scenario(
        name="a view of fewer modes and joined tokens, of a start and of a late reader, both cut off",
        steps=[
            {"do": "stream", "body": PACED, "view": {"stream_mode": ["messages"], "tokens": {"flush": {"count": 5}}}},
            {"do": "attach", "view": {"stream_mode": "messages", "tokens": {"flush": {"count": 5}}}},
        ],
        cuts=[None, Cut(frames=3, torn_bytes=9), Cut(frames=2), None, Cut(frames=4)],
        check=check_view,
    ),
    Scenario(
        name="tokens joined as the start asked, cut off",
        steps=[{"do": "stream", "body": {**PACED, "tokens": {"flush": {"count": 7}}}}],
        cuts=[Cut(frames=3), Cut(frames=1, torn_bytes=50)],
        check=check_joined,
    ),
    Scenario(
        name="the same start twice, and another under its name",
        steps=[
            {"do": "stream", "body": {**TALK, "run_id": "$run"}, "key": "$thread"},
            {"do": "stream", "body": {**TALK, "run_id": "$run"}, "key": "$thread"},
            {"do": "stream", "body": {**TALK, "message": "other"}, "key": "$thread"},
        ],
        check=check_idempotent,
    ),
    Scenario(
        name="a question, answered with false, both runs cut off",
        steps=[
            {"do": "stream", "body": {"graph": "ask", "input": {}, "thread_id": "$thread"}},
            {"do": "resume", "thread": "$thread", "answer": False},
        ],
        cuts=[Cut(frames=1), Cut(frames=1, torn_bytes=20), Cut(frames=0, torn_bytes=-40), Cut(frames=1)],
        check=check_resumed,
    ),
    Scenario(
        name="two questions at once, answered one after the other by their ids",
        steps=[
            {"do": "stream", "body": {"graph": "ask_both", "input": {}, "thread_id": "$thread"}},
            {"do": "resume", "thread": "$thread", "answers": {"left": None}},
            {"do": "resume", "thread": "$thread", "answers": {"right": {}}},
        ],
        check=check_resumed_both,
    ),
    Scenario(
        name="an answer to a question that nobody asked, then the right one",
        steps=[
            {"do": "stream", "body": {"graph": "ask", "input": {}, "thread_id": "$thread"}},
            {"do": "resume", "thread": "$thread", "answer": {"0" * 32: True}},
            {"do": "resume", "thread": "$thread", "answer": ""},
        ],
        check=check_unknown_interrupt,
    ),
    Scenario(
        name="what does not exist, or can't be, is refused at once",
        steps=[
            {"do": "stream", "body": {"graph": "nope", "input": {}}},
            {"do": "stream", "body": {**TALK, "mesage": "hi"}},
            {"do": "attach", "run": "00000000-0000-4000-8000-000000000000"},
            {"do": "attach", "run": "no/such/run"},
            {"do": "resume", "thread": "$thread", "answer": 1},
            {"do": "follow", "thread": "$thread"},
            {"do": "state", "thread": "$thread"},
            {"do": "cancel", "run": "00000000-0000-4000-8000-000000000000"},
            {"do": "stream", "body": {"graph": "broken", "input": {}}},
        ],
        check=refused(
            (404, "graph_not_found"),
            (422, "invalid_request"),
            (404, "run_not_found"),
            (404, "not_found"),
            (404, "thread_not_found"),
            (404, "thread_not_found"),
            (404, "thread_not_found"),
            (404, "run_not_found"),
            (503, "graph_unavailable"),
        ),
    ),
    Scenario(
        name="a cursor beyond the end of the log is refused",
        steps=[{"do": "stream", "body": TALK}, {"do": "attach", "after": 999}],
        check=check_ahead,
    ),
    Scenario(
        name="a second start on a thread that is busy",
        steps=[
            {"do": "stream", "body": {**PACED, "on_disconnect": "continue"}, "leave_after": 3},
            {"do": "stream", "body": PACED},
        ],
        check=check_busy,
    ),
    Scenario(
        name="a caller that goes away",
        steps=[{"do": "stream", "body": {**PACED, "graph": "slow_talk"}, "abort_after": 4}],
        check=check_abandoned,
    ),
    Scenario(
        name="a run that is cancelled kindly while it is read, and cut off",
        steps=[
            {"do": "stream", "body": {**PACED, "graph": "slow_talk"}, "cancel_after": 5, "keep_partial": True},
        ],
        cuts=[Cut(frames=2)],
        check=check_cancelled,
    ),
    Scenario(
        name="a mirror of the state with the text in it, cut off, and one that comes late",
        steps=[{"do": "stream", "body": MIRRORED}, {"do": "attach"}, STATE],
        cuts=[Cut(frames=3), Cut(frames=2, torn_bytes=40), Cut(frames=1, how="reset")],
        check=mirrors(0, 1),
    ),
    Scenario(
        name="a mirror of parallel branches, over a question and its answer",
        steps=[
            {
                "do": "stream",
                "body": {"graph": "ask_both", "input": {}, "thread_id": "$thread", "stream_mode": "state"},
            },
            {
                "do": "stream",
                "body": {"thread_id": "$thread", "resume": {}, "stream_mode": "state"},
            },
            {"do": "resume", "thread": "$thread", "answers": {"left": [1], "right": "two"}},
            {"do": "stream", "body": {"thread_id": "$thread", "input": {"log": ["more"]}, "stream_mode": "state"}},
            STATE,
        ],
        check=mirrors(3),
    ),
    Scenario(
        name="a node that is tried again: its first text is void",
        steps=[{"do": "stream", "body": {**TALK, "graph": "retries"}}],
        cuts=[Cut(frames=3), Cut(frames=2)],
        check=check_discarded,
    ),
    Scenario(
        name="invoking: a question, its answer, and a failure",
        steps=[
            {"do": "invoke", "body": {"graph": "ask", "input": {}, "thread_id": "$thread"}},
            {"do": "resume", "thread": "$thread", "answers": {"question": "yes"}},
            {"do": "invoke", "body": {"graph": "fails", "input": {}}},
        ],
        check=check_invoked,
    ),
    Scenario(
        name="gateways that answer for the server, and a server that has no time",
        steps=[{"do": "stream", "body": TALK}, {"do": "invoke", "body": {**TALK, "message": "more"}}, STATE],
        answers=[
            answer(502, "<h1>Bad gateway</h1>", Content_Type="text/html"),
            answer(504, ""),
            problem(503, "shutting_down", Retry_After="0"),
            problem(429, "too_many_runs", Retry_After="0"),
        ],
        check=check_patient,
    ),
    Scenario(
        name="a gateway that is broken",
        steps=[{"do": "stream", "body": TALK}],
        answers=[answer(500, "<h1>Sorry</h1>")],
        check=check_broken,
    ),
    Scenario(
        name="a proxy that loses the cursor, so that everything comes again",
        steps=[{"do": "stream", "body": PACED}, {"do": "attach", "after": 6}],
        cuts=[Cut(frames=5), Cut(frames=9, torn_bytes=7)],
        loses_cursor=True,
        check=said(PACED_TEXT, statuses=[200] * 4),
    ),
    Scenario(
        name="a server that is not there yet",
        steps=[{"do": "invoke", "body": TALK}, {"do": "stream", "body": TALK}],
        options={"retry_seconds": 0.1},
        server_is_away=True,
        beside=arrive,
        check=check_arrived,
    ),
    Scenario(
        name="a server that never comes",
        steps=[{"do": "invoke", "body": TALK}, {"do": "stream", "body": TALK}, {"do": "follow", "thread": "$thread"}],
        options={"retries": 2},
        server_is_away=True,
        check=check_lost,
    ),
    Scenario(
        name="following a thread: the run at work from its start, then the next one, cut off in both",
        steps=[
            {"do": "stream", "body": {**PACED, "on_disconnect": "continue"}, "leave_after": 3},
            {"do": "follow", "thread": "$thread", "ends": 2},
        ],
        cuts=[None, Cut(frames=0), Cut(frames=5, torn_bytes=30), Cut(frames=40, how="reset")],
        beside=run_again,
        check=check_followed,
    ),
    Scenario(
        name="following a thread from an event on",
        steps=[{"do": "stream", "body": TALK}, {"do": "follow", "thread": "$thread", "after": "last", "ends": 1}],
        beside=run_again,
        check=check_followed_after,
    ),
    Scenario(
        name="following a thread whose run is over",
        steps=[{"do": "follow", "thread": "$thread", "ends": 1}],
        before=used_thread,
        cuts=[Cut(frames=0), Cut(frames=2)],
        beside=run_again,
        check=check_followed_idle,
    ),
    Scenario(
        name="following a thread that never ran, with a connection that dies before anything comes",
        steps=[{"do": "follow", "thread": "$thread", "ends": 2}],
        before=new_thread,
        cuts=[Cut(frames=0), Cut(frames=0), Cut(frames=2)],
        options={"retries": 100, "max_retry_seconds": 0.1},
        beside=run_unseen,
        check=check_followed_unseen,
    ),
]

NAMES = [scenario.name for scenario in SCENARIOS]
