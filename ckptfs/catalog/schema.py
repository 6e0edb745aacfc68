"""The tables.  The comment on a column is the authority on what it means.  Pure.

The catalog is an index: ``jobs/*/job.json`` and the store's heads are the
truth, and everything but the history in ``phases`` comes back from them.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1  # PRAGMA user_version; `upgrade` walks forward from any older one

TABLES: Final = """
CREATE TABLE jobs (
    id              TEXT PRIMARY KEY,  -- "<name>.<number>", as the directory in the mount
    number          INTEGER NOT NULL UNIQUE,  -- never reused
    uid             INTEGER NOT NULL,  -- local account the job runs as
    user            TEXT NOT NULL,     -- global user id of the owner
    state           TEXT NOT NULL,     -- model.JobState as last made durable
    reason          TEXT NOT NULL,     -- sentence of state failed, else ''
    created_ns      INTEGER NOT NULL,  -- epoch
    highest_version INTEGER NOT NULL,  -- ever assigned, committed or not
    clone_of        TEXT               -- job this one was cloned from, may be gone
) STRICT, WITHOUT ROWID;

CREATE TABLE versions (
    job             TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    version         INTEGER NOT NULL,  -- 1, 2, 3 ... per job
    uid             INTEGER NOT NULL,  -- owner in the signed head
    committed_ns    INTEGER NOT NULL,  -- epoch; from the head
    purpose         TEXT NOT NULL,     -- model.Purpose
    logical_bytes   INTEGER NOT NULL,
    stored_bytes    INTEGER NOT NULL,  -- new bytes this version put into packs
    PRIMARY KEY (job, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE operations (
    id              INTEGER PRIMARY KEY,
    job             TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    kind            TEXT NOT NULL,     -- checkpoint, suspend, restart
    version         INTEGER NOT NULL,  -- being taken, or being restarted from
    former_state    TEXT NOT NULL,     -- of the job when it began
    begun_ns        INTEGER NOT NULL,  -- epoch
    ended_ns        INTEGER,           -- NULL while under way: what a new daemon must clean up
    phase           TEXT NOT NULL,     -- latest, written before its order is given
    reason          TEXT NOT NULL      -- sentence of a failure, else ''
) STRICT;
CREATE INDEX operations_open ON operations(job) WHERE ended_ns IS NULL;

CREATE TABLE phases (
    operation       INTEGER NOT NULL REFERENCES operations(id) ON DELETE CASCADE,
    sequence        INTEGER NOT NULL,  -- 1, 2, 3 ... within the operation
    phase           TEXT NOT NULL,
    entered_ns      INTEGER NOT NULL,  -- epoch
    PRIMARY KEY (operation, sequence)
) STRICT, WITHOUT ROWID;
"""
