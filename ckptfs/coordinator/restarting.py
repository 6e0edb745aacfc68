"""The verb restart (also resume and clone): the request, and what follows it."""

from __future__ import annotations

import logging
from dataclasses import replace

import trio

from ..catalog import operations
from ..errors import CkptfsError, Corrupt, NotFound, TimedOut, Unsupported
from ..ids import JobId, UnitName, Version, make_job_id, unit_name
from ..jobs.lifecycle import ALREADY, refusal
from ..model import Caller, Head, JobState, UnitFacts
from ..security import access
from ..translib.api import Availability, Capability
from .api import NO_VERSION, Job, Outcome, RestartRequest, UnitStatus
from .cloning import running_relatives, shared_files_refusal
from .cpx import UNIT_DOCUMENT, UNIT_DOCUMENT_MAX, parse_unit
from .driver import INTERRUPTED, KILLED, Journal, drive
from .parts import Parts
from .rebuilding import Rebuilding
from .registry import Incarnation, Operation
from .restart import RestartPhase, restart_machine
from .supervision import Supervision
from .versions import latest, newest

log = logging.getLogger(__name__)


def can_load_lazily(translib: Availability | None) -> bool:
    """Whether a checkpointer can let a job run before its memory has been read.  Pure."""
    return translib is not None and Capability.LAZY_RESTART in translib.capabilities


