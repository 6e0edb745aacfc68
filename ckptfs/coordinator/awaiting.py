"""A checkpoint that is complete only when its version is whole in enough failure domains.

The version is committed and the job runs on by then; what waits is the word ``complete``
(`min_level` of the job).  It never stands in the way of the job, of another checkpoint, or of the
copying itself, so no lock is held.  A suspension is the exception: it ends the units, which until
then are the better half of what there is, so it waits for the copies before (`saving`).
"""

from __future__ import annotations

import logging

import trio

from .api import Job, Outcome
from .parts import Parts

log = logging.getLogger(__name__)
LOOK_S = 0.5
COPYING = "copying"
WORKING = frozenset({"up", "stale"})  # states of a volume that explain nothing


def has_enough(parts: Parts, job: Job, outcome: Outcome) -> bool:
    """Whether a version has as many copies as its checkpoint waits for."""
    return job.min_level <= 1 or parts.copies.count(job.id, outcome.version) >= job.min_level


def note_reached(parts: Parts, job: Job) -> None:
    """Remember, durably, the newest version that has as many copies as the job waits for.

    So ``latest`` does not go back to an older one while a volume is away.
    """
    for version in reversed(job.versions) if job.min_level > 1 else ():
        if version <= job.reached:
            return
        if parts.copies.count(job.id, version) >= job.min_level:
            job.reached = version
            parts.registry.save_later_if_full(job)
            parts.registry.changed(job.id)
            return


async def await_copies(parts: Parts, job: Job, outcome: Outcome) -> None:
    """Have *outcome* end as complete once there are copies enough, or else as failed.

    Nothing more is said of one that another request came after, or whose version was removed.
    """
    seconds = parts.deadlines.copying(outcome.total_bytes)
    await wait_for_copies(parts, job, outcome, seconds)
    if not is_meant(job, outcome):
        return
    if has_enough(parts, job, outcome):
        outcome.word, outcome.reason = "complete", ""
        job.events["complete"] += 1
        note_reached(parts, job)
    else:
        give_up(parts, job, outcome, sentence(parts, job, outcome, seconds))
    parts.registry.changed(job.id)


async def wait_for_copies(parts: Parts, job: Job, outcome: Outcome, seconds: float) -> None:
    """Return when there are copies enough, or when waiting has no end or no sense."""
    with trio.move_on_after(seconds):
        while is_meant(job, outcome) and not has_enough(parts, job, outcome):
            count = parts.copies.count(job.id, outcome.version)
            if (reason := f"{count}/{job.min_level}") != outcome.reason:
                outcome.reason = reason
                parts.registry.changed(job.id)
            operation = parts.registry.operations.get(job.id)
            if operation is not None and operation.kill_wanted:
                return
            await trio.sleep(LOOK_S)


def give_up(parts: Parts, job: Job, outcome: Outcome, reason: str) -> None:
    """Say that copies are missing; the version stays."""
    outcome.word, outcome.reason = "failed", reason
    job.events["failed"] += 1
    parts.registry.note_error(job, "checkpoint", reason)
    log.warning("%s: %s", job.id, reason)


def is_meant(job: Job, outcome: Outcome) -> bool:
    """Whether *outcome* is still the latest, and its version there.  Pure."""
    return job.checkpoint is outcome and outcome.version in job.versions and not job.removed


def sentence(parts: Parts, job: Job, outcome: Outcome, seconds: float) -> str:
    """Return what is missing, what there is, and what stands in the way."""
    count = parts.copies.count(job.id, outcome.version)
    domains = f"{count} failure domain{'s' * (count != 1)}"
    away = [f"volume {row.name} is {row.state}" for row in parts.copies.rows()]
    reasons = [text for text in away if text.rpartition(" ")[2] not in WORKING]
    why = f": {', '.join(reasons)}" if reasons else ""
    return (
        f"version {outcome.version} is kept and can be restarted, but after {seconds:.0f} s it is "
        f"whole in {domains}, not in the {job.min_level} of min_level{why}"
    )
