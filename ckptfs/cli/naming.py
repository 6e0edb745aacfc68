"""From what a user types to the one job that is meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from ..errors import CkptfsError, InvalidInput, NotFound
from ..ids import JobId, job_number, parse_job_id
from .client import Mount
from .outcomes import parse_state

LISTED_MAX = 8  # jobs named in a refusal
Preference = Callable[[JobId], bool]


def is_job_id(text: str) -> bool:
    """Return whether *text* has the form of a job's directory."""
    try:
        parse_job_id(text)
    except CkptfsError:
        return False
    return True


def match_job(text: str, jobs: Sequence[JobId], preferences: Sequence[Preference]) -> JobId:
    """Return the job that *text* (an id, a name or a number) means.  Pure.

    Where several do, those that a preference speaks for go before the others,
    and the first preference before the second; none is asked without need.
    Raises NotFound, and InvalidInput when it is not clear.
    """
    found = [job for job in jobs if text in (job, *_short_names(job))]
    if not found:
        raise NotFound(f"no job is called {text!r}; ckptfs ls lists them")
    for speaks_for in (text.__eq__, *preferences):
        if len(found) > 1:
            found = [job for job in found if speaks_for(job)] or found
    if len(found) == 1:
        return found[0]
    names = sorted(found, key=job_number)
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


def is_alive(mount: Mount, job: JobId) -> bool:
    """Return whether the job has not ended, as far as this user may know."""
    try:
        return not parse_state(mount.read(f"{job}/ctl/state")).has_ended
    except CkptfsError:
        return False


def find_job(mount: Mount, text: str) -> JobId:
    """Return the job of this mount that *text* means: the id, the name, or the number.

    Of jobs with the same name one's own come before others', those that have
    not ended before those that have.
    """
    if is_job_id(text):
        try:
            mount.status(text)
        except NotFound:
            pass  # perhaps a name with a dot in it
        else:
            return JobId(text)  # also when the service hides others' jobs
    preferences = (partial(is_own, mount), partial(is_alive, mount))
    return match_job(text, list_jobs(mount), preferences)
