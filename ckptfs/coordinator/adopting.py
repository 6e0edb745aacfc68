"""Jobs out of their records, also of jobs whose record is gone but whose versions are there.

A version carries the record that its job had (``job.cpx``), so in a store that was
recovered, say, the job comes back with its command, its policy and its counters.
Versions of before this was so make a job that knows its owner alone; those restart as
well.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import trio

from ..errors import CkptfsError, Exists
from ..ids import JobId, unit_name
from ..jobs.record import JobRecord
from ..model import Head, JobSpec, JobState
from ..node.api import Exit
from .api import Job, Outcome, UnitStatus
from .cpx import JOB_DOCUMENT, JOB_DOCUMENT_MAX, parse_record_of
from .machine import SERVICE
from .parts import Parts, default_translib

log = logging.getLogger(__name__)
RECORD_LOST = "its record is lost; its versions can still be restarted"
ADOPTED = "its record was lost; it is as it was at version {}"


def job_of(record: JobRecord, parts: Parts) -> Job:
    """Return the job in memory that *record* and the store's versions make."""
    versions = list(parts.store.versions(record.id))
    job = Job(
        id=record.id,
        spec=record.spec,
        created_ns=record.created_ns,
        state=record.state,
        reason=record.reason,
        protocol=record.protocol,
        keep_last=record.keep_last,
        keep_within_s=record.keep_within_s,
        keep_every_s=record.keep_every_s,
        keep_user_bytes=record.keep_user_bytes,
        replication=record.replication,
        min_level=record.min_level,
        reached=record.reached,
        highest_version=max([record.highest_version, *versions]),
        versions=versions,
        stdout=record.stdout,
        stderr=record.stderr,
        clone_of=record.clone_of,
        logs_shown_as=record.logs_shown_as,
        changed_ns=record.created_ns,
    )
    job.events |= {name: record.events.get(name, 0) for name in job.events}
    job.stat |= {name: record.stat.get(name, 0) for name in job.stat}
    if record.exit_code is not None:
        job.exit = Exit(record.exit_code, record.exit_signal)
    translib = default_translib(parts)
    job.units = {
        unit: UnitStatus(node, 0, translib, "ended") for unit, node in record.units.items()
    }
    if versions:
        job.checkpoint = Outcome(versions[-1], "complete")
    return job


async def adopt_jobs(parts: Parts) -> None:
    """Take in every job that has versions and no record.  What cannot be goes to ``ctl/health``."""
    for job_id in parts.store.jobs():
        versions = list(parts.store.versions(job_id))
        if job_id in parts.registry.jobs or not versions:
            continue
        try:
            head = parts.store.head(job_id, versions[-1])
        except CkptfsError as error:
            parts.troubles.append(f"{job_id}: {error}")
            continue
        record = None
        try:
            record = await _saved_record(parts, head)
        except CkptfsError as error:  # a damaged document hides no version
            parts.troubles.append(f"{job_id}: {error}")
        if record is None:
            parts.registry.add(_bare_job(parts, head))
            parts.troubles.append(f"{job_id}: {RECORD_LOST}")
        else:
            _adopt(parts, record, head)


async def _saved_record(parts: Parts, head: Head) -> JobRecord | None:
    """Return the record in the version, every byte verified; None when it holds none."""
    if not any((file.unit, file.name) == (SERVICE, JOB_DOCUMENT) for file in head.files):
        return None
    with trio.move_on_after(parts.deadlines.request_s):
        reader = parts.store.open(head.job, head.version, SERVICE, JOB_DOCUMENT)
        try:
            if reader.size_bytes > JOB_DOCUMENT_MAX:
                return None
            document = bytes(await reader.read(0, reader.size_bytes))
        finally:
            reader.close()
        record = parse_record_of(document, head.job, head.version)
        # The head is signed, and says whose the version is.
        return record if record and record.spec.owner.uid == head.owner.uid else None
    return None


def _adopt(parts: Parts, record: JobRecord, head: Head) -> None:
    unit = unit_name(1)
    logs = parts.directory.log_directory(record.id)
    job = job_of(
        replace(
            record,
            spec=replace(record.spec, owner=head.owner),
            exit_code=None,
            exit_signal=0,
            units=dict.fromkeys(record.units, parts.node.name),
            stdout=record.spec.stdout or str(logs / f"{unit}.out"),
            stderr=record.spec.stderr or str(logs / f"{unit}.err"),
        ),
        parts,
    )
    parts.registry.add(job)
    try:
        parts.registry.adopt(job)
    except Exists:
        pass  # one that cannot be read, of which health tells; the next save replaces it
    except CkptfsError as error:
        log.error("%s could not be made durable: %s", job.id, error)
    parts.troubles.append(f"{job.id}: {ADOPTED.format(head.version)}")


def _bare_job(parts: Parts, head: Head) -> Job:
    """Return a job that knows its owner and its versions alone."""
    job_id, unit = JobId(head.job), unit_name(1)
    versions = list(parts.store.versions(job_id))
    logs = parts.directory.log_directory(job_id)
    return Job(
        id=job_id,
        spec=JobSpec(job_id.rpartition(".")[0], ("lost",), "/", {}, head.owner),
        created_ns=parts.clock_ns(),
        state=JobState.FAILED,
        reason=RECORD_LOST,
        versions=versions,
        highest_version=versions[-1],
        stdout=str(logs / f"{unit}.out"),
        stderr=str(logs / f"{unit}.err"),
        units={unit: UnitStatus(parts.node.name, 0, default_translib(parts), "ended")},
    )
