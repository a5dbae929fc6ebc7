"""Which of a thread's checkpoints nobody needs any more, and their deletion in steps that hold nobody up.

Each checkpoint holds the whole state, so a long conversation costs the square of its length. LangGraph's SQLite saver
can't prune. Ids of checkpoints grow with time, over all namespaces. A checkpoint of a subgraph names, in its metadata
under `parents`, the checkpoint of the graph in whose step it was made.
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from langgraph.channels.delta import DeltaChannel
from langgraph.pregel import Pregel

from app.engine.backend import Backend

# of one step; others wait for its end
STEP_ROWS: Final = 100
STEP_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedAt:
    """The place of a checkpoint in its thread."""

    ns: str
    checkpoint_id: str
    root_id: str | None = None  # of a subgraph's: the checkpoint of the graph itself in whose step it was made


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """The newest so many checkpoints of the graph itself, and those that are in use."""

    newest: int
    in_use: Collection[str] = ()

    def surplus(self, roots: Sequence[SavedAt]) -> list[SavedAt]:
        """Which of these, the oldest first, are not kept; the newest one always is: it is the thread's state."""
        older = roots[: -max(self.newest, 1)]
        return [place for place in older if place.checkpoint_id not in self.in_use]


def read_places(connection: sqlite3.Connection, thread_key: str, ns: str | None) -> list[SavedAt]:
    only = "" if ns is None else "AND checkpoint_ns = :ns"
    query = f"SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = :key {only} ORDER BY checkpoint_id"
    rows = connection.execute(query, {"key": thread_key, "ns": ns}).fetchall()
    return [SavedAt(ns=ns, checkpoint_id=checkpoint_id) for ns, checkpoint_id in rows]


def read_below(connection: sqlite3.Connection, thread_key: str) -> list[SavedAt]:
    """The places of subgraphs' checkpoints, by namespace, the oldest first."""
    query = """
        SELECT checkpoint_ns, checkpoint_id, metadata FROM checkpoints
        WHERE thread_id = ? AND checkpoint_ns > '' ORDER BY checkpoint_ns, checkpoint_id
    """
    rows = connection.execute(query, (thread_key,)).fetchall()
    return [SavedAt(ns=ns, checkpoint_id=saved_id, root_id=root_of(metadata)) for ns, saved_id, metadata in rows]


def root_of(metadata: bytes | None) -> str | None:
    parents = json.loads(metadata or b"{}").get("parents")
    found = parents.get("") if isinstance(parents, Mapping) else None
    return found if isinstance(found, str) else None


def surplus_below(below: Iterable[SavedAt], kept: Collection[str]) -> list[SavedAt]:
    """The checkpoints of subgraphs that no kept checkpoint of the graph leads to.

    A subgraph without a memory of its own has a namespace for each of its tasks (with a colon). One that remembers has
    one for all, and what it remembered at a kept checkpoint is the newest that is not younger.
    """
    surplus: list[SavedAt] = []
    for ns, group in groupby(below, key=lambda place: place.ns):
        places = list(group)
        remembered = set() if ":" in ns else newest_until([place.checkpoint_id for place in places], kept)
        surplus += [
            place
            for place in places
            if place.root_id is not None and place.root_id not in kept and place.checkpoint_id not in remembered
        ]
    return surplus


def newest_until(checkpoint_ids: Sequence[str], moments: Collection[str]) -> set[str]:
    """The newest of the ids, sorted, at each moment, and the newest of all."""
    places = [bisect_right(checkpoint_ids, moment) for moment in moments]
    return {checkpoint_ids[place - 1] for place in [*places, len(checkpoint_ids)] if place}


async def delete_places(backend: Backend, thread_key: str, places: Sequence[SavedAt]) -> None:
    """Delete these checkpoints and what was written at them, in their order."""
    rest = list(places)
    while rest:
        step = rest[:STEP_ROWS]
        count = await backend.write(lambda connection, step=step: delete_step(connection, thread_key, step))  # type: ignore[misc]
        del rest[:count]


def delete_step(connection: sqlite3.Connection, thread_key: str, places: Sequence[SavedAt]) -> int:
    """Delete as many of them, from the first on, as a step may hold; how many they were."""
    wanted = json.dumps([[place.ns, place.checkpoint_id] for place in places])
    values: dict[str, Any] = {"key": thread_key, "places": wanted}
    sizes = [size or 0 for (size,) in connection.execute(SIZES, values).fetchall()]
    count, total = 0, 0
    while count < len(sizes) and (count == 0 or total + sizes[count] <= STEP_BYTES):
        total += sizes[count]
        count += 1
    values["count"] = count
    for table in ("writes", "checkpoints"):
        connection.execute(DELETE.format(table=table), values)
    return count


SIZES: Final = """
    SELECT length(checkpoint) FROM json_each(:places) AS place LEFT JOIN checkpoints
    ON thread_id = :key AND checkpoint_ns = place.value ->> 0 AND checkpoint_id = place.value ->> 1
    ORDER BY place.key
"""

DELETE: Final = """
    DELETE FROM {table} WHERE thread_id = :key AND (checkpoint_ns, checkpoint_id) IN (
        SELECT value ->> 0, value ->> 1 FROM json_each(:places) WHERE key < :count
    )
"""


def has_deltas(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether a part of the state is only known with all that was written before it: nothing can be left out then."""
    graphs = [graph, *(subgraph for _, subgraph in graph.get_subgraphs(recurse=True))]
    channels = (channel for part in graphs for channel in getattr(part, "channels", {}).values())
    return any(isinstance(channel, DeltaChannel) for channel in channels)
