"""Removing a job, and bringing one back.

While versions of a removed job lie in the trash, its record and its logs are put away beside them,
so that all of it can be brought back together.  Putting away is one rename: it works on a full
disk.  When the last version has left the trash the rest goes, too.
"""

from __future__ import annotations

import logging

from ..errors import Busy, CkptfsError, Corrupt, NotEmpty, NotFound, TryAgain
from ..ids import JobId
from ..jobs.lifecycle import refusal
from ..jobs.record import JobRecord
from ..model import Caller
from ..security import access
from .adopting import job_of
from .api import Job, RemovedJob
from .charging import Charging
from .parts import Parts
from .retention import bring_back

log = logging.getLogger(__name__)


class Removal:
    """The verbs remove and undelete, of jobs.  Trio thread only."""

    def __init__(self, parts: Parts, charging: Charging) -> None:
        self._parts, self._charging = parts, charging
        self._records: dict[JobId, JobRecord] = {}  # put away

    def load(self) -> None:
        """Find the jobs that an earlier service has put away."""
        records, troubles = self._parts.directory.load_put_away()
        self._parts.troubles.extend(troubles)
        self._records = {record.id: record for record in records}

    def remove(self, job_id: JobId, caller: Caller) -> None:
        """Remove an ended job without versions, with its record and its default output files.

        Raises NotAuthorised, Busy (alive), NotEmpty (it has versions), StoreFull.
        """
        registry = self._parts.registry
        job = registry.get(job_id)
        access.require(caller, job.spec.owner, "remove", job_id)
        refused = refusal("remove", job_id, job.state)
        if refused:
            raise refused
        if job_id in registry.operations:
            raise Busy(f"{job_id} is in use")
        if job.versions:
            raise NotEmpty(f"{job_id} still has {len(job.versions)} versions")
        for unit in job.units:
            self._parts.node.forget(job_id, unit)
        if not self._put_away(job):
            self._destroy(job_id, job.logs_shown_as)
        registry.drop(job_id)
        registry.unindex(job_id)

    def _put_away(self, job: Job) -> bool:
        """Whether versions of *job* can still be brought back; in doubt they can."""
        try:
            if not self._parts.store.trashed(job.id):
                return False
        except CkptfsError as error:
            log.error("the trash cannot be listed: %s", error)
        record = self._parts.registry.record_of(job)
        self._parts.directory.put_away(job.id)
        self._records[job.id] = record
        return True

    def _destroy(self, job_id: JobId, shown_as: JobId | None) -> None:
        """Remove record and logs for good; logs that clones have mounted over stay in place."""
        registry, directory = self._parts.registry, self._parts.directory
        others = [entry.logs_shown_as for entry in registry.jobs.values() if entry.id != job_id]
        others += [entry.logs_shown_as for entry in self._records.values() if entry.id != job_id]
        directory.remove(job_id, keep_log_directory=job_id in others)
        is_there = shown_as in registry.jobs or shown_as in self._records
        if shown_as and shown_as not in others and not is_there:
            directory.remove_logs(shown_as)

    def purge(self) -> None:
        """Remove what is left of jobs whose versions have all left the trash.

        Raises Corrupt, Degraded when the trash cannot be listed: then nothing goes.
        """
        for job_id, record in list(self._records.items()):
            if not self._parts.store.trashed(job_id):
                del self._records[job_id]
                self._destroy(job_id, record.logs_shown_as)
                log.info("%s is gone for good", job_id)

    def rows(self) -> list[RemovedJob]:
        """Return the jobs that can be brought back.  Raises Corrupt, Degraded."""
        rows: list[RemovedJob] = []
        for job_id, record in sorted(self._records.items()):
            if trashed := self._parts.store.trashed(job_id):
                versions = tuple(version for version, _ in trashed)
                until_s = min(until_s for _, until_s in trashed)
                rows.append(RemovedJob(job_id, record.spec.owner.uid, versions, until_s))
        return rows

    def undelete(self, job_id: JobId, caller: Caller) -> None:
        """Bring a removed job back with every version that is in the trash, each pinned.

        A version that is not whole any more stays in the trash and is named in the job's
        ``ctl/error``.  Raises NotFound, NotAuthorised, QuotaExceeded, StoreFull, Degraded.
        """
        record = self._records.get(job_id)
        if record is None:
            raise NotFound(f"no removed job is called {job_id}, or it is gone for good")
        access.require(caller, record.spec.owner, "undelete", job_id)
        job = job_of(record, self._parts)
        versions = [version for version, _ in self._parts.store.trashed(job_id)]
        self._charging.require_back(job, versions)
        self._parts.directory.bring_back(job_id)
        del self._records[job_id]
        self._parts.registry.add(job)
        self._parts.registry.incarnations[job_id].started_ns = record.started_ns
        try:
            self._parts.registry.index(job)
        except CkptfsError as error:  # an index entry; the record is the truth
            log.error("%s is missing in the catalog: %s", job_id, error)
        self._parts.registry.changed(job_id)
        for version in versions:
            try:
                bring_back(self._parts, job, version)
            except (Corrupt, NotFound, TryAgain) as error:
                self._parts.registry.note_error(job, "undelete", str(error))
