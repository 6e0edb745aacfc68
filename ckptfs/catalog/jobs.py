"""Jobs and committed versions as rows."""

from __future__ import annotations

from collections.abc import Iterable

from ..ids import JobId, Version, job_number
from ..model import Head, JobState, Owner
from .connection import Connection

_SAVE = """
INSERT INTO jobs (id, number, uid, user, state, reason, created_ns, highest_version, clone_of)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, reason = excluded.reason,
    highest_version = excluded.highest_version
"""
_VERSION = "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)"


def save_job(
    db: Connection,
    job: JobId,
    owner: Owner,
    *,
    state: JobState,
    reason: str,
    created_ns: int,
    highest_version: int,
    clone_of: JobId | None,
) -> None:
    """Write one job.  May be repeated.  Raises StoreFull, Degraded."""
    with db.transaction():
        db.execute(
            _SAVE,
            (
                job,
                job_number(job),
                owner.uid,
                owner.user.encode("utf-8", "replace").decode(),
                str(state),
                reason,
                created_ns,
                highest_version,
                clone_of,
            ),
        )


def remove_job(db: Connection, job: JobId) -> None:
    """Forget a job with its operations and versions.  May be repeated."""
    with db.transaction():
        db.execute("DELETE FROM jobs WHERE id = ?", (job,))


def save_version(db: Connection, head: Head) -> None:
    """Index one committed version.  May be repeated."""
    with db.transaction():
        _save_version(db, head)


def replace_versions(db: Connection, job: JobId, heads: Iterable[Head]) -> None:
    """Make the index of *job* say what the store says."""
    with db.transaction():
        db.execute("DELETE FROM versions WHERE job = ?", (job,))
        for head in heads:
            _save_version(db, head)


def remove_version(db: Connection, job: JobId, version: Version) -> None:
    """Forget one version.  May be repeated."""
    with db.transaction():
        db.execute("DELETE FROM versions WHERE job = ? AND version = ?", (job, version))


def highest_number(db: Connection) -> int:
    """Return the highest job number the catalog knows, 0 when it is empty."""
    return db.number("SELECT coalesce(max(number), 0) FROM jobs")


def _save_version(db: Connection, head: Head) -> None:
    db.execute(
        _VERSION,
        (
            head.job,
            head.version,
            head.owner.uid,
            head.committed_ns,
            str(head.purpose),
            head.logical_bytes,
            head.stored_bytes,
        ),
    )
