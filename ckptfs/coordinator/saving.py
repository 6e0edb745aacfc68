"""One checkpoint under way: how its orders are carried out on units, store and catalog.

What is decided is in `checkpoint`; here is what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ..catalog import jobs as catalog_jobs
from ..errors import Busy, CkptfsError, NoSuchProcess, TimedOut
from ..ids import UnitName, Version
from ..model import Head, OpenFile, Purpose, UnitFacts
from ..node.api import Prepared, UnitPort
from ..store.ingest_api import Ingest
from .api import CheckpointRequest, Job
from .awaiting import COPYING, has_enough, note_reached, sentence, wait_for_copies
from .cpx import JOB_DOCUMENT, UNIT_DOCUMENT, render_job, render_unit
from .driver import Action
from .events import Event, Order
from .machine import SERVICE
from .parts import Parts, staging_name

log = logging.getLogger(__name__)
THAW_RETRY_S = 0.1
PROGRESS_S = 0.2
NO_STREAMS = "the checkpointer cannot stream"
GIVE_UP_S = 10.0  # for whoever waits for copies to give up by itself, with its sentence


@dataclass(slots=True)
class Saving:
    """State of one checkpoint between its orders.  Times on trio's clock, in seconds."""

    parts: Parts
    job: Job
    version: Version
    request: CheckpointRequest
    ports: Mapping[UnitName, UnitPort]
    prepared: Mapping[UnitName, Prepared]
    ingest: Ingest
    journal_id: int
    begun_s: float
    may_take: Callable[[int], None] = lambda _: None  # logical bytes; raises QuotaExceeded
    stopped: set[UnitName] = field(default_factory=set[UnitName])
    killed: set[UnitName] = field(default_factory=set[UnitName])
    files: dict[UnitName, Sequence[OpenFile]] = field(
        default_factory=dict[UnitName, Sequence[OpenFile]]
    )
    frozen_at_s: float | None = None  # first order to freeze
    thawed_at_s: float | None = None  # last thaw
    stood_ns: int = 0  # epoch, when every unit stood still
    uncopied: str = ""  # sentence: why a suspension let the job go on after its commit
    way: str = "pipes"  # that the images came; of several units one that did not, and why
    head: Head | None = None  # set: the version is committed and visible
    survivors: frozenset[UnitName] = frozenset()  # did not answer the last order

    @property
    def expected_bytes(self) -> int:
        """Estimate of what the images take."""
        return sum(prepared.image_bytes for prepared in self.prepared.values())

    @property
    def frozen_usec(self) -> int:
        """How long the job stood still, first freeze to last thaw (or until now)."""
        if self.frozen_at_s is None:
            return 0
        end_s = self.thawed_at_s if self.thawed_at_s is not None else trio.current_time()
        return round((end_s - self.frozen_at_s) * 1e6)

    def actions(self) -> dict[Order, Action]:
        """Return how each order of the checkpoint is carried out."""
        limits = self.parts.deadlines
        saving_s = limits.saving(self.expected_bytes)
        commit_s = limits.committing(self.expected_bytes)
        return {
            Order.STOP: Action(self.stop, Event.STOPPED, limits.stop_s),
            Order.CHECKPOINT: Action(self.save, Event.SAVED, saving_s),
            # Not to be cancelled: only its end tells whether the version exists.
            Order.COMMIT: Action(self.commit, Event.COMMITTED, commit_s, shielded=True),
            Order.AWAIT_COPIES: Action(
                self.await_copies, Event.COPIED, limits.copying(self.expected_bytes) + GIVE_UP_S
            ),
            Order.RESUME_CP: Action(self.resume, Event.RESUMED, limits.resume_s),
            Order.KILL: Action(self.kill, Event.KILLED, limits.kill_s),
        }

    async def stop(self, unit: UnitName) -> None:
        """Freeze one unit; the lease outlasts every deadline that is still to come."""
        limits, expected = self.parts.deadlines, self.expected_bytes
        lease_s = limits.stop_s + limits.saving(expected) + limits.committing(expected)
        if self.request.purpose is Purpose.SUSPEND and self.job.min_level > 1:
            lease_s += limits.copying(expected) + GIVE_UP_S
        if self.frozen_at_s is None:
            self.frozen_at_s = trio.current_time()
        self.files[unit] = await self.ports[unit].stop(lease_s=lease_s)
        self.stopped.add(unit)
        self._show(unit, "frozen")

    async def save(self, unit: UnitName) -> None:
        """Have the image of one frozen unit written into the staging area."""
        self.stood_ns = self.stood_ns or self.parts.clock_ns()
        self._show(unit, "saving")
        directory = self.parts.staging_directory(self.job.id, self.version, unit)
        port, streams = self.ports[unit], self.prepared[unit].streams
        receiving = self.ingest.receive(unit, Path(streams)) if streams else NO_STREAMS
        try:
            if isinstance(receiving, str):
                self.way = f"the mount ({receiving})"
                self.files[unit] = await port.checkpoint(directory)
            else:
                async with receiving:
                    self.files[unit] = await port.checkpoint(directory, streams=True)
                await port.confirm(directory)
        except CkptfsError:
            if self.ingest.refused is not None:  # the checkpointer knows an errno at most
                raise self.ingest.refused from None
            raise
        self._show(unit, "frozen")

    async def commit(self, _service: UnitName) -> None:
        """Write the documents, then make the version durable and visible.

        But for a suspension the job runs on meanwhile.
        A commit that outlives its deadline is looked up afterwards: what the
        store lists is committed, whatever the clock said.
        """
        facts = [self._facts(unit) for unit in sorted(self.ports)]
        for unit_facts in facts:
            document = render_unit(self.job.id, self.version, unit_facts)
            await self._write(unit_facts.unit, UNIT_DOCUMENT, document)
        await self._write(SERVICE, JOB_DOCUMENT, self._job_document(facts))
        self.may_take(self._size_bytes())
        try:
            self._committed(await self.ingest.commit(self._draft()))
        except trio.Cancelled:
            if self.version in self.parts.store.versions(self.job.id):
                self._committed(self.parts.store.head(self.job.id, self.version))
            raise

    async def await_copies(self, _service: UnitName) -> None:
        """Return when a suspension may end its units: the version has copies enough.

        Copying goes on meanwhile.  Raises TimedOut; then the job goes on, and the version stays.
        """
        outcome, parts, job = self.job.checkpoint, self.parts, self.job
        if outcome is None or has_enough(parts, job, outcome):
            return
        parts.registry.stand_aside(job.id)
        outcome.word = COPYING
        seconds = parts.deadlines.copying(self.expected_bytes)
        await wait_for_copies(parts, job, outcome, seconds)
        if not has_enough(parts, job, outcome):
            missing = sentence(parts, job, outcome, seconds)
            self.uncopied = f"it was not suspended: {missing}; the job goes on"
            raise TimedOut(self.uncopied)
        note_reached(parts, job)

    async def resume(self, unit: UnitName) -> None:
        """Thaw one unit.  Fine when it was never frozen or has ended."""
        while True:
            try:
                await self.ports[unit].resume_cp()
            except NoSuchProcess:
                return
            except Busy:
                if unit in self.stopped:  # its checkpointer is still being ended
                    await trio.sleep(THAW_RETRY_S)
                    continue
            break
        self.stopped.discard(unit)
        self.thawed_at_s = trio.current_time()
        self._show(unit, "running")

    async def kill(self, unit: UnitName) -> None:
        """End one saved unit (suspension): it never runs on beyond its checkpoint."""
        await self.ports[unit].kill()
        await self.parts.registry.wait_exit(self.job.id, unit, self.parts.deadlines.thaw_s)
        self.stopped.discard(unit)
        self.killed.add(unit)
        self.thawed_at_s = trio.current_time()
        self._show(unit, "ended")

    async def report_progress(self) -> None:
        """Keep the outcome's byte counts fresh until cancelled."""
        outcome = self.job.checkpoint
        while outcome is not None:
            outcome.done_bytes = self.ingest.progress_bytes()
            await trio.sleep(PROGRESS_S)

    async def forget(self) -> None:
        """Take the staging area away; nothing of a failed version stays visible.  Repeatable."""
        self.parts.staging.pop(staging_name(self.job.id, self.version), None)
        if self.head is not None:
            return
        try:
            with trio.fail_after(self.parts.deadlines.commit_s):
                await self.ingest.abort()
        except (CkptfsError, trio.TooSlowError) as error:
            log.error("%s %d could not be forgotten: %r", self.job.id, self.version, error)

    def _size_bytes(self) -> int:
        files = (
            file for unit in (SERVICE, *self.ports) for file in self.ingest.files(unit).values()
        )
        return sum(file.size_bytes for file in files)

    def _committed(self, head: Head) -> None:
        """No await: the version is in the job's list before anybody can look."""
        self.head = head
        self.job.versions.append(self.version)
        self.parts.registry.changed(self.job.id, self.version)
        try:
            catalog_jobs.save_version(self.parts.db, head)
        except CkptfsError as error:  # an index entry; the head is the truth
            log.error("%s %d is not in the catalog: %s", self.job.id, self.version, error)

    def _facts(self, unit: UnitName) -> UnitFacts:
        facts = self.prepared[unit].facts
        return UnitFacts(
            unit=unit,
            node=facts.node,
            translib=facts.translib,
            facts=facts.facts,
            pids=facts.pids,
            uids=facts.uids,
            files=tuple(self.files.get(unit, ())),
        )

    def _job_document(self, facts: Sequence[UnitFacts]) -> bytes:
        available = self.parts.available()
        return render_job(
            self.job.id,
            self.version,
            owner=self.job.spec.owner,
            purpose=self.request.purpose,
            initiator=self.request.initiator,
            protocol=self.job.protocol,
            taken_ns=self.stood_ns,
            note=self.request.note,
            record=self.parts.registry.record_of(self.job),
            units=facts,
            checkpointers={name: entry.version for name, entry in available.items()},
            files={
                unit.unit: {
                    name: file.size_bytes for name, file in self.ingest.files(unit.unit).items()
                }
                for unit in facts
            },
        )

    def _draft(self) -> Head:
        return Head(
            job=self.job.id,
            version=self.version,
            owner=self.job.spec.owner,
            committed_ns=self.parts.clock_ns(),
            purpose=self.request.purpose,
            initiator=self.request.initiator,
            protocol=self.job.protocol,
            files=(),
            logical_bytes=0,
            stored_bytes=0,
            frozen_usec=self.frozen_usec,
            note=self.request.note,
            keep=self.request.keep,
        )

    async def _write(self, unit: UnitName, name: str, document: bytes) -> None:
        file = self.ingest.create(unit, name)
        await file.wait_writable()
        file.write(0, document)

    def _show(self, unit: UnitName, state: str) -> None:
        self.job.units[unit].state = state
        self.parts.registry.changed(self.job.id)
