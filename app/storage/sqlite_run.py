"""Runs in SQLite: operations on a connection, each inside a transaction of the caller."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.errors import StaleThread
from app.runs.event import NewEvent
from app.runs.model import Accepted, Admission, CancelReason, Ending, Lease, NewRun, Run, Turn, scoped
from app.runs.store import RunQuery
from app.storage import decide
from app.storage.clock import Clock
from app.storage.decide import Standing, Tenure
from app.storage.sqlite_log import LogTable, Tail, Written, segments_of
from app.storage.sqlite_row import Sql, run_values, to_json, to_run, to_text


class RunTable:
    """Runs, their requests, and their leases."""

    def __init__(self, sql: Sql, log: LogTable, *, clock: Clock, lease_seconds: float) -> None:
        self._sql = sql
        self._log = log
        self._clock = clock
        self._lease_seconds = lease_seconds

    def accept(
        self,
        connection: sqlite3.Connection,
        new: NewRun,
        worker: str | None,
        start: NewEvent | None,
        admission: Admission,
    ) -> tuple[Accepted, Written | None]:
        """As `Store.accept`; also what was written to the log. Raises before the first change."""
        values = {
            "owner": new.owner,
            "idempotency_key": new.idempotency_key,
            "run_key": new.key,
            "thread_key": new.thread_key,
            "is_owner_bound": admission.max_active_of_owner is not None,
        }
        row = connection.execute(self._sql["standing"], values).fetchone()
        by_key, by_id, thread, graph, version, held_by, rest_status, active_run_id, active_runs, of_owner = row
        earlier = by_id if by_key is None else by_key
        if earlier is not None:
            return Accepted(run=self._numbered(connection, earlier), created=False, lease=None), None
        standing = Standing(
            thread_exists=thread is not None,
            graph=graph,
            version=version or 0,
            held=held_by is not None,
            rest_status=rest_status or "idle",
            active_run_id=active_run_id,
            active_runs=active_runs,
            active_runs_of_owner=of_owner,
        )
        decide.admit(new, standing, is_claimed=worker is not None, admission=admission)
        to_stop = self._stop_others(connection, new) if active_run_id is not None else ()
        return self._store(connection, new, worker, start, standing, to_stop)

    def claim(
        self, connection: sqlite3.Connection, run_key: str, worker: str, start: NewEvent | None, turn: Turn | None
    ) -> tuple[Lease | None, Written | None]:
        """As `Store.claim`; also what was written to the log."""
        row = connection.execute(self._sql["tenure"], {"run_key": run_key}).fetchone()
        if row is None:
            return None, None
        status, holder, epoch, lease_until, number, thread_key, thread_version, last_seq, is_turn = row
        tenure = Tenure(status=status, worker=holder, epoch=epoch, lease_until=lease_until)
        if not decide.is_claimable(tenure, now=self._clock.monotonic(), is_turn=bool(is_turn)):
            return None, None
        if status == "pending" and turn is not None:
            if turn.thread_version != thread_version:
                raise StaleThread(decide.thread_id_of(thread_key))
            connection.execute(self._sql["set_request"], {"number": number, "request": to_json(dict(turn.request))})
            connection.execute(self._sql["set_thread_status"], {"number": number, "status": turn.thread_status})
        lease = self._claimed(connection, run_key, thread_key, worker, tenure)
        if start is None or last_seq:
            return lease, None
        return lease, self._log.append(connection, run_key, number, [start], after=0)

    def _claimed(
        self, connection: sqlite3.Connection, run_key: str, thread_key: str, worker: str, tenure: Tenure
    ) -> Lease | None:
        values = {
            "run_key": run_key,
            "worker": worker,
            "lease_until": self._lease_until(),
            "crashes": int(decide.is_crash(tenure)),
            "now": to_text(self._clock.now()),
        }
        connection.execute(self._sql["claim"], values)
        ((version,),) = connection.execute(self._sql["grow_thread"], {"thread_key": thread_key}).fetchall()
        run = self.get(connection, run_key)
        return None if run is None else decide.lease_of(run, worker, version=version)

    def dismiss(
        self,
        connection: sqlite3.Connection,
        run_key: str,
        events: Sequence[NewEvent],
        ending: Ending,
        keeps_status: bool,
    ) -> Written | None:
        """As `Store.dismiss`: what was written to the log."""
        row = connection.execute(self._sql["rest_status"], {"run_key": run_key}).fetchone()
        if row is None:
            return None
        number, thread_key, rest_status = row
        connection.execute(self._sql["dismiss"], {"number": number})
        written = self._log.append(connection, run_key, number, events, after=0, is_ended=True)
        ended = replace(ending, thread_status=rest_status) if keeps_status else ending
        self._log.finish(connection, run_key, thread_key, ended, to_text(self._clock.now()))
        return written

    def renew(self, connection: sqlite3.Connection, lease: Lease) -> bool:
        values = {**_lease_values(lease), "lease_until": self._lease_until()}
        return connection.execute(self._sql["renew"], values).rowcount == 1

    def abandon(self, connection: sqlite3.Connection, lease: Lease) -> None:
        connection.execute(self._sql["abandon"], _lease_values(lease))

    def request_cancel(self, connection: sqlite3.Connection, run_key: str, reason: CancelReason) -> Run | None:
        connection.execute(self._sql["request_cancel"], {"run_key": run_key, "reason": reason})
        return self.get(connection, run_key)

    def get(self, connection: sqlite3.Connection, run_key: str) -> Run | None:
        return self._one(connection, "WHERE key = ?", run_key)

    def find(self, connection: sqlite3.Connection, owner: str, idempotency_key: str) -> Run | None:
        return self._one(connection, "WHERE owner = ? AND idempotency_key = ?", owner, idempotency_key)

    def active(self, connection: sqlite3.Connection, thread_key: str) -> Run | None:
        return self._one(connection, self._sql["where_active"], thread_key)

    def next(self, connection: sqlite3.Connection, thread_key: str, after: str | None) -> Run | None:
        if after is None:
            return self._one(connection, "WHERE thread_key = ? ORDER BY runs.number LIMIT 1", thread_key)
        # rows are deleted from the oldest on, so whatever is left came after one that is gone
        later = "runs.number > coalesce((SELECT number FROM runs WHERE key = ?), 0)"
        where = f"WHERE thread_key = ? AND {later} ORDER BY runs.number LIMIT 1"
        return self._one(connection, where, thread_key, after)

    def list(self, connection: sqlite3.Connection, query: RunQuery) -> tuple[Sequence[Run], str | None]:
        before = decide.parse_cursor(query.cursor)
        conditions = ["owner = :owner" if query.thread_id is None else "thread_key = :thread_key"]
        if query.status is not None:
            conditions.append("status = :status")
        if before is not None:
            conditions.append("runs.number < :before")
        values = {
            "owner": query.owner,
            "thread_key": scoped(query.owner, query.thread_id or ""),
            "status": query.status,
            "before": before,
            "limit": query.limit + 1,
        }
        tail = f"WHERE {' AND '.join(conditions)} ORDER BY runs.number DESC LIMIT :limit"
        rows = connection.execute(f"{self._sql['select_run']} {tail}", values).fetchall()
        given = rows[: query.limit]
        return [to_run(row) for row in given], str(given[-1][0]) if given and len(rows) > len(given) else None

    def list_claimable(self, connection: sqlite3.Connection, limit: int) -> Sequence[Run]:
        statement = f"{self._sql['select_run']} {self._sql['where_claimable']}"
        values = {"now": self._clock.monotonic(), "limit": limit}
        return [to_run(row) for row in connection.execute(statement, values).fetchall()]

    def list_pending(self, connection: sqlite3.Connection, limit: int) -> Sequence[Run]:
        statement = f"{self._sql['select_run']} {self._sql['where_pending']}"
        return [to_run(row) for row in connection.execute(statement, (limit,)).fetchall()]

    def _stop_others(self, connection: sqlite3.Connection, new: NewRun) -> tuple[Run, ...]:
        if not decide.stops_others(new):
            return ()
        connection.execute(self._sql["stop_others"], {"thread_key": new.thread_key})
        statement = f"{self._sql['select_run']} {self._sql['where_active_all']}"
        return tuple(to_run(row) for row in connection.execute(statement, (new.thread_key,)).fetchall())

    def _store(
        self,
        connection: sqlite3.Connection,
        new: NewRun,
        worker: str | None,
        start: NewEvent | None,
        standing: Standing,
        to_stop: tuple[Run, ...],
    ) -> tuple[Accepted, Written | None]:
        events = decide.numbered([start] if worker is not None and start is not None else [], after=0)
        run = decide.first_row(
            new,
            worker=worker,
            last_seq=len(events),
            now=self._clock.now(),
            thread_status=standing.rest_status,
            supersedes=decide.superseded(new, to_stop),
        )
        values: dict[str, Any] = {
            **run_values(run),
            "worker": worker,
            "claims": run.epoch,
            "lease_until": 0.0 if worker is None else self._lease_until(),
        }
        connection.execute(self._sql["occupy_thread"], values)
        values["number"] = connection.execute(self._sql["insert_run"], values).lastrowid
        connection.execute(self._sql["insert_request"], values)
        for segment in segments_of(events):
            self._log.insert(connection, [values["number"], *segment])
        if events:
            self._log.know(run.key, Tail(values["number"], run.last_seq))
        lease = None
        if worker is not None:
            is_new, version = not standing.thread_exists, standing.version + 1
            lease = decide.lease_of(run, worker, version=version, is_new_thread=is_new)
        written = Written(run_key=run.key, events=events, last_seq=run.last_seq, is_ended=False)
        accepted = Accepted(run=run, created=True, lease=lease, to_stop=to_stop)
        return accepted, written if events else None

    def _lease_until(self) -> float:
        return self._clock.monotonic() + self._lease_seconds

    def _numbered(self, connection: sqlite3.Connection, number: int) -> Run:
        return to_run(connection.execute(f"{self._sql['select_run']} WHERE runs.number = ?", (number,)).fetchone())

    def _one(self, connection: sqlite3.Connection, where: str, *values: str) -> Run | None:
        row = connection.execute(f"{self._sql['select_run']} {where}", values).fetchone()
        return None if row is None else to_run(row)


def _lease_values(lease: Lease) -> dict[str, Any]:
    return {"run_key": lease.run_key, "worker": lease.worker, "epoch": lease.epoch}
