"""The verb submit: a JSDL document becomes a running job."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable

import trio

from ..errors import CkptfsError, TimedOut, Unsupported
from ..ids import JobId, make_job_id, unit_name
from ..jobs.accounts import home_of, resolve_owner
from ..jobs.jsdl import Submission, parse_jsdl
from ..jobs.resources import Machine
from ..model import Caller, JobSpec, JobState, Owner
from ..translib.api import Capability
from .api import Job, UnitStatus
from .parts import Parts, default_translib
from .supervision import Supervision
from .user_space import UserSpace

log = logging.getLogger(__name__)


def this_machine(name: str) -> Machine:
    """Return what jobs can ask of this machine."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = frozenset({name, "localhost"})
    return Machine(names, platform.machine(), os.cpu_count() or 1, memory_bytes)


class Submissions:
    """Starts jobs."""

    def __init__(
        self,
        parts: Parts,
        supervision: Supervision,
        check_level: Callable[[int], None],
        user_space: UserSpace,
    ) -> None:
        self._parts, self._supervision = parts, supervision
        self._machine = this_machine(parts.node.name)
        self._check_level, self._user_space = check_level, user_space

    async def submit(self, caller: Caller, document: bytes) -> JobId:
        """Start the job in *document* and return its id once its program runs.

        Raises InvalidInput, TooBig, Unsupported, NotAuthorised, NotFound,
        NotAuthenticated, StoreFull, QuotaExceeded, TimedOut; no trace is left then but a number.
        """
        submission = parse_jsdl(document, self._machine)
        owner = resolve_owner(caller, submission.description.user, submission.group)
        self._check_requirements(submission)
        await self._user_space.check(submission.policy, owner)
        spec = make_spec(submission, owner, document)
        job = self._admit(spec)
        try:
            await self._start(job)
        except BaseException:
            self._parts.registry.withdraw(job.id)
            raise
        return job.id

    def _check_requirements(self, submission: Submission) -> None:
        """Refuse what no checkpointer here can do, before anything is started."""
        if submission.policy.replication > 1:
            self._check_level(submission.policy.replication)
        wanted = set(submission.policy.requires)
        able = [entry.capabilities for entry in self._parts.available().values() if entry.available]
        if wanted and not any(wanted <= have for have in able):
            have = frozenset[Capability]().union(*able)
            missing = min(wanted - have, default=min(wanted))
            raise Unsupported(f"no checkpointer here can do {missing}; see ctl/checkpointers")

    def _admit(self, spec: JobSpec) -> Job:
        """Give the job its number and make it durable, not yet started.  No await."""
        parts = self._parts
        job_id = make_job_id(spec.name, parts.directory.next_number(parts.store.jobs()))
        unit = unit_name(1)
        logs = parts.directory.log_directory(job_id)
        job = Job(
            id=job_id,
            spec=spec,
            created_ns=parts.clock_ns(),
            keep_last=spec.policy.keep_last,
            keep_within_s=spec.policy.keep_within_s,
            keep_every_s=spec.policy.keep_every_s,
            keep_user_bytes=spec.policy.keep_user_bytes,
            replication=spec.policy.replication,
            min_level=spec.policy.min_level,
            protocol=spec.policy.protocol,
            stdout=spec.stdout or str(logs / f"{unit}.out"),
            stderr=spec.stderr or str(logs / f"{unit}.err"),
        )
        job.units[unit] = UnitStatus(parts.node.name, 0, "", "starting")
        parts.registry.add(job)
        parts.registry.incarnations[job_id].units = frozenset(job.units)
        parts.registry.acquire(job_id, "start")
        try:
            parts.registry.create(job)
        except CkptfsError:
            parts.registry.drop(job_id)
            parts.registry.release(job_id)
            raise
        return job

    async def _start(self, job: Job) -> None:
        parts = self._parts
        incarnation = parts.registry.incarnations[job.id]
        for unit in job.units:
            with trio.move_on_after(parts.deadlines.request_s) as scope:
                incarnation.ports[unit] = await parts.node.start(job.id, unit, job.spec)
            if scope.cancelled_caught:
                raise TimedOut(f"{job.id} did not start within {parts.deadlines.request_s:g} s")
        # No await: started, durable and visible together.
        incarnation.started_ns = parts.clock_ns()
        for unit, port in incarnation.ports.items():
            status = job.units[unit]
            status.translib = default_translib(parts)
            if unit not in incarnation.exits:  # a short program may have ended by now
                status.pid, status.state = port.pid, "running"
        job.state = JobState.RUNNING
        parts.registry.save_later_if_full(job)
        parts.count("jobs_started")
        log.info("%s started for uid %d", job.id, job.spec.owner.uid)
        parts.registry.changed(job.id)
        self._supervision.watch_limit(job)
        parts.registry.release(job.id)


def make_spec(submission: Submission, owner: Owner, document: bytes) -> JobSpec:
    """Return the job as it will be started, every path absolute."""
    description = submission.description
    cwd = description.cwd or home_of(owner.uid)

    def absolute(path: str) -> str:
        return path if path.startswith("/") or not path else f"{cwd.rstrip('/')}/{path}"

    return JobSpec(
        name=description.name,
        argv=description.argv,
        cwd=cwd,
        env=dict(description.env),
        owner=owner,
        stdin=absolute(description.stdin) or "/dev/null",
        stdout=absolute(description.stdout),
        stderr=absolute(description.stderr),
        limits=dict(description.limits),
        wall_time_s=description.wall_time_s,
        policy=submission.policy,
        jsdl=document.decode("utf-8", "replace"),
    )
