"""What a fresh daemon does before it serves: read the jobs, find their units, end what was cut off.

The records and the store's heads say what there is; the journal says what was
under way; the supervisors, which outlive the daemon, say what still runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from ..catalog import operations
from ..catalog.operations import OpenOperation
from ..errors import CkptfsError
from ..ids import JobId, UnitName
from ..jobs.lifecycle import ENDED
from ..model import JobState
from ..node.api import Exit, UnitPort
from .adopting import adopt_jobs, job_of
from .api import Job, Outcome
from .lost_heads import find_lost
from .parts import Parts
from .registry import Incarnation
from .supervision import Supervision

log = logging.getLogger(__name__)
Found = Mapping[UnitName, UnitPort | Exit | None]
CUT_OFF_SAVE = "the service ended while it was being saved; take it again"
CUT_OFF_REBUILD = "the service ended while it was being rebuilt; try again"
CUT_OFF_START = "the service ended while it was being started; submit it again"


async def recover(parts: Parts, supervision: Supervision) -> None:
    """Bring the registry to what is true.  A trouble goes to ``ctl/health``; the rest goes on."""
    parts.availability.update(await parts.node.probe())
    records, troubles = parts.directory.load()
    parts.troubles.extend(troubles)
    for record in records:
        parts.registry.add(job_of(record, parts))
        parts.registry.incarnations[record.id].started_ns = record.started_ns
    await adopt_jobs(parts)
    open_operations = _load_open(parts)
    for job in list(parts.registry.jobs.values()):
        try:
            await _recover_job(parts, supervision, job, open_operations.get(job.id))
        except CkptfsError as error:
            log.error("%s could not be recovered: %s", job.id, error)
            parts.troubles.append(f"{job.id}: {error}")
    find_lost(parts)


def _load_open(parts: Parts) -> dict[JobId, OpenOperation]:
    """Return what was under way, one per job (the job lock), but of lost jobs."""
    return {
        operation.job: operation
        for operation in operations.load_open(parts.db)
        if operation.job in parts.registry.jobs
    }


async def _recover_job(
    parts: Parts, supervision: Supervision, job: Job, operation: OpenOperation | None
) -> None:
    at_rest = job.state in ENDED or job.state is JobState.SUSPENDED
    if at_rest and operation is None and not parts.db.was_rebuilt:
        return
    found = {unit: await _attach(parts, job, unit) for unit in sorted(job.units)}
    reason = ""
    if operation is not None and operation.kind == "restart":
        reason = await _finish_restart(parts, job, operation, found)
    elif at_rest:
        await _kill(found)  # half-built, and the journal that knew is gone
    else:
        reason = _finish_checkpoint(parts, job, operation)
        suspending = operation is not None and operation.phase == "ending" and not reason
        _take_up(parts, job, found, suspended=suspending)
    if operation is not None:
        operations.end(parts.db, operation.id, reason, parts.clock_ns())
    if job.state is JobState.RUNNING:
        supervision.settle(job)
        supervision.watch_limit(job)
    parts.registry.save_later_if_full(job)


async def _attach(parts: Parts, job: Job, unit: UnitName) -> UnitPort | Exit | None:
    with trio.move_on_after(parts.deadlines.kill_s):
        return await parts.node.attach(job.id, unit)
    sentence = f"the supervisor of {job.id} {unit} does not answer; it was given up"
    parts.troubles.append(sentence)
    log.error("%s", sentence)
    return None


def _finish_checkpoint(parts: Parts, job: Job, operation: OpenOperation | None) -> str:
    """Say how a version in work ended; the store has already forgotten what was not committed."""
    if operation is None:
        return ""
    if operation.version in job.versions:
        job.checkpoint = Outcome(operation.version, "complete")
        return ""
    job.checkpoint = Outcome(operation.version, "failed", CUT_OFF_SAVE)
    job.events["aborted"] += 1
    parts.registry.note_error(job, operation.kind, CUT_OFF_SAVE)
    return CUT_OFF_SAVE


def _take_up(parts: Parts, job: Job, found: Found, *, suspended: bool) -> None:
    """Go on with units that run; ended and lost ones are settled by the supervision."""
    ports = {unit: port for unit, port in found.items() if port and not isinstance(port, Exit)}
    if suspended and not ports:
        job.state = JobState.SUSPENDED
        job.events["suspended"] += 1
        return
    if job.state is JobState.PENDING and not any(found.values()):
        job.state, job.reason = JobState.FAILED, CUT_OFF_START
        return
    _enter_incarnation(parts, job, ports)
    incarnation = parts.registry.incarnations[job.id]
    for unit, what in found.items():
        if unit not in ports:
            incarnation.exits[unit] = what if isinstance(what, Exit) else None
    job.state = JobState.RUNNING


async def _finish_restart(parts: Parts, job: Job, operation: OpenOperation, found: Found) -> str:
    """A restart that had passed its barrier is carried on; any other is undone."""
    ports = {unit: port for unit, port in found.items() if port and not isinstance(port, Exit)}
    if operation.phase in ("resuming", "running") and len(ports) == len(found):
        try:
            for port in ports.values():
                with trio.fail_after(parts.deadlines.resume_s):
                    await port.resume_rst()
        except (CkptfsError, trio.TooSlowError) as error:
            log.error("%s: the restart cannot be carried on: %r", job.id, error)
        else:
            _enter_incarnation(parts, job, ports)
            job.state, job.reason, job.exit = JobState.RUNNING, "", None
            job.restart = Outcome(operation.version, "running")
            return ""
    await _kill(found)
    for unit in found:
        parts.node.forget(job.id, unit)
    job.restart = Outcome(operation.version, "failed", CUT_OFF_REBUILD)
    parts.registry.note_error(job, operation.kind, CUT_OFF_REBUILD)
    return CUT_OFF_REBUILD


def _enter_incarnation(parts: Parts, job: Job, ports: Mapping[UnitName, UnitPort]) -> None:
    started_ns = parts.registry.incarnations[job.id].started_ns
    incarnation = Incarnation(frozenset(job.units), dict(ports), started_ns=started_ns)
    parts.registry.incarnations[job.id] = incarnation
    for unit, port in ports.items():
        status = job.units[unit]
        status.pid, status.state = port.pid, "running"


async def _kill(found: Found) -> None:
    for unit, port in found.items():
        if port is None or isinstance(port, Exit):
            continue
        try:
            with trio.fail_after(15.0):
                await port.kill()
        except (CkptfsError, trio.TooSlowError) as error:
            log.error("%s of %s cannot be killed: %r", unit, port.job, error)
