"""What can be said of a committed version."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ..ids import JobId, Version
from ..store.api import Store
from ..store.copies_api import CopiesPort
from .api import Job

NAMED_MAX = 20  # versions that one sentence names
RESTARTABLE = "restartable"


def newest(store: Store, job: Job) -> Version | None:
    """Return the newest version of *job* with no known damage."""
    return next(
        (version for version in reversed(job.versions) if not store.damage(job.id, version)), None
    )


def latest(store: Store, copies: CopiesPort, job: Job) -> Version | None:
    """Return the newest undamaged version with as many copies as `min_level` asks for.

    A version that once had them stays the latest when a volume goes away, or when the service
    has not yet looked at its volumes.  Where none ever had them it is the newest undamaged one.
    """
    if job.min_level > 1:
        for version in reversed(job.versions):
            enough = version == job.reached or copies.count(job.id, version) >= job.min_level
            if enough and not store.damage(job.id, version):
                return version
    return newest(store, job)


def damaged(store: Store, jobs: Iterable[Job]) -> list[tuple[JobId, Version]]:
    """Return every version with known damage, by job."""
    return sorted(
        (job.id, version)
        for job in jobs
        for version in job.versions
        if store.damage(job.id, version)
    )


def damage_sentence(found: Sequence[tuple[JobId, Version]]) -> str:
    """Return what ``ctl/health`` says of damaged versions, and what to do about them."""
    named = " ".join(f"{job}/{version}" for job, version in found[:NAMED_MAX])
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return (
        f"{len(found)} version{'s are' if len(found) > 1 else ' is'} damaged: {named}{more}; "
        "checkpoint the jobs that run anew, then remove the damaged versions"
    )


def state_text(store: Store, job: JobId, version: Version) -> str:
    """Return ``restartable`` or ``damaged (JobUnit_1/pages-1.img, block 17)``."""
    damage = store.damage(job, version)
    return f"damaged ({damage[0]})" if damage else RESTARTABLE


def verify_text(store: Store, job: JobId, version: Version) -> str:
    """Return ``never``, ``ok <UTC time>``, ``running 40%`` or ``damaged (file)``."""
    progress = store.verify_progress(job, version)
    if progress is not None:
        return f"running {int(progress * 100)}%"
    damage = store.damage(job, version)
    if damage:
        return f"damaged ({damage[0]})"
    verified_ns = store.verified_ns(job, version)
    if not verified_ns:
        return "never"
    return time.strftime("ok %Y-%m-%dT%H:%M:%SZ", time.gmtime(verified_ns / 1e9))
