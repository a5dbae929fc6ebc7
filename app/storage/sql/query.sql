-- The statements, by name. A statement ends where the next name begins.
-- INDEXED BY: left to itself SQLite counts the active runs by going through all, and looks for a thread's active run
-- among all that it ever had.

-- name: void_leases
UPDATE runs SET lease_until = 0 WHERE status = 'running'

-- name: void_holds
UPDATE threads SET held_by = NULL WHERE held_by IS NOT NULL

-- name: touch
-- Writes the number that is there already: the smallest change that makes a real commit.
PRAGMA user_version = {version}


-- name: standing
SELECT
    (SELECT number FROM runs WHERE owner = :owner AND idempotency_key = :idempotency_key),
    (SELECT number FROM runs WHERE key = :run_key),
    threads.number,
    threads.graph,
    threads.version,
    threads.held_by,
    threads.rest_status,
    (SELECT run_id FROM runs INDEXED BY runs_active
     WHERE thread_key = :thread_key AND status IN ('pending', 'running') ORDER BY number LIMIT 1),
    (SELECT count(*) FROM runs INDEXED BY runs_active WHERE status IN ('pending', 'running')),
    CASE WHEN :is_owner_bound THEN (
        SELECT count(*) FROM runs INDEXED BY runs_active
        WHERE owner = :owner AND status IN ('pending', 'running')
    ) ELSE 0 END
FROM (SELECT 1) LEFT JOIN threads ON threads.key = :thread_key

-- name: occupy_thread
INSERT INTO threads (key, owner, thread_id, graph, status, metadata, version, created_at, updated_at)
VALUES (:thread_key, :owner, :thread_id, :graph, 'busy', '{}', :claims, :created_at, :created_at)
ON CONFLICT (key) DO UPDATE
SET status = 'busy', graph = coalesce(graph, excluded.graph), version = version + :claims,
    updated_at = excluded.updated_at

-- name: insert_run
INSERT INTO runs (
    key, owner, run_id, thread_id, thread_key, graph, status, fingerprint, idempotency_key, stream_modes,
    multitask_strategy, on_disconnect, worker, lease_until, epoch, attempt, crashes, last_seq, created_at, started_at,
    thread_status
) VALUES (
    :key, :owner, :run_id, :thread_id, :thread_key, :graph, :status, :fingerprint, :idempotency_key, :stream_modes,
    :multitask_strategy, :on_disconnect, :worker, :lease_until, :epoch, :attempt, 0, :last_seq, :created_at, :started_at,
    :thread_status
)

-- name: insert_request
INSERT INTO requests (run, request, metadata, supersedes) VALUES (:number, :request, :metadata, :supersedes)

-- name: tenure
SELECT
    runs.status, worker, epoch, lease_until, runs.number, thread_key, threads.version, last_seq,
    held_by IS NULL AND NOT EXISTS (
        SELECT 1 FROM runs AS older
        WHERE older.thread_key = runs.thread_key AND older.status IN ('pending', 'running')
            AND older.number < runs.number
    )
FROM runs CROSS JOIN threads ON threads.key = runs.thread_key WHERE runs.key = :run_key

-- name: stop_others
UPDATE runs SET cancel_reason = coalesce(cancel_reason, 'superseded')
WHERE thread_key = :thread_key AND status IN ('pending', 'running')

-- name: where_active_all
WHERE thread_key = ? AND status IN ('pending', 'running') ORDER BY runs.number

-- name: where_pending
WHERE status = 'pending' ORDER BY +runs.number LIMIT ?

-- name: set_request
UPDATE requests SET request = :request WHERE run = :number

-- name: set_thread_status
UPDATE runs SET thread_status = :status WHERE number = :number

-- name: dismiss
UPDATE runs SET epoch = epoch + 1, attempt = attempt + 1 WHERE number = :number

-- name: rest_status
SELECT runs.number, thread_key, threads.rest_status FROM runs CROSS JOIN threads ON threads.key = runs.thread_key
WHERE runs.key = :run_key AND runs.status = 'pending'

-- name: claim
UPDATE runs
SET status = 'running', worker = :worker, lease_until = :lease_until, epoch = epoch + 1, attempt = attempt + 1,
    crashes = crashes + :crashes, started_at = coalesce(started_at, :now)
WHERE key = :run_key

-- name: grow_thread
UPDATE threads SET version = version + 1 WHERE key = :thread_key RETURNING version

-- name: renew
UPDATE runs SET lease_until = :lease_until
WHERE key = :run_key AND worker = :worker AND epoch = :epoch AND status = 'running'

