"""The journal of checkpoints and restarts: which phase each has reached."""

from __future__ import annotations

from dataclasses import dataclass

from ..ids import JobId, Version
from ..model import JobState
from .connection import Connection

KEPT_PER_JOB = 100  # ended operations; a job checkpointed for years must not fill the catalog
_FORGET_OLD = """
DELETE FROM operations WHERE job = ? AND ended_ns IS NOT NULL AND id <=
    (SELECT id FROM operations WHERE job = ? ORDER BY id DESC LIMIT 1 OFFSET ?)
"""


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """An operation that was under way when the daemon that ran it ended."""

    id: int
    job: JobId
    kind: str  # checkpoint, suspend, restart
    version: Version
    former_state: JobState
    phase: str


def begin(
    db: Connection, job: JobId, kind: str, version: Version, former: JobState, now_ns: int
) -> int:
    """Record a new operation before anything is done; return its id."""
    with db.transaction():
        db.execute(_FORGET_OLD, (job, job, KEPT_PER_JOB))
        return db.execute(
            "INSERT INTO operations (job, kind, version, former_state, begun_ns, phase, reason)"
            " VALUES (?, ?, ?, ?, ?, 'requested', '')",
            (job, kind, version, str(former), now_ns),
        )


def enter(db: Connection, operation: int, phase: str, reason: str, now_ns: int) -> None:
    """Record that a phase was entered; durable when this returns, before its order is given."""
    with db.transaction():
        db.execute(
            "INSERT INTO phases VALUES (?, 1 + (SELECT count(*) FROM phases WHERE operation = ?),"
            " ?, ?)",
            (operation, operation, phase, now_ns),
        )
        db.execute(
            "UPDATE operations SET phase = ?, reason = ? WHERE id = ?", (phase, reason, operation)
        )


def end(db: Connection, operation: int, reason: str, now_ns: int) -> None:
    """Record that nothing more is to be done for it.  May be repeated."""
    with db.transaction():
        db.execute(
            "UPDATE operations SET ended_ns = ?, reason = ? WHERE id = ? AND ended_ns IS NULL",
            (now_ns, reason, operation),
        )


def load_open(db: Connection) -> list[OpenOperation]:
    """Return what was under way, oldest first."""
    return [
        OpenOperation(
            int(row[0] or 0),
            JobId(str(row[1])),
            str(row[2]),
            Version(int(row[3] or 0)),
            JobState(str(row[4])),
            str(row[5]),
        )
        for row in db.rows(
            "SELECT id, job, kind, version, former_state, phase FROM operations"
            " WHERE ended_ns IS NULL ORDER BY id"
        )
    ]