class Restarts:
    """Brings jobs back from versions."""

    def __init__(self, parts: Parts, supervision: Supervision) -> None:
        self._parts, self._supervision = parts, supervision

    async def request(
        self, job_id: JobId, caller: Caller, request: RestartRequest, *, verb: str = "restart"
    ) -> tuple[JobId, Version]:
        """Begin a restart; return the job that comes to life (new for a clone) and the version.

        Resuming a running job does nothing and returns the version it was last restarted from.
        Raises NotAuthorised, NotFound, Busy, Corrupt (naming file and block),
        Unsupported (this machine cannot); nothing has been touched then.
        """
        registry = self._parts.registry
        job = registry.get(job_id)
        access.require(caller, job.spec.owner, verb, job_id)
        if (verb, job.state) in ALREADY and job_id not in registry.operations:
            return job_id, job.restart.version if job.restart else NO_VERSION
        version = self._choose(job, request, verb)
        refused = refusal("clone" if request.as_clone else verb, job_id, job.state)
        if refused:
            raise refused
        operation = registry.acquire(job_id, verb)
        operation.version = version
        with registry.given_back(job, verb):
            rebuilding = await self._begin(job, caller, request, version)
        self._parts.background.spawn(
            f"{verb} {rebuilding.job.id} {version}", lambda: self._run(rebuilding, operation)
        )
        return rebuilding.job.id, version

    def _choose(self, job: Job, request: RestartRequest, verb: str) -> Version:
        version = request.version
        if version is None and verb == "resume":  # where it was suspended, whatever copies that has
            version = newest(self._parts.store, job)
        elif version is None:
            version = latest(self._parts.store, self._parts.copies, job)
        if version is None:
            raise NotFound(f"{job.id} has no restartable version")
        if version not in job.versions:
            raise NotFound(f"{job.id} has no version {version}")
        for unit, node in request.placement.items():
            if unit not in job.units:
                raise NotFound(f"{job.id} has no unit {unit}")
            if node != self._parts.node.name:
                raise NotFound(f"no node is called {node}")
        return version

    async def _begin(
        self, job: Job, caller: Caller, request: RestartRequest, version: Version
    ) -> Rebuilding:
        parts = self._parts
        begun_s = trio.current_time()
        damage = parts.store.damage(job.id, version)
        if damage:
            raise Corrupt(f"version {version} is damaged: {damage[0]}")
        await parts.store.ready(job.id, version)
        head = parts.store.head(job.id, version)
        facts = await self._load_facts(head)
        uids = frozenset(uid for unit in facts.values() for uid in unit.uids)
        access.require_owner_of_image(caller, job.spec.owner, head.owner, uids)
        for unit, unit_facts in facts.items():
            sentence = parts.node.check_restart(unit_facts, parts.available())
            if sentence:
                raise Unsupported(f"{unit} cannot be restarted here: {sentence}")
            if request.lazy and not can_load_lazily(parts.available().get(unit_facts.translib)):
                raise Unsupported(
                    f"{unit} cannot be restarted with lazy=yes: {unit_facts.translib} has no "
                    f"{Capability.LAZY_RESTART} here (userfaultfd is missing in this kernel or "
                    f"forbidden); restart it without"
                )
        running = running_relatives(parts.registry.jobs, job)
        logs = parts.directory.log_directory(job.logs_shown_as or job.id).resolve()
        refused = shared_files_refusal(running, facts.values(), logs)
        if refused:
            raise refused
        # From here to the end no await: state and journal change together.
        target = self._make_clone(job, head) if request.as_clone else job
        rebuilding = Rebuilding(parts, target, job.id, version, request, facts, begun_s)
        rebuilding.journal_id = operations.begin(
            parts.db, target.id, "restart", version, target.state, parts.clock_ns()
        )
        self._announce(rebuilding, head)
        return rebuilding

    async def _load_facts(self, head: Head) -> dict[UnitName, UnitFacts]:
        """Read every ``unit.cpx`` of the version, each byte verified by the store."""
        parts = self._parts
        units = sorted({file.unit for file in head.files if file.name == UNIT_DOCUMENT})
        if not units:
            raise Corrupt(f"version {head.version} of {head.job} has no {UNIT_DOCUMENT}")
        facts: dict[UnitName, UnitFacts] = {}
        with trio.move_on_after(parts.deadlines.request_s) as scope:
            await parts.store.ready(head.job, head.version)
            for unit in units:
                reader = parts.store.open(head.job, head.version, unit, UNIT_DOCUMENT)
                try:
                    if reader.size_bytes > UNIT_DOCUMENT_MAX:
                        raise Corrupt(f"{UNIT_DOCUMENT} of {unit} is too large to be ours")
                    document = bytes(await reader.read(0, reader.size_bytes))
                finally:
                    reader.close()
                facts[unit] = parse_unit(document, head.job, head.version)
                if facts[unit].unit != unit:
                    raise Corrupt(f"{UNIT_DOCUMENT} of {unit} is that of {facts[unit].unit}")
        if scope.cancelled_caught:
            raise TimedOut(f"version {head.version} could not be read in time")
        return facts

    def _make_clone(self, job: Job, head: Head) -> Job:
        """Make the record of a new job, with default logs of its own.  No await."""
        parts = self._parts
        name = job.id.rpartition(".")[0]
        number = parts.directory.next_number(parts.store.jobs())
        clone_id = make_job_id(name, number)
        logs = parts.directory.log_directory(clone_id)
        unit = unit_name(1)
        clone = Job(
            id=clone_id,
            spec=replace(job.spec, owner=head.owner),
            created_ns=parts.clock_ns(),
            state=JobState.PENDING,
            keep_last=job.keep_last,
            keep_within_s=job.keep_within_s,
            keep_every_s=job.keep_every_s,
            keep_user_bytes=job.keep_user_bytes,
            replication=job.replication,
            min_level=job.min_level,
            protocol=job.protocol,
            stdout=job.spec.stdout or str(logs / f"{unit}.out"),
            stderr=job.spec.stderr or str(logs / f"{unit}.err"),
            logs_shown_as=job.logs_shown_as or job.id,
            clone_of=job.id,
        )
        clone.units = {
            unit: UnitStatus(status.node, 0, status.translib, "ended")
            for unit, status in job.units.items()
        }
        parts.registry.add(clone)
        operation = parts.registry.acquire(clone_id, "restart")
        # What is durable until it runs: a job that never began.
        operation.former = JobState.FAILED
        operation.former_reason = "it was not rebuilt"
        try:
            parts.registry.create(clone)
        except CkptfsError:
            parts.registry.drop(clone_id)
            parts.registry.release(clone_id)
            raise
        return clone

    def _announce(self, rebuilding: Rebuilding, head: Head) -> None:
        job, registry = rebuilding.job, self._parts.registry
        started_ns = registry.incarnations[job.id].started_ns
        units = frozenset(rebuilding.facts)
        registry.incarnations[job.id] = Incarnation(units, started_ns=started_ns)
        job.state, job.reason = JobState.RESTARTING, ""
        job.restart = Outcome(rebuilding.version, "rebuilding", total_bytes=head.logical_bytes)
        registry.changed(job.id)
        log.info("%s: restart from %s %d begins", job.id, head.job, rebuilding.version)

    async def _run(self, rebuilding: Rebuilding, operation: Operation) -> None:
        """Drive the machine to its end, whatever happens, then settle the outcome."""
        parts, job = self._parts, rebuilding.job
        own = parts.registry.operations.get(job.id, operation)  # a clone has its own lock
        machine = restart_machine(frozenset(rebuilding.facts))
        try:
            with own.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(rebuilding.report_progress)
                    order = machine.order
                    await drive(machine, order, rebuilding.actions(), self._journal(rebuilding))
                    nursery.cancel_scope.cancel()
        finally:
            if machine.phase is RestartPhase.RUNNING:
                self._running(rebuilding)
            else:
                reason = KILLED if own.kill_wanted else machine.reason or INTERRUPTED
                self._failed(rebuilding, own, reason)
            self._close_journal(rebuilding, machine.reason)
            parts.registry.release(job.id)
            parts.registry.release(rebuilding.source)

    def _journal(self, rebuilding: Rebuilding) -> Journal:
        def journal(phase: str, reason: str) -> None:
            now_ns = self._parts.clock_ns()
            operations.enter(self._parts.db, rebuilding.journal_id, phase, reason, now_ns)

        return journal

    def _close_journal(self, rebuilding: Rebuilding, reason: str) -> None:
        try:
            now_ns = self._parts.clock_ns()
            operations.end(self._parts.db, rebuilding.journal_id, reason, now_ns)
        except CkptfsError as error:
            log.error("%s: the journal cannot be closed: %s", rebuilding.job.id, error)

    def _running(self, rebuilding: Rebuilding) -> None:
        job, parts = rebuilding.job, self._parts
        job.state, job.reason, job.exit = JobState.RUNNING, "", None
        parts.registry.incarnations[job.id].started_ns = parts.clock_ns()
        job.restart = Outcome(rebuilding.version, "running")
        job.events["restarted"] += 1
        job.stat["restarts"] += 1
        job.stat["last_restart_usec"] = round((trio.current_time() - rebuilding.begun_s) * 1e6)
        parts.count("restarts_complete")
        parts.registry.save_later_if_full(job)
        self._supervision.watch_limit(job)
        log.info("%s runs again from version %d", job.id, rebuilding.version)

    def _failed(self, rebuilding: Rebuilding, operation: Operation, reason: str) -> None:
        """Back to what was before; a clone that never ran is a failed job with the reason."""
        job, parts = rebuilding.job, self._parts
        parts.registry.end_incarnation(job, parts.node)
        job.state, job.reason = operation.former, operation.former_reason
        if rebuilding.source != job.id:
            job.reason = f"the clone could not be rebuilt: {reason}"
        job.restart = Outcome(rebuilding.version, "failed", reason)
        job.events["failed"] += 1
        parts.count("restarts_failed")
        parts.registry.note_error(job, "restart", reason)
        parts.registry.save_later_if_full(job)
        log.warning("%s: restart from version %d failed: %s", job.id, rebuilding.version, reason)
