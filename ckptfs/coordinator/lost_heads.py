"""Versions whose heads vanished while no service looked: the catalog remembers them.

The heads are the truth and the catalog is an index of them, so neither alone can tell a version
that was removed from one that a check of the file system, or somebody's hand, took away.  Both
together can: who removes a version moves its head to the trash, then strikes its row, and the
collector drops only heads whose rows are struck.  So a row without a head and without an entry in
the trash is a lost head: nothing is collected until it is back, volumes are asked for it, and it
is said.  Rows that could not be struck or written, as on a full disk, are put right here, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import trio

from ..catalog import jobs as catalog_jobs
from ..errors import CkptfsError, Corrupt
from ..ids import JobId, Version
from ..model import Head
from .parts import Parts

log = logging.getLogger(__name__)
NAMED_MAX = 20  # versions that one sentence names
AT_ONCE = 200  # rows; of 10 000 versions the heads would be read for 4 s before anything is served
WHAT_TO_DO = (
    "nothing is collected until a volume that holds {it} answers, or until "
    "`ckptfs repair --discard` gives {it} up"
)


def find_lost(parts: Parts) -> None:
    """Hold the catalog against the heads and the trash; call once, when every job is known.

    Trouble with the catalog goes to ``ctl/health``: then nothing is known to be lost.
    """
    try:
        rows = catalog_jobs.versions(parts.db)
        heads = {(job, v) for job in parts.registry.jobs for v in parts.store.versions(job)}
        # of a job that is gone, or put away, a row says nothing
        gone = {key for key in rows - heads if key[0] in parts.registry.jobs}
        removed = {key for key in gone if key in _trashed(parts, key[0])}
        parts.copies.expect(gone - removed)
        parts.registry.stale_rows |= gone - set(parts.copies.lost())
        strike_rows(parts)
        for job in parts.registry.jobs.keys() - catalog_jobs.names(parts.db):
            parts.registry.index(parts.registry.jobs[job])
        missing = sorted(heads - rows)
        parts.registry.missing_rows = missing[AT_ONCE:]
        catalog_jobs.save_versions(parts.db, _readable(parts, missing[:AT_ONCE]))
        _settle(parts)
    except (CkptfsError, OSError) as error:
        log.error("the catalog cannot be held against the heads: %s", error)
        parts.troubles.append(f"the catalog cannot be held against the heads: {error}")
    for job, version in parts.copies.lost():
        log.error("the head of version %d of %s is missing", version, job)
        sentence = f"version {version} cannot be seen: {lost_sentence([(job, version)])}"
        parts.registry.note_error(parts.registry.jobs[job], "versions", sentence)


def _settle(parts: Parts) -> None:
    """Say that the catalog is whole, once no row is missing."""
    if parts.db.was_rebuilt and not parts.registry.missing_rows:
        parts.db.settle()
        log.info("the catalog was rebuilt: %d jobs", len(parts.registry.jobs))


async def write_rows(parts: Parts) -> None:
    """Write the rows that `find_lost` has left; call once all heads have been looked at.

    Until it is over a catalog that was lost stays unsettled, so after a crash it is begun anew.
    """
    missing = parts.registry.missing_rows
    try:
        while missing:
            found = [_row(parts, *key) for key in missing[:AT_ONCE]]
            catalog_jobs.save_rows(parts.db, [row for row in found if row])
            del missing[:AT_ONCE]
            await trio.lowlevel.checkpoint()
            if not missing:
                _settle(parts)
    except CkptfsError as error:
        log.error("the catalog is incomplete: %s", error)
        parts.troubles.append(f"the catalog is incomplete: {error}")


def _row(parts: Parts, job: JobId, version: Version) -> Sequence[str | int]:
    """Return a row out of what is known of a version; nothing where it is gone or unreadable."""
    record, account = parts.registry.jobs.get(job), parts.store.summaries.account(job, version)
    if record is None or account is None:
        return ()
    owner, figures = record.spec.owner.uid, (account.logical_bytes, account.stored_bytes)
    return (job, version, owner, account.committed_ns, str(account.purpose), *figures)


def _trashed(parts: Parts, job: JobId) -> set[tuple[JobId, Version]]:
    return {(job, version) for version, _ in parts.store.trashed(job)}


def _readable(parts: Parts, keys: Sequence[tuple[JobId, Version]]) -> Iterator[Head]:
    for job, version in keys:
        try:
            yield parts.store.head(job, version)
        except Corrupt as error:
            log.error("not in the catalog: %s", error)


def take_in(parts: Parts, before: Sequence[tuple[JobId, Version]]) -> list[tuple[JobId, Version]]:
    """Show versions that were lost *before* and have been fetched back; return them."""
    back = sorted(set(before) - set(parts.copies.lost()))
    for job_id, version in back:
        job = parts.registry.jobs.get(job_id)
        if job is None or version not in parts.store.versions(job_id):
            continue
        job.versions = sorted({*job.versions, version})
        log.info("the head of version %d of %s was fetched back from a volume", version, job_id)
        parts.registry.note_error(job, "versions", f"version {version} was lost, and is back")
        parts.registry.changed(job_id, version)
        parts.registry.changed(job_id)
    return back


def is_named(parts: Parts, job: JobId, version: Version) -> bool:
    """Whether the catalog may still name a version; in doubt it does."""
    try:
        return catalog_jobs.is_named(parts.db, job, version)
    except CkptfsError as error:
        log.error("it is not known whether the catalog names %s %d: %s", job, version, error)
        return True


def strike_later(parts: Parts, job: JobId, version: Version) -> None:
    """Remember a row of a removed version that could not be struck: see `strike_rows`."""
    parts.registry.stale_rows.add((job, version))


def strike_rows(parts: Parts) -> None:
    """Strike rows of removed versions that could not be struck before.  May be repeated."""
    stale = parts.registry.stale_rows
    gone = {key for key in stale if key[1] not in parts.store.versions(key[0])}
    if not gone:
        return
    try:
        catalog_jobs.remove_versions(parts.db, gone)
    except CkptfsError as error:
        log.error("%d removed versions stay in the catalog: %s", len(gone), error)
    else:
        stale.clear()


def lost_sentence(lost: Sequence[tuple[JobId, Version]]) -> str:
    """Return what ``ctl/health`` says of lost heads, nothing when there are none.  Pure."""
    if not lost:
        return ""
    named = " ".join(f"{job}/{version}" for job, version in lost[:NAMED_MAX])
    more = f" and {len(lost) - NAMED_MAX} more" if len(lost) > NAMED_MAX else ""
    if len(lost) == 1:
        job, version = lost[0]
        what = f"the head of version {version} of {job} is missing, and nobody removed it"
    else:
        what = f"{len(lost)} heads are missing, and nobody removed them: {named}{more}"
    return f"{what}; {WHAT_TO_DO.format(it='it' if len(lost) == 1 else 'them')}"
