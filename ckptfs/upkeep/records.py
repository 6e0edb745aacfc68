"""Jobs' records, heads and catalog of one store, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..catalog import jobs as catalog_jobs
from ..catalog.connection import Connection
from ..catalog.index import Indexed, read_index
from ..errors import CkptfsError, Corrupt
from ..ids import JobId, Version
from ..jobs.directory import JobsDirectory
from ..jobs.quotas import NAME, decode_quotas
from ..jobs.record import JobRecord
from ..model import Head
from ..store.versions import Versions

CATALOG = "catalog.db"
OLD = ".old"  # behind the name of a catalog that was put aside on request


def load_records(store: Path) -> tuple[list[JobRecord], list[str]]:
    """Return every job's record, and one sentence for each that cannot be read.

    Records of removed jobs and the quotas are read, too, for what is to be said of them.
    """
    if not (store / "jobs").is_dir():
        return [], []
    directory = JobsDirectory(store / "jobs", store / "logs")
    records, troubles = directory.load(sweep=False)
    troubles += directory.load_put_away()[1]
    try:
        decode_quotas(directory.kept(NAME))
    except Corrupt as error:
        troubles.append(f"no quota holds: {error}")
    return records, troubles


def compare(store: Path, records: Sequence[JobRecord], versions: Versions) -> Iterator[str]:
    """Yield one sentence per difference between the catalog and the records and heads."""
    if not records and not (store / CATALOG).exists():
        return
    try:
        found = read_index(store / CATALOG)
    except Corrupt as error:
        yield f"{error}; the service makes it again"
        return
    yield from differences(found, records, versions)


def differences(found: Indexed, records: Sequence[JobRecord], versions: Versions) -> Iterator[str]:
    """Yield what the catalog has too much or too little of."""
    jobs = {record.id for record in records}
    heads = {(job, version) for job in jobs for version in versions.versions(job)}
    readable = {key for key in heads if _is_readable(versions, *key)}
    for job in sorted(jobs - found.jobs):
        yield f"the catalog lacks job {job}"
    for job in sorted(found.jobs - jobs - set(versions.jobs())):
        yield f"the catalog names job {job}, which is gone"
    for job, version in sorted(readable - found.versions):
        yield f"the catalog lacks version {version} of {job}"
    for job, version in sorted(key for key in found.versions - heads if key[0] in jobs):
        yield f"the catalog names version {version} of {job}, which is gone"


def _is_readable(versions: Versions, job: JobId, version: Version) -> bool:
    try:
        versions.head(job, version)
    except CkptfsError:
        return False
    return True


def rebuild(store: Path, records: Sequence[JobRecord], versions: Versions) -> None:
    """Put the catalog aside and make a new one.  Raises StoreFull, Degraded.

    The new one says of itself that the journal was lost, so the next service ends what was cut
    off as if it had found none.
    """
    path = store / CATALOG
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(path.name + suffix + OLD))
    db = Connection(path)
    try:
        for record in records:
            catalog_jobs.save_job(
                db,
                record.id,
                record.spec.owner,
                state=record.state,
                reason=record.reason,
                created_ns=record.created_ns,
                highest_version=record.highest_version,
                clone_of=record.clone_of,
            )
            catalog_jobs.replace_versions(db, record.id, _heads(versions, record.id))
    finally:
        db.close()


def _heads(versions: Versions, job: JobId) -> Iterator[Head]:
    for version in versions.versions(job):
        if _is_readable(versions, job, version):
            yield versions.head(job, version)
