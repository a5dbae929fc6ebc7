-- Runs, their logs, and threads. Times are ISO 8601 text in UTC, JSON is text, a key is 'owner/id'.

CREATE TABLE threads (
    number     INTEGER PRIMARY KEY,
    key        TEXT NOT NULL UNIQUE,
    owner      TEXT NOT NULL,
    thread_id  TEXT NOT NULL,
    graph      TEXT,             -- NULL until its first run
    status     TEXT NOT NULL,
    metadata   TEXT NOT NULL,
    version    INTEGER NOT NULL, -- grows with every change of its state
    held_by    TEXT,             -- the worker that edits its state
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    rest_status TEXT NOT NULL DEFAULT 'idle' -- its status without an active run
) STRICT;

CREATE INDEX threads_created ON threads (owner, created_at);
CREATE INDEX threads_updated ON threads (owner, updated_at);
-- those that nobody uses, the longest unchanged first
CREATE INDEX threads_unused ON threads (status, updated_at) WHERE status <> 'busy';
CREATE INDEX threads_held ON threads (held_by) WHERE held_by IS NOT NULL;

-- Small on purpose: every append rewrites its run's row. What is large and never changes is in `requests`.
CREATE TABLE runs (
    number             INTEGER PRIMARY KEY, -- the order of acceptance
    key                TEXT NOT NULL UNIQUE,
    owner              TEXT NOT NULL,
    run_id             TEXT NOT NULL,
    thread_id          TEXT NOT NULL,
    thread_key         TEXT NOT NULL,
    graph              TEXT NOT NULL,
    status             TEXT NOT NULL,
    fingerprint        TEXT NOT NULL,
    idempotency_key    TEXT,
    stream_modes       TEXT NOT NULL,
    multitask_strategy TEXT NOT NULL,
    on_disconnect      TEXT NOT NULL,
    worker             TEXT,                -- who has the lease; NULL: nobody yet, or it was given up
    lease_until        REAL NOT NULL,       -- seconds of a monotonic clock, void at every open
    epoch              INTEGER NOT NULL,
    attempt            INTEGER NOT NULL,
    crashes            INTEGER NOT NULL,
    last_seq           INTEGER NOT NULL,
    created_at         TEXT NOT NULL,
    started_at         TEXT,
    finished_at        TEXT,
    usage              TEXT,
    error              TEXT,
    checkpoint_id      TEXT,
    cancel_reason      TEXT,
    thread_status      TEXT NOT NULL DEFAULT 'idle', -- the thread's rest status that it begins from, or was let in at
    expired            INTEGER NOT NULL DEFAULT 0 -- 1: gone for readers, being deleted; 2: only this row is left
) STRICT;

CREATE UNIQUE INDEX runs_idempotency ON runs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_running ON runs (thread_key) WHERE status = 'running'; -- one writer a thread
CREATE INDEX runs_active ON runs (thread_key) WHERE status IN ('pending', 'running');
CREATE INDEX runs_thread ON runs (thread_key);
CREATE INDEX runs_owner ON runs (owner);
CREATE INDEX runs_owner_status ON runs (owner, status);

-- by their ends: what retention deletes next
CREATE INDEX runs_ended ON runs (finished_at) WHERE expired < 2 AND finished_at IS NOT NULL;
CREATE INDEX runs_expired ON runs (finished_at) WHERE expired = 2;

CREATE TABLE requests (
    run      INTEGER PRIMARY KEY,
    request  TEXT NOT NULL,
    metadata TEXT NOT NULL,
    supersedes TEXT NOT NULL DEFAULT '[]' -- the keys of the runs that it undoes
) STRICT;

-- The logs. A segment is what one append wrote: the texts of its events, joined by newlines (a text holds none).
-- Rows stand in the order of writing and an index leads to a run's own: three times as fast, with fifty writers, as
-- a table that is clustered by run.
CREATE TABLE segments (
    run       INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    body      BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX segments_run ON segments (run, last_seq);