-- name: abandon
UPDATE runs SET lease_until = 0, worker = NULL
WHERE key = :run_key AND worker = :worker AND epoch = :epoch AND status = 'running'

-- name: request_cancel
UPDATE runs SET cancel_reason = :reason
WHERE key = :run_key AND status IN ('pending', 'running') AND cancel_reason IS NULL

-- name: finish_run
UPDATE runs
SET status = :status, finished_at = :now, usage = :usage, error = :error, checkpoint_id = :checkpoint_id
WHERE key = :run_key

-- name: finish_thread
UPDATE threads
SET status = CASE WHEN EXISTS (
        SELECT 1 FROM runs INDEXED BY runs_active WHERE thread_key = :thread_key AND status IN ('pending', 'running')
    ) THEN 'busy' ELSE :thread_status END,
    rest_status = :thread_status, version = version + 1, updated_at = :now
WHERE key = :thread_key

-- name: select_run
-- CROSS JOIN keeps the order: first the run, then its request.
SELECT
    runs.number, owner, run_id, thread_id, graph, status, request, fingerprint, idempotency_key, stream_modes,
    metadata, multitask_strategy, on_disconnect, epoch, attempt, crashes, last_seq, created_at, started_at,
    finished_at, usage, error, checkpoint_id, cancel_reason, expired, supersedes, thread_status
FROM runs CROSS JOIN requests ON requests.run = runs.number

-- name: where_active
WHERE runs.number = (
    SELECT number FROM runs INDEXED BY runs_active
    WHERE thread_key = ? AND status IN ('pending', 'running') ORDER BY number LIMIT 1
)

-- name: where_claimable
WHERE status IN ('pending', 'running') AND CASE status
    WHEN 'running' THEN lease_until <= :now
    ELSE (SELECT held_by IS NULL FROM threads WHERE threads.key = runs.thread_key) AND NOT EXISTS (
        SELECT 1 FROM runs AS older
        WHERE older.thread_key = runs.thread_key AND older.status IN ('pending', 'running')
            AND older.number < runs.number
    )
END
ORDER BY +runs.number LIMIT :limit -- the plus: by the index of active runs, not through all rows in their order


-- name: logs
-- One row, whatever the number of runs: each row of a result is a time the thread waits for the GIL.
SELECT json_group_array(json_array(key, number, last_seq, status, worker, epoch, lease_until))
FROM runs WHERE key IN (SELECT value FROM json_each(:run_keys))

-- name: insert_segments
INSERT INTO segments (run, first_seq, last_seq, body) VALUES

-- name: advance
UPDATE runs SET last_seq = json_extract(moved.value, '$[1]')
FROM json_each(:moves) AS moved
WHERE runs.number = json_extract(moved.value, '$[0]')

-- name: set_up_appends
-- An append to a log that is known is one row of `appends`: fence, advance and events are one statement, for each of
-- which the thread waits for the GIL. It changes nothing, and raises, where the log is not as it is known; the key,
-- because the number of a run that was rolled back is given to another one.
CREATE TEMP VIEW appends AS
SELECT NULL AS run, NULL AS run_key, NULL AS first_seq, NULL AS last_seq, NULL AS body, NULL AS epoch, NULL AS worker;
CREATE TEMP TRIGGER append INSTEAD OF INSERT ON appends BEGIN
    UPDATE runs SET last_seq = NEW.last_seq
    WHERE number = NEW.run AND key = NEW.run_key AND last_seq = NEW.first_seq - 1
        AND epoch = NEW.epoch AND worker = NEW.worker AND status = 'running';
    SELECT RAISE(ABORT, 'not as known') WHERE changes() <> 1;
    INSERT INTO segments (run, first_seq, last_seq, body) VALUES (NEW.run, NEW.first_seq, NEW.last_seq, NEW.body);
END

-- name: append
INSERT INTO temp.appends VALUES

-- name: page
-- One row again. `near` holds the segments that may be on the page, `page` adds how many bytes are before each.
WITH
    log AS (SELECT number, run_id, thread_id, status, last_seq, expired FROM runs WHERE key = :run_key),
    near AS (
        SELECT rowid AS id, first_seq, length(body) AS size FROM segments
        WHERE run = (SELECT number FROM log) AND last_seq > :after AND first_seq <= :after + :max_events
        ORDER BY last_seq LIMIT :max_events
    ),
    page AS (
        SELECT id, first_seq, sum(size) OVER (ORDER BY first_seq ROWS UNBOUNDED PRECEDING) - size AS skipped FROM near
    )
