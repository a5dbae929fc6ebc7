"""What must hold after any number of crashes, read from the files alone: no code of the server has a say in it."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonpatch
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.faults.script import OWNER, THREAD, Script

Frame = dict[str, Any]

ENDS: Final = frozenset({"complete", "interrupt", "cancelled", "error"})
STATUS_OF: Final = {"complete": "success", "interrupt": "interrupted", "cancelled": "cancelled", "error": "error"}
NONCE_KEYS: Final = frozenset({"seq", "task_id", "id", "message_id", "ns", "usage"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run as the database has it."""

    key: str
    status: str
    attempt: int
    usage: Mapping[str, Any]
    texts: Sequence[bytes]

    @property
    def frames(self) -> list[Frame]:
        return [json.loads(text) for text in self.texts]


def read_runs(database: Path, thread_id: str) -> dict[str, Record]:
    """A thread's runs by their ids, in the order of acceptance."""
    with closing(sqlite3.connect(database)) as connection:
        columns = "number, key, run_id, status, attempt, usage, last_seq"
        runs = connection.execute(f"SELECT {columns} FROM runs WHERE thread_id = ? ORDER BY number", (thread_id,))
        found = {}
        for number, key, run_id, status, attempt, usage, last_seq in runs.fetchall():
            segments = connection.execute(
                "SELECT first_seq, last_seq, body FROM segments WHERE run = ? ORDER BY first_seq", (number,)
            ).fetchall()
            texts: list[bytes] = []
            for first, last, body in segments:
                assert first == len(texts) + 1, "the segments of a log leave a gap or overlap"
                texts += body.split(b"\n")
                assert last == len(texts), "a segment has other events than it says"
            assert last_seq == len(texts)
            used = json.loads(usage) if usage else {}
            found[run_id] = Record(key=key, status=status, attempt=attempt, usage=used, texts=texts)
    return found


def read_values(checkpoints: Path, thread_key: str) -> Mapping[str, Any]:
    """The newest state of a thread."""
    with closing(sqlite3.connect(checkpoints)) as connection:
        found = SqliteSaver(connection).get_tuple({"configurable": {"thread_id": thread_key, "checkpoint_ns": ""}})
    if found is None:
        return {}
    values = dict(found.checkpoint["channel_values"])
    final: Mapping[str, Any] = values.get("__end__", values)  # of the functional API
    return final


def check_log(record: Record) -> None:
    """A whole log: it begins with the start, is gapless, and has one end, its last event, which its row agrees with."""
    frames = record.frames
    names = [frame["event"] for frame in frames]
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert names[:1] == ["start"]
    assert names.count("start") == 1, names
    assert [name for name in names if name in ENDS] == names[-1:], names
    assert record.status in {STATUS_OF[names[-1]], "timeout"}
    attempts = [frame["attempt"] for frame in frames if frame["event"] in ("start", "restart")]
    assert attempts == sorted(set(attempts)), attempts


def check_nodes(frames: Sequence[Frame]) -> None:
    """The event of a task stands in the log once."""
    task_ids = Counter(frame["task_id"] for frame in frames if frame["event"] == "node")
    assert [task_id for task_id, count in task_ids.items() if count > 1] == []


def check_side_effects(frames: Sequence[Frame], ran: Mapping[str, Sequence[int]], processes: Mapping[int, int]) -> None:
    """No task ran in an attempt before which its event was in the log.

    `ran` has the processes that a task ran in, `processes` the process of each attempt.
    """
    done: set[str] = set()
    for frame in frames:
        if frame["event"] == "node":
            done.add(frame["task_id"])
        if frame["event"] == "restart":
            again = [t for t in done if any(process >= processes[frame["attempt"]] for process in ran.get(t, ()))]
            assert again == [], f"ran again after their events were in the log: {again}"


def spoken(frames: Sequence[Frame]) -> dict[str, str]:
    """The texts of the messages that are not void, by their ids."""
    texts: dict[str, str] = {}
    for frame in frames:
        if frame["event"] == "token":
            texts[frame["data"]["id"]] = texts.get(frame["data"]["id"], "") + frame["data"]["content"]
        elif frame["event"] in ("restart", "discard"):
            for message_id in frame["discard"]:
                texts.pop(message_id, None)
    return texts


def check_texts(frames: Sequence[Frame], values: Mapping[str, Any]) -> None:
    """What was spoken and is not void is the whole text of a message that the state has got."""
    whole = {message.id: message.content for message in values.get("messages", ())}
    for message_id, text in spoken(frames).items():
        assert message_id in whole, f"{message_id} is in no state, and not void"
        assert text == whole[message_id]


def check_mirror(frames: Sequence[Frame], log: Sequence[str]) -> None:
    """A client that keeps a mirror of the state has the state at the end."""
    mirror: Any = None
    for frame in frames:
        if frame["event"] == "state":
            data = frame["data"]
            mirror = data["snapshot"] if "snapshot" in data else jsonpatch.apply_patch(mirror, data["patch"])
    if mirror is not None:
        assert mirror["log"] == log
        assert "streaming" not in mirror


