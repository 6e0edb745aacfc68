"""Which versions a job's ``keep_last`` lets go, and letting them go (storage.md 6)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from ..catalog import jobs as catalog_jobs
from ..errors import CkptfsError
from ..ids import Version
from .api import Job
from .parts import Parts

log = logging.getLogger(__name__)


def superseded(
    versions: Sequence[Version],
    keep_last: int,
    *,
    damaged: Collection[Version],
    pinned: Collection[Version],
    used: Collection[Version],
) -> list[Version]:
    """Return what may go, oldest first.  Pure.

    Counted over restartable versions only: a damaged one neither counts nor is
    removed here (it is evidence, and its owner's to remove).  Pinned ones and
    ones in use stay, and the newest restartable one always.
    """
    restartable = [version for version in sorted(versions) if version not in damaged]
    if keep_last <= 0:
        return []
    candidates = restartable[:-keep_last]
    return [version for version in candidates if version not in pinned and version not in used]


def apply_retention(parts: Parts, job: Job) -> None:
    """Remove what is superseded.  Trouble is logged: a version too many harms nobody."""
    store, registry = parts.store, parts.registry
    operation = registry.operations.get(job.id)
    used = {operation.version} if operation and operation.version else set[Version]()
    going = superseded(
        job.versions,
        job.keep_last,
        damaged={version for version in job.versions if store.damage(job.id, version)},
        pinned={version for version in job.versions if store.pinned(job.id, version)},
        used={version for version in used if version},
    )
    for version in going:
        try:
            remove_version(parts, job, version)
        except CkptfsError as error:
            log.info("%s: version %d stays: %s", job.id, version, error)


def remove_version(parts: Parts, job: Job, version: Version) -> None:
    """Take one version out of store, catalog and view.  Raises Busy (pinned, open), Degraded."""
    parts.store.remove(job.id, version)
    job.versions.remove(version)
    parts.registry.changed(job.id, version)
    try:
        catalog_jobs.remove_version(parts.db, job.id, version)
    except CkptfsError as error:  # an index entry; the store is the truth
        log.error("%s %d stays in the catalog: %s", job.id, version, error)