SELECT
    run_id,
    thread_id,
    expired,
    status,
    last_seq,
    (SELECT min(first_seq) FROM near),
    (
        SELECT CAST(group_concat(body, char(10)) AS BLOB)
        FROM (
            SELECT body FROM page CROSS JOIN segments ON segments.rowid = page.id
            WHERE skipped <= :max_bytes ORDER BY page.first_seq
        )
    )
FROM log

-- name: log_end
SELECT status, last_seq FROM runs WHERE key = :run_key


-- name: ended_runs
SELECT number, key, thread_key FROM runs INDEXED BY runs_ended
WHERE expired < 2 AND finished_at IS NOT NULL AND finished_at <= :before ORDER BY finished_at LIMIT :limit

-- name: hide_runs
UPDATE runs SET expired = 1 WHERE expired = 0 AND number IN (SELECT value FROM json_each(:numbers))

-- name: delete_logs
-- At most so many segments and bytes, one at the least: what is large has pages of its own, and each is a write.
WITH next AS (
    SELECT segments.rowid AS id, length(body) AS size FROM json_each(:numbers) AS wanted
    CROSS JOIN segments INDEXED BY segments_run ON segments.run = wanted.value LIMIT :max_segments
)
DELETE FROM segments WHERE rowid IN (
    SELECT id FROM (SELECT id, size, sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS before FROM next)
    WHERE before <= :max_bytes
)

-- name: has_logs
SELECT EXISTS (SELECT 1 FROM segments WHERE run IN (SELECT value FROM json_each(:numbers)))

-- name: clear_requests
UPDATE requests SET request = '{}' WHERE run IN (SELECT value FROM json_each(:numbers))

-- name: expire_runs
UPDATE runs SET expired = 2 WHERE number IN (SELECT value FROM json_each(:numbers))

-- name: expired_runs
SELECT number FROM runs INDEXED BY runs_expired
WHERE expired = 2 AND finished_at <= :before ORDER BY finished_at LIMIT :limit

-- name: delete_numbered_requests
DELETE FROM requests WHERE run IN (SELECT value FROM json_each(:numbers))

-- name: delete_numbered_runs
DELETE FROM runs WHERE number IN (SELECT value FROM json_each(:numbers))


-- name: insert_thread
INSERT INTO threads (key, owner, thread_id, graph, status, metadata, version, created_at, updated_at, rest_status)
VALUES (:key, :owner, :thread_id, :graph, :status, :metadata, :version, :created_at, :updated_at, :status)
ON CONFLICT (key) DO NOTHING

-- name: select_thread
SELECT owner, thread_id, graph, status, metadata, version, created_at, updated_at, rest_status FROM threads

-- name: update_thread
UPDATE threads SET metadata = :metadata, updated_at = :now WHERE key = :thread_key

-- name: occupation
SELECT
    held_by,
    (SELECT run_id FROM runs INDEXED BY runs_active
     WHERE thread_key = :thread_key AND status IN ('pending', 'running') ORDER BY number LIMIT 1)
FROM threads WHERE key = :thread_key

-- name: hold
UPDATE threads SET held_by = :worker WHERE key = :thread_key

-- name: release_unchanged
UPDATE threads SET held_by = NULL, graph = coalesce(graph, :graph) WHERE key = :thread_key AND held_by = :worker

-- name: release_changed
UPDATE threads
SET held_by = NULL, graph = coalesce(graph, :graph), status = :status, rest_status = :status, version = version + 1,
    updated_at = :now
WHERE key = :thread_key AND held_by = :worker

-- name: hide_thread_runs
UPDATE runs SET expired = 1 WHERE thread_key = :thread_key AND expired = 0

-- name: thread_runs
SELECT number, key FROM runs WHERE thread_key = :thread_key ORDER BY number LIMIT :limit

-- name: where_unused
INDEXED BY threads_unused WHERE status = :status AND status <> 'busy' AND updated_at <= :before AND held_by IS NULL
ORDER BY updated_at LIMIT :limit

-- name: ended_threads
SELECT thread_key, finished_at FROM runs INDEXED BY runs_ended
WHERE expired < 2 AND finished_at IS NOT NULL AND finished_at > :after ORDER BY finished_at LIMIT :limit

-- name: checkpoints_in_use
-- Where unexpired runs ended, and where active ones begin.
SELECT checkpoint_id FROM runs WHERE thread_key = :thread_key AND expired = 0 AND checkpoint_id IS NOT NULL
UNION
SELECT json_extract(request, '$.checkpoint_id')
FROM runs INDEXED BY runs_active CROSS JOIN requests ON requests.run = runs.number
WHERE thread_key = :thread_key AND status IN ('pending', 'running')

-- name: delete_thread
DELETE FROM threads WHERE key = :thread_key

-- name: count_threads
SELECT count(*) FROM threads
