"""The verb checkpoint (and the first half of suspend): the request, and what follows it.

The request decides everything that can be decided before a process is touched
and makes the version number durable; what comes later is the background's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import trio

from ..catalog import operations
from ..errors import CkptfsError, NotAuthorised, QuotaExceeded, Unsupported
from ..ids import JobId, UnitName, Version
from ..jobs.lifecycle import ALREADY, refusal
from ..model import Caller, Initiator, JobState, Protocol, Purpose
from ..node.api import Prepared
from ..security import access
from ..translib.api import Capability
from .api import NO_VERSION, CheckpointRequest, Job, Outcome
from .awaiting import COPYING, await_copies, give_up, has_enough
from .charging import Charging
from .checkpoint import CheckpointPhase, checkpoint_machine
from .driver import INTERRUPTED, KILLED, Journal, drive
from .events import Event
from .parts import Parts, staging_name
from .registry import Operation
from .retention import apply_retention
from .saving import Saving
from .side_by_side import side_by_side

log = logging.getLogger(__name__)
GROW_BYTES = 64 << 20


class Checkpoints:
    """Takes versions."""

    def __init__(self, parts: Parts, charging: Charging) -> None:
        self._parts, self._charging = parts, charging

    async def request(
        self, job_id: JobId, caller: Caller, request: CheckpointRequest, *, verb: str = "checkpoint"
    ) -> Version:
        """Begin a version and return its number, durable; *verb* "suspend" ends the units after it.

        Suspending a suspended job does nothing and returns the version it was suspended with.
        Raises NotAuthorised, Busy, Unsupported (ended, capability missing, blockers),
        StoreFull, QuotaExceeded, Degraded, TimedOut; nothing has happened to the job then.
        """
        registry = self._parts.registry
        job = registry.get(job_id)
        access.require(caller, job.spec.owner, verb, job_id)
        if request.initiator is Initiator.SYSTEM and caller.uid != access.ROOT_UID:
            raise NotAuthorised("only root takes versions in the name of the system")
        if (verb, job.state) in ALREADY and job_id not in registry.operations:
            return job.checkpoint.version if job.checkpoint else NO_VERSION
        operation = registry.acquire(job_id, verb)
        with registry.given_back(job, verb):
            saving = await self._begin(job, request, verb, operation)
        self._parts.background.spawn(
            f"{verb} {job_id} {saving.version}", lambda: self._run(saving, operation)
        )
        return saving.version

    async def _begin(
        self, job: Job, request: CheckpointRequest, verb: str, operation: Operation
    ) -> Saving:
        parts = self._parts
        refused = refusal(verb, job.id, job.state)
        if refused:
            raise refused
        if job.protocol is Protocol.INDEPENDENT:
            raise Unsupported("the independent protocol is not served yet: write coordinated")
        begun_s = trio.current_time()
        ports = dict(parts.registry.incarnations[job.id].ports)
        await self._charging.ready(job)
        prepared = await self.prepare(job)
        if parts.registry.incarnations[job.id].exits:
            raise Unsupported(f"{job.id} has just ended")
        check_prepared(job, prepared, parts)
        # From here to the end no await: number, reservation and state change together.
        version = Version(job.highest_version + 1)
        expected_bytes = sum(entry.image_bytes for entry in prepared.values())
        family = (job.clone_of,) if job.clone_of else ()
        self._charging.reserve(job, operation, request, expected_bytes)
        ingest = parts.store.begin(job.id, version, expect_bytes=expected_bytes, family=family)
        try:
            journal_id = self._number(job, version, verb, operation)
        except CkptfsError:
            parts.background.spawn(f"forget {job.id} {version}", ingest.abort)
            raise
        ingest.limit(expected_bytes, partial(self._grow, job, operation, request))
        parts.staging[staging_name(job.id, version)] = ingest
        self._announce(job, version, expected_bytes, operation)
        return Saving(
            parts,
            job,
            version,
            request,
            ports,
            prepared,
            ingest,
            journal_id,
            begun_s,
            may_take=partial(self._charging.reserve, job, operation, request),
        )

    def _grow(
        self, job: Job, operation: Operation, request: CheckpointRequest, size_bytes: int
    ) -> int:
        """Reserve more for a version that turns out larger than its estimate; return how much.

        A step ahead, so that this is not asked with each MiB; where that does not fit, what is
        really needed still may.  Raises QuotaExceeded: then it is refused now, not at its commit.
        """
        try:
            self._charging.reserve(job, operation, request, size_bytes + GROW_BYTES)
        except QuotaExceeded:
            self._charging.reserve(job, operation, request, size_bytes)
            return size_bytes
        return size_bytes + GROW_BYTES

    async def prepare(self, job: Job) -> dict[UnitName, Prepared]:
        """Ask every unit of a running job what is in the way.  Stops nothing.

        One asks at a time: a unit refuses a primitive while another is under way.
        """
        incarnation = self._parts.registry.incarnations[job.id]
        ports = incarnation.ports
        async with incarnation.asking:
            prepared = await side_by_side(
                tuple(ports),
                lambda unit: ports[unit].prepare(),
                what="prepare",
                deadline_s=self._parts.deadlines.request_s,
            )
        job.blockers = tuple(
            blocker for unit in sorted(prepared) for blocker in prepared[unit].blockers
        )
        return prepared

    async def refresh_blockers(self, job: Job) -> None:
        """Find out what would make a checkpoint fail now, unless an operation is under way."""
        if job.state is not JobState.RUNNING:
            job.blockers = ()
            return
        if job.id in self._parts.registry.operations:
            return
        try:
            await self.prepare(job)
        except CkptfsError as error:
            job.blockers = (str(error),)

    def _number(self, job: Job, version: Version, verb: str, operation: Operation) -> int:
        """Make the number durable, in the job's record and in the journal."""
        parts = self._parts
        job.highest_version = version  # burnt even when what follows fails: never given twice
        parts.registry.save(job)
        operation.version = version
        return operations.begin(parts.db, job.id, verb, version, job.state, parts.clock_ns())

    def _announce(
        self, job: Job, version: Version, expected_bytes: int, operation: Operation
    ) -> None:
        job.state = JobState.CHECKPOINTING
        job.checkpoint = Outcome(version, "saving", total_bytes=expected_bytes)
        self._parts.registry.changed(job.id)
        log.info("%s: %s, version %d begins", job.id, operation.verb, version)

    async def _run(self, saving: Saving, operation: Operation) -> None:
        """Drive the machine to its end, whatever happens, then settle the outcome."""
        machine = checkpoint_machine(
            frozenset(saving.ports), end=saving.request.purpose is Purpose.SUSPEND
        )
        order = None
        for unit in sorted(saving.ports):
            order = machine.handle(unit, Event.PREPARED)  # the request did that
        interrupted = True
        try:
            with operation.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(saving.report_progress)
                    await drive(machine, order, saving.actions(), self._journal(saving))
                    nursery.cancel_scope.cancel()
            interrupted = operation.scope.cancelled_caught
        finally:
            saving.survivors = frozenset(machine.lost)
            with trio.CancelScope(shield=True):
                await self._rescue(saving)
                await saving.forget()
            reason = machine.reason if machine.phase is CheckpointPhase.FAILED else ""
            if reason and operation.kill_wanted:
                reason = KILLED
            self._settle(saving, reason, interrupted)
            self._parts.registry.release(saving.job.id)

    def _journal(self, saving: Saving) -> Journal:
        def journal(phase: str, reason: str) -> None:
            now_ns = self._parts.clock_ns()
            operations.enter(self._parts.db, saving.journal_id, phase, reason, now_ns)

        return journal

    async def _rescue(self, saving: Saving) -> None:
        """A unit that did not answer must not stay frozen; its lease is the last resort."""
        for unit in sorted(saving.survivors):
            try:
                with trio.fail_after(self._parts.deadlines.resume_s):
                    await saving.resume(unit)
            except (CkptfsError, trio.TooSlowError) as error:
                log.error("%s %s does not answer: %r", saving.job.id, unit, error)
                sentence = f"{unit} does not answer; its supervisor thaws it"
                self._parts.registry.note_error(saving.job, "checkpoint", sentence)

    def _settle(self, saving: Saving, reason: str, interrupted: bool) -> None:
        """Record how it ended.  No await: state, outcome and events change together."""
        job, registry = saving.job, self._parts.registry
        job.stat["last_frozen_usec"] = saving.frozen_usec
        job.stat["last_total_usec"] = round((trio.current_time() - saving.begun_s) * 1e6)
        job.state = JobState.RUNNING
        if saving.head is None:
            reason = reason or INTERRUPTED
            job.checkpoint = Outcome(saving.version, "failed", reason)
            job.events["aborted" if interrupted else "failed"] += 1
            self._parts.count("checkpoints_failed")
            registry.note_error(job, "checkpoint", reason)
            log.warning("%s: version %d failed: %s", job.id, saving.version, reason)
        else:
            self._complete(saving)
        try:
            operations.end(self._parts.db, saving.journal_id, reason, self._parts.clock_ns())
        except CkptfsError as error:
            log.error("%s: the journal cannot be closed: %s", job.id, error)
        registry.changed(job.id)

    def _complete(self, saving: Saving) -> None:
        job, parts, head = saving.job, self._parts, saving.head
        if head is None:
            return
        done = head.logical_bytes
        outcome = Outcome(saving.version, "complete", done_bytes=done, total_bytes=done)
        job.checkpoint = outcome
        if saving.uncopied:
            give_up(parts, job, outcome, saving.uncopied)
        elif has_enough(parts, job, outcome):
            job.events["complete"] += 1
        else:
            outcome.word = COPYING
            parts.background.spawn(
                f"copies of {job.id} {outcome.version}", lambda: await_copies(parts, job, outcome)
            )
        job.stat["checkpoints"] += 1
        job.stat["last_saved_bytes"] = head.logical_bytes
        job.stat["last_unique_bytes"] = head.stored_bytes
        parts.count("checkpoints_complete")
        log.info(
            "%s: version %d complete, %d bytes through %s, stood still %d us",
            job.id,
            saving.version,
            head.logical_bytes,
            saving.way,
            saving.frozen_usec,
        )
        if saving.request.keep:
            parts.store.pin(job.id, saving.version, True)
        if saving.killed == set(saving.ports):
            job.state = JobState.SUSPENDED
            job.events["suspended"] += 1
        parts.registry.save_later_if_full(job)  # also for the counters; the job runs by now
        if job.state is JobState.SUSPENDED:
            parts.registry.end_incarnation(job, parts.node)
        apply_retention(parts, job)


def check_prepared(job: Job, prepared: Mapping[UnitName, Prepared], parts: Parts) -> None:
    """Raise Unsupported when a capability is missing or something blocks a checkpoint."""
    for unit in sorted(prepared):
        translib = prepared[unit].facts.translib
        entry = parts.available().get(translib)
        have = entry.capabilities if entry else frozenset[Capability]()
        missing = [word for word in job.spec.policy.requires if word not in have]
        if missing:
            raise Unsupported(
                f"the checkpointer {translib} lacks {missing[0]}, which {job.id} requires"
            )
    if job.blockers:
        more = len(job.blockers) - 1
        rest = f" (and {more} more: see ctl/blockers)" if more else ""
        raise Unsupported(f"{job.blockers[0]}{rest}")
