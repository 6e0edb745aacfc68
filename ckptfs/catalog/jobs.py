"""Jobs and committed versions as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def save_versions(db: Connection, heads: Iterable[Head]) -> None:
    """Index committed versions, all or none.  May be repeated."""
    with db.transaction():
        for head in heads:
            _save_version(db, head)


def save_rows(db: Connection, rows: Iterable[Sequence[str | int]]) -> None:
    """Write rows of versions as another catalog had them, all or none."""
    with db.transaction():
        for row in rows:
            db.execute(_VERSION, tuple(row))


def versions(db: Connection) -> set[tuple[JobId, Version]]:
    """Return every version that the index names."""
    rows = db.rows("SELECT job, version FROM versions")
    return {(JobId(str(job)), Version(int(version or 0))) for job, version in rows}


def is_named(db: Connection, job: JobId, version: Version) -> bool:
    """Whether the index names a version."""
    found = db.rows("SELECT 1 FROM versions WHERE job = ? AND version = ?", (job, version))
    return bool(found)


def remove_version(db: Connection, job: JobId, version: Version) -> None:
    """Forget one version.  May be repeated."""
    remove_versions(db, [(job, version)])


def remove_versions(db: Connection, keys: Iterable[tuple[JobId, Version]]) -> None:
    """Forget versions, all or none.  May be repeated."""
    with db.transaction():
        for key in keys:
            db.execute("DELETE FROM versions WHERE job = ? AND version = ?", key)


def names(db: Connection) -> set[JobId]:
    """Return every job that the index names."""
    return {JobId(str(job)) for (job,) in db.rows("SELECT id FROM jobs")}


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
