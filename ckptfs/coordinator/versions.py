"""What can be said of a committed version."""

from __future__ import annotations

import time

from ..ids import JobId, Version
from ..store.api import Store
from .api import Job


def latest(store: Store, job: Job) -> Version | None:
    """Return the newest version of *job* with no known damage."""
    return next(
        (version for version in reversed(job.versions) if not store.damage(job.id, version)), None
    )


def state_text(store: Store, job: JobId, version: Version) -> str:
    """Return ``restartable`` or ``damaged (JobUnit_1/pages-1.img, block 17)``."""
    damage = store.damage(job, version)
    return f"damaged ({damage[0]})" if damage else "restartable"


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
