-- What makes the schema of a version from the one before it. A part ends where the next one begins.

-- name: 2
ALTER TABLE runs ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_ended ON runs (finished_at) WHERE expired < 2 AND finished_at IS NOT NULL;
CREATE INDEX runs_expired ON runs (finished_at) WHERE expired = 2;

-- name: 3
-- Runs wait for their turn, and undo others.
ALTER TABLE threads ADD COLUMN rest_status TEXT NOT NULL DEFAULT 'idle';
UPDATE threads SET rest_status = CASE status WHEN 'busy' THEN 'idle' ELSE status END;
ALTER TABLE runs ADD COLUMN thread_status TEXT NOT NULL DEFAULT 'idle';
ALTER TABLE requests ADD COLUMN supersedes TEXT NOT NULL DEFAULT '[]';

-- name: 4
CREATE INDEX threads_unused ON threads (status, updated_at) WHERE status <> 'busy';