def story(frames: Sequence[Frame]) -> list[str]:
    """What a log tells, whatever the ids and the order of what goes on at once."""
    told = []
    for frame in frames:
        if frame["event"] == "node":
            told.append(f"node {frame['node']} {plain(frame['data'])}")
        elif frame["event"] == "custom":
            told.append(f"custom {frame['data']}")
        elif frame["event"] in ENDS:
            asked = sorted(f"{question['node']} {question['value']}" for question in frame.get("interrupts", ()))
            told.append(f"{frame['event']} {frame.get('code')} {sorted(frame.get('next', ()))} {asked}")
    return sorted(told)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items()) if key not in NONCE_KEYS}
    return [plain(item) for item in value] if isinstance(value, list) else value


@dataclass
class Received:
    """What a client has of a run: the texts of its frames, and when (`time.monotonic_ns`) each came."""

    run_id: str
    texts: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    @property
    def end(self) -> Frame | None:
        frame: Frame | None = json.loads(self.texts[-1]) if self.texts else None
        return frame if frame is not None and frame["event"] in ENDS else None


@dataclass(frozen=True, slots=True)
class Talk:
    """A script as a client has played it; not `is_whole`: it stopped at a run that was lost."""

    script: Script
    thread_id: str
    received: Sequence[Received]
    is_whole: bool


def check_talk(folder: Path, talk: Talk) -> None:
    records = read_runs(folder / "data" / "runstream.db", talk.thread_id)
    asked = [received.run_id for received in talk.received]
    assert list(records) == asked, "there are other runs than a client asked for"
    lines = read_trace(folder / "trace")
    values = read_values(folder / "data" / "checkpoints.sqlite", f"{OWNER}/{talk.thread_id}")
    for received in talk.received:
        record = records[received.run_id]
        assert received.texts == list(record.texts), "a client did not receive what is in the log"
        check_log(record)
        check_nodes(record.frames)
        if talk.is_whole:
            check_texts(record.frames, values)
        check_seen(received, lines.get(received.run_id, ()))
    if talk.is_whole:
        assert sorted(values["log"]) == sorted(talk.script.log)


def check_seen(received: Received, lines: Sequence[Mapping[str, Any]]) -> None:
    """No task did anything after a client had its event."""
    for text, seen_at in zip(received.texts, received.times, strict=True):
        frame = json.loads(text)
        if frame["event"] == "node":
            late = [line for line in lines if line["task_id"] == frame["task_id"] and line["at"] > seen_at]
            assert not late, f"ran after its event was seen: {late}"


@cache
def read_trace(path: Path) -> Mapping[str, Sequence[dict[str, Any]]]:
    """What nodes have told, by run. A line that a kill has torn says nothing."""
    found: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text().splitlines():
        with suppress(ValueError):
            line = json.loads(text)
            found.setdefault(line["run_id"], []).append(line)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A script that was played to its end, by one process or by several."""

    folder: Path
    script: Script
    crashes: int = 0

    @property
    def runs(self) -> dict[str, Record]:
        return read_runs(self.folder / "data" / "runstream.db", THREAD)

    @property
    def tokens_used(self) -> int:
        return sum(used["total_tokens"] for record in self.runs.values() for used in record.usage.values())

    @property
    def stories(self) -> list[list[str]]:
        return [story(record.frames) for record in self.runs.values()]

    @property
    def values(self) -> Mapping[str, Any]:
        return read_values(self.folder / "data" / "checkpoints.sqlite", f"{OWNER}/{THREAD}")

    @property
    def log(self) -> list[str]:
        return list(self.values["log"])

    def check(self) -> None:
        runs, lines = self.runs, read_trace(self.folder / "trace")
        for run_id, record in runs.items():
            ran: dict[str, list[int]] = {}
            for line in lines.get(run_id, ()):
                ran.setdefault(line["task_id"], []).append(int(line["process"]))
            check_log(record)
            check_nodes(record.frames)
            check_side_effects(record.frames, ran, self._processes(record))
            if not any(act.at for act in self.script.acts):  # otherwise the state has not got all of them
                check_texts(record.frames, self.values)
        check_mirror(list(runs.values())[-1].frames, self.log)
        self._check_received(list(runs.values()))
        assert sorted(self.log) == sorted(self.script.log)

    def check_against(self, whole: "Outcome") -> None:
        """Nothing is missing that is there without a crash; only what is shown on the way may come twice."""
        for told, wanted in zip(self.stories, whole.stories, strict=True):
            missing, added = Counter(wanted) - Counter(told), Counter(told) - Counter(wanted)
            assert not missing, missing
            assert all(line.startswith("custom") for line in added), added
        assert self.tokens_used >= whole.tokens_used

    def _processes(self, record: Record) -> dict[int, int]:
        lines = (line.split() for line in (self.folder / "claims").read_text().splitlines())
        return {int(attempt): int(process) for process, run_key, attempt in lines if run_key == record.key}

    def _check_received(self, records: Sequence[Record]) -> None:
        acts = [number for number, act in enumerate(self.script.acts) if act.kind != "edit"]
        assert len(records) == len(acts)
        for number, record in zip(acts, records, strict=True):
            received = (self.folder / f"received-{number}").read_bytes().splitlines()
            assert received == list(record.texts), "a client did not receive what is in the log"
