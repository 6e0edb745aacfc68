"""Jobs' records, heads and catalog of one store, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..catalog import jobs as catalog_jobs
from ..catalog.connection import Connection
from ..catalog.index import Indexed, VersionRow, read_index
from ..errors import CkptfsError, Corrupt
from ..ids import JobId, Version
from ..jobs.directory import JobsDirectory
from ..jobs.quotas import NAME, decode_quotas
from ..jobs.record import JobRecord
from ..model import Head
from ..store.copies_plan import Key
from ..store.superblock import Superblock
from ..store.syscalls import Syscalls
from ..store.trash import Trash
from ..store.versions import Versions
from ..store.volume import LocalVolume

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


@dataclass(slots=True)
class Comparison:
    """What the catalog has too much or too little of, and versions that it alone still knows."""

    wrong: list[str] = field(default_factory=list[str])
    lost: dict[Key, VersionRow] = field(default_factory=dict[Key, VersionRow])

    def sentences(self) -> Iterator[str]:
        """Yield one sentence per difference."""
        yield from self.wrong
        for job, version in sorted(self.lost):
            yield lost_sentence(job, version)


def lost_sentence(job: JobId, version: Version) -> str:
    """Return what is said of a version that has a row but no head, here or in the trash."""
    return f"the head of version {version} of {job} is missing, and nobody removed it"


def removed_versions(block: Superblock, calls: Syscalls, versions: Versions) -> set[Key]:
    """Return the versions in the trash, or gone for good.  Raises Corrupt, OSError."""
    volume = LocalVolume(block.directory, calls)
    trash = Trash(block, calls, volume=volume, versions=versions)
    return {(entry.job, entry.version) for entry in trash.entries()} | set(trash.dropped())


def compare(
    store: Path, records: Sequence[JobRecord], versions: Versions, removed: Callable[[], set[Key]]
) -> Comparison:
    """Hold the catalog against records and heads.

    *removed* returns what is in the trash; where it cannot, a version that has gone is lost.
    """
    if not records and not (store / CATALOG).exists():
        return Comparison()
    try:
        found = read_index(store / CATALOG)
    except Corrupt as error:
        return Comparison([f"{error}; the service makes it again"])
    made = Comparison()
    try:
        in_trash = removed()
    except (Corrupt, OSError) as error:
        in_trash = set[Key]()
        made.wrong.append(f"the trash cannot be listed: {error}")
    _compare(made, found, records, versions, in_trash)
    return made


def _compare(
    made: Comparison,
    found: Indexed,
    records: Sequence[JobRecord],
    versions: Versions,
    in_trash: set[Key],
) -> None:
    jobs = {record.id for record in records}
    heads = {(job, version) for job in jobs for version in versions.versions(job)}
    readable = {key for key in heads if _is_readable(versions, *key)}
    made.wrong += [f"the catalog lacks job {job}" for job in sorted(jobs - found.jobs)]
    strangers = found.jobs - jobs - set(versions.jobs())
    made.wrong += [f"the catalog names job {job}, which is gone" for job in sorted(strangers)]
    for job, version in sorted(readable - found.versions.keys()):
        made.wrong.append(f"the catalog lacks version {version} of {job}")
    for key in sorted(key for key in found.versions.keys() - heads if key[0] in jobs):
        if key in in_trash:
            made.wrong.append(f"the catalog names version {key[1]} of {key[0]}, which is gone")
        else:
            made.lost[key] = found.versions[key]


def _is_readable(versions: Versions, job: JobId, version: Version) -> bool:
    try:
        versions.head(job, version)
    except CkptfsError:
        return False
    return True


def rebuild(
    store: Path,
    records: Sequence[JobRecord],
    versions: Versions,
    lost: Iterable[VersionRow] = (),
) -> None:
    """Put the catalog aside and make a new one.  Raises StoreFull, Degraded.

    *lost*: rows of versions whose heads are lost; they are still remembered.  The new one says of
    itself that the journal was lost, so the next service ends what was cut off as if it had found
    none.
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
            catalog_jobs.save_versions(db, _heads(versions, record.id))
        catalog_jobs.save_rows(db, lost)
    finally:
        db.close()


def _heads(versions: Versions, job: JobId) -> Iterator[Head]:
    for version in versions.versions(job):
        if _is_readable(versions, job, version):
            yield versions.head(job, version)
