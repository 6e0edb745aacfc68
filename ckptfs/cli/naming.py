"""From what a user types to the one job that is meant."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import CkptfsError, InvalidInput, NotFound
from ..ids import JobId, job_number, parse_job_id
from .client import Mount

LISTED_MAX = 8  # jobs named in a refusal


def is_job_id(text: str) -> bool:
    """Return whether *text* has the form of a job's directory."""
    try:
        parse_job_id(text)
    except CkptfsError:
        return False
    return True


def match_job(text: str, jobs: Sequence[tuple[JobId, bool]]) -> JobId:
    """Return the job that *text* (an id, a name or a number) means.  Pure.

    *jobs* are the ids and whether the caller owns them; one of his own wins
    over those of others.  Raises NotFound, and InvalidInput when it is not clear.
    """
    found = [(job, own) for job, own in jobs if text in (job, *_short_names(job))]
    exact = [job for job, _ in found if job == text]
    own = [job for job, is_own in found if is_own]
    for choice in (exact, [job for job, _ in found], own):
        if len(choice) == 1:
            return choice[0]
    if not found:
        raise NotFound(f"no job is called {text!r}; ckptfs ls lists them")
    names = sorted((job for job, _ in found), key=job_number)
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    raise InvalidInput(f"{text!r} may mean {', '.join(names[:LISTED_MAX])}{more}: give the id")


def _short_names(job: JobId) -> tuple[str, str]:
    """Return the name and the number of a job."""
    name, _, number = job.rpartition(".")
    return name, number


def list_jobs(mount: Mount) -> list[JobId]:
    """Return the jobs that the mount shows to this user, oldest first."""
    names = (JobId(entry.name) for entry in mount.entries() if is_job_id(entry.name))
    return sorted(names, key=job_number)


def is_own(mount: Mount, job: JobId, uid: int | None = None) -> bool:
    """Return whether this user (or *uid*) owns the job."""
    try:
        owner = mount.status(job).st_uid
    except NotFound:
        return False  # removed since it was listed
    return owner == (os.geteuid() if uid is None else uid)


def find_job(mount: Mount, text: str) -> JobId:
    """Return the job of this mount that *text* means: the id, the unique name, or the number."""
    if is_job_id(text):
        try:
            mount.status(text)
        except NotFound:
            pass  # perhaps a name with a dot in it
        else:
            return JobId(text)  # also when the service hides others' jobs
    return match_job(text, [(job, is_own(mount, job)) for job in list_jobs(mount)])
