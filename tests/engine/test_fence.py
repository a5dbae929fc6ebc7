"""The fence on a connection: later claims of a thread keep earlier ones out of its checkpoints."""

import sqlite3

import pytest

from app.engine.backend import set_up
from app.engine.fence import move_fence, pass_fence
from app.errors import LeaseLost
from app.runs.model import Lease


def lease(version: int, run: str = "run", thread: str = "o/t") -> Lease:
    return Lease(run_key=f"o/{run}", thread_key=thread, worker="w", epoch=1, attempt=1, version=version)


def fence() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    set_up(connection)
    return connection


@pytest.mark.parametrize(("first", "second", "refused"), [(1, 1, False), (1, 2, False), (2, 1, True), (5, 4, True)])
def test_a_claim_locks_earlier_ones_out_and_no_others(first: int, second: int, refused: bool) -> None:
    connection = fence()
    pass_fence(connection, lease(first))
    if refused:
        with pytest.raises(LeaseLost):
            pass_fence(connection, lease(second))
    else:
        pass_fence(connection, lease(second))
    connection.close()


def test_a_fence_stands_round_one_thread_only() -> None:
    connection = fence()
    pass_fence(connection, lease(5, thread="o/a"))
    pass_fence(connection, lease(1, thread="o/b"))
    connection.close()


def test_a_later_claim_clears_the_node_events_of_other_runs() -> None:
    connection = fence()
    for run in ("old", "new"):
        connection.execute("INSERT INTO node_events VALUES ('o/t', ?, 'task', x'7b7d')", (f"o/{run}",))
    pass_fence(connection, lease(1, run="new"))
    assert connection.execute("SELECT run_key FROM node_events").fetchall() == [("o/new",)]
    connection.close()


def test_a_fence_that_is_moved_says_who_came_first_and_clears_nothing() -> None:
    connection = fence()
    connection.execute("INSERT INTO node_events VALUES ('o/t', 'o/old', 'task', x'7b7d')")
    assert [move_fence(connection, "o/t", version) for version in (1, 1, 2)] == [True, False, True]
    with pytest.raises(LeaseLost):
        move_fence(connection, "o/t", 1)
    assert connection.execute("SELECT count(*) FROM node_events").fetchall() == [(1,)]
    connection.close()
