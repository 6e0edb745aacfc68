"""The verbs that take no image: kill, signal, protocol, retention, pin, verify, remove."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import Busy, CkptfsError, NoSuchProcess, NotFound, OutOfRange, Unsupported
from ..ids import JobId, UnitName, Version
from ..jobs.lifecycle import refusal
from ..model import Caller, JobState, Protocol
from ..node.api import Process
from ..security import access
from .api import RETENTION_MAX, Job, SignalRequest
from .charging import Charging
from .parts import Parts
from .retention import apply_retention, bring_back, remove_version
from .side_by_side import side_by_side
from .supervision import Supervision

log = logging.getLogger(__name__)
SIGNAL_MAX = 64  # SIGRTMAX
RESTARTS = frozenset({"restart", "resume"})


class Control:
    """Carries the small verbs out."""

    def __init__(self, parts: Parts, supervision: Supervision, charging: Charging) -> None:
        self._parts, self._supervision, self._charging = parts, supervision, charging

    def kill(self, job_id: JobId, caller: Caller) -> None:
        """End the job; an operation under way ends with it.  The end is seen in its state."""
        job = self._allowed(job_id, caller, "kill")
        refused = refusal("kill", job_id, job.state)
        if refused:
            raise refused
        job.events["killed"] += 1
        log.info("%s: killed by uid %d", job_id, caller.uid)
        operation = self._parts.registry.operations.get(job_id)
        if operation is not None:
            operation.kill_wanted = True
            if operation.verb in RESTARTS:
                operation.scope.cancel()
        if self._parts.registry.incarnations[job_id].ports:
            self._supervision.kill_soon(job)
        elif operation is None and job.state is JobState.SUSPENDED:
            self._supervision.end_suspended(job)

    async def signal(self, job_id: JobId, caller: Caller, request: SignalRequest) -> None:
        """Send a signal to some or all processes of a running job.

        Raises OutOfRange (ERANGE), NoSuchProcess (ESRCH: a pid that is not the job's).
        """
        job = self._allowed(job_id, caller, "signal")
        if not 1 <= request.number <= SIGNAL_MAX:
            raise OutOfRange(f"a signal is 1 to {SIGNAL_MAX}, not {request.number}")
        refused = refusal("signal", job_id, job.state)
        if refused:
            raise refused
        found = await self.processes_by_unit(job)
        own = {process.pid for processes in found.values() for process in processes}
        strangers = sorted({*request.only, *request.others} - own)
        if strangers:
            raise NoSuchProcess(f"process {strangers[0]} is not one of {job_id}")
        ports = self._parts.registry.incarnations[job_id].ports
        if not ports:
            raise Unsupported(f"{job_id} has just ended")

        async def send(unit: UnitName) -> None:
            pids = {process.pid for process in found.get(unit, ())}
            only = tuple(sorted(pids.intersection(request.only)))
            others = tuple(sorted(pids.intersection(request.others)))
            if request.only and not only:
                return
            await ports[unit].signal(
                request.number, only=only, others=others, master=request.master
            )

        # "master" is the root process of the first unit alone
        chosen = sorted(ports)[:1] if request.master else tuple(ports)
        deadline_s = self._parts.deadlines.request_s
        await side_by_side(chosen, send, what="signal", deadline_s=deadline_s)
        job.events["signalled"] += 1
        self._parts.registry.changed(job_id)

    async def processes_by_unit(self, job: Job) -> dict[UnitName, tuple[Process, ...]]:
        """Return the processes of each unit; empty when the job does not run."""
        ports = self._parts.registry.incarnations[job.id].ports

        async def ask(unit: UnitName) -> tuple[Process, ...]:
            try:
                return tuple(await ports[unit].processes())
            except NoSuchProcess:
                return ()

        deadline_s = self._parts.deadlines.request_s
        return await side_by_side(tuple(ports), ask, what="processes", deadline_s=deadline_s)

    def set_protocol(self, job_id: JobId, caller: Caller, protocol: Protocol) -> None:
        """Choose the protocol of the versions to come.  Raises Busy while one is in work."""
        job = self._allowed(job_id, caller, "protocol")
        if protocol is job.protocol:
            return
        if job_id in self._parts.registry.operations:
            raise Busy(f"a version of {job_id} is in work: wait until it is over")
        if protocol is Protocol.INDEPENDENT:
            raise Unsupported("the independent protocol is not served yet")
        job.protocol = protocol
        self._save(job)

    def set_retention(self, job_id: JobId, caller: Caller, rule: str, number: int) -> None:
        """Choose which restartable versions are kept; what is too many goes at once.

        Raises QuotaExceeded when more is there than the space that is now provided.
        """
        job = self._allowed(job_id, caller, "retention")
        if not 0 <= number <= RETENTION_MAX[rule]:
            raise OutOfRange(f"{rule} is 0 to {RETENTION_MAX[rule]}, not {number}")
        former = getattr(job, rule)
        if number == former:
            return
        if rule == "keep_user_bytes":
            self._charging.require_keep(job, number)
        setattr(job, rule, number)
        try:
            self._save(job)
        except CkptfsError:
            setattr(job, rule, former)
            raise
        apply_retention(self._parts, job)

    def set_replication(
        self,
        job_id: JobId,
        caller: Caller,
        level: int,
        min_level: int | None,
        check: Callable[[int], None],
    ) -> None:
        """Want copies in *level* failure domains; *check* refuses what cannot be.

        *min_level*: of them before a checkpoint is called complete; None: as it is, if that is
        possible.  Raises OutOfRange; QuotaExceeded when the owner would be charged more than they
        may.
        """
        job = self._allowed(job_id, caller, "replication")
        check(level)
        self._charging.require_copies(job, level)
        if min_level is not None and not 1 <= min_level <= level:
            raise OutOfRange(f"min is 1 to {level}, the copies wanted, not {min_level}")
        former = job.replication, job.min_level, job.reached
        job.replication, job.min_level = level, min_level or min(job.min_level, level)
        if job.min_level > former[1]:
            job.reached = 0  # of the lower level
        try:
            self._save(job)
        except CkptfsError:
            job.replication, job.min_level, job.reached = former
            raise

    def pin(self, job_id: JobId, version: Version, caller: Caller, on: bool) -> None:
        """Keep a version from being removed, or let it go again."""
        self._version(job_id, version, caller, "pin")
        if self._parts.store.pinned(job_id, version) != on:
            self._parts.store.pin(job_id, version, on)
            self._parts.registry.changed(job_id, version)

    def verify(self, job_id: JobId, version: Version, caller: Caller) -> None:
        """Read and hash a whole version in the background.  Raises Busy while one does."""
        self._version(job_id, version, caller, "verify")
        if self._parts.store.verify_progress(job_id, version) is not None:
            raise Busy(f"version {version} of {job_id} is being verified already")
        self._parts.background.spawn(
            f"verify {job_id} {version}", lambda: self._verify(job_id, version)
        )

    def remove_version(self, job_id: JobId, version: Version, caller: Caller) -> None:
        """Remove a version.  Raises Busy when pinned, open, or a restart needs it."""
        job = self._version(job_id, version, caller, "remove")
        operation = self._parts.registry.operations.get(job_id)
        if operation is not None and operation.version == version:
            raise Busy(f"version {version} of {job_id} is in use by a {operation.verb}")
        if (job_id, version) in self._parts.registry.loading.values():
            raise Busy(f"version {version} of {job_id} is in use: memory is still loaded from it")
        if self._parts.store.pinned(job_id, version):
            raise Busy(f"version {version} of {job_id} is pinned")
        remove_version(self._parts, job, version)

    def undelete(self, job_id: JobId, version: Version, caller: Caller) -> None:
        """Bring a removed version back, pinned.

        Raises NotFound, Corrupt, StoreFull, QuotaExceeded, Degraded.
        """
        job = self._allowed(job_id, caller, "undelete")
        self._charging.require_back(job, (version,))
        bring_back(self._parts, job, version)

    async def _verify(self, job_id: JobId, version: Version) -> None:
        registry = self._parts.registry
        try:
            damage = await self._parts.store.verify(job_id, version)
        except CkptfsError as error:
            job = registry.jobs.get(job_id)
            if job is not None:
                registry.note_error(job, "verify", str(error))
        else:
            log.info("%s %d verified, %d damaged places", job_id, version, len(damage))
        registry.changed(job_id, version)
        registry.changed(job_id)

    def _allowed(self, job_id: JobId, caller: Caller, verb: str) -> Job:
        job = self._parts.registry.get(job_id)
        access.require(caller, job.spec.owner, verb, job_id)
        return job

    def _version(self, job_id: JobId, version: Version, caller: Caller, verb: str) -> Job:
        job = self._allowed(job_id, caller, verb)
        if version not in job.versions:
            raise NotFound(f"{job_id} has no version {version}")
        return job

    def _save(self, job: Job) -> None:
        self._parts.registry.save(job)
        self._parts.registry.changed(job.id)
