"""When two incarnations of one image may run beside each other.  Pure.

A restart, in place or as a clone, opens the very files that the image had open
for writing, but for the default logs: of those a clone has its own.  Two
processes writing one file would tear the promise that output files hold each
line exactly once, so: a restart beside a running relative is legal only when
the version has no other file open for writing.  When every relative is at rest,
a clone takes the files over: they are put back to the checkpoint like in a
restart in place (what was behind it is kept as ``<file>.after-<v>``), and the
clone goes on in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import Busy, CkptfsError
from ..ids import JobId
from ..model import JobState, UnitFacts
from .api import Job

AT_REST = frozenset({JobState.DONE, JobState.FAILED, JobState.SUSPENDED})


def family_root(jobs: Mapping[JobId, Job], job: Job) -> JobId:
    """Return the job that *job* descends from by cloning; itself when it is no clone."""
    seen = {job.id}
    while job.clone_of and job.clone_of not in seen:
        seen.add(job.clone_of)
        parent = jobs.get(job.clone_of)
        if parent is None:
            return job.clone_of
        job = parent
    return job.id


def running_relatives(jobs: Mapping[JobId, Job], job: Job) -> list[JobId]:
    """Return the jobs of the family of *job*, itself included, whose processes may run."""
    root = family_root(jobs, job)
    return sorted(
        entry.id
        for entry in jobs.values()
        if entry.state not in AT_REST and family_root(jobs, entry) == root
    )


def shared_files_refusal(
    running: Sequence[JobId], facts: Iterable[UnitFacts], logs: Path
) -> CkptfsError | None:
    """Return why an image cannot be rebuilt beside *running* (Busy: legal later), or None.

    *logs*: the directory of default logs, where the image does not say it.
    """
    named = {(Path(unit.logs or logs), file.path) for unit in facts for file in unit.files}
    files = sorted(path for directory, path in named if Path(path).parent != directory)
    if not running or not files:
        return None
    return Busy(f"{running[0]} runs and writes {files[0]}, as this version does: kill it first")
