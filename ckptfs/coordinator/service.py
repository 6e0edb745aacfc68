"""The service: `coordinator.api.Service`, put together from its verbs.

Everything runs on the trio thread.  Requests decide and raise; what follows
them runs in the background nursery of `run`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

import trio

from ..errors import CkptfsError
from ..ids import JobId, Version
from ..model import Caller, Head, JobState, Purpose
from ..model import Protocol as CheckpointProtocol
from ..node.api import Process
from ..store.api import Damage, Store, Usage
from ..store.copies_api import VolumeStatus
from ..store.ingest_api import Ingest
from ..translib.api import Availability
from . import versions
from .api import CheckpointRequest, Job, RemovedJob, RestartRequest, SignalRequest, Subscriber
from .charges import Charges
from .charging import Charging
from .checkpointing import Checkpoints
from .collecting import Collecting
from .control import Control
from .figures import Figures
from .histogram import Histogram
from .listing import Listing
from .lost_heads import write_rows
from .parts import Parts
from .removal import Removal
from .replication import Replication
from .restarting import Restarts
from .scrub import Scrub
from .startup import recover
from .submission import Submissions
from .supervision import Supervision
from .user_space import UserSpace
from .watermarks import Watermarks

log = logging.getLogger(__name__)


class Coordinator:
    """See `coordinator.api.Service`; nothing is decided here."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.store: Store = parts.store
        self.staging: Mapping[str, Ingest] = parts.staging
        self._supervision = Supervision(parts)
        self._charging = Charging(parts)
        self.charges: Charges = self._charging
        self._checkpoints = Checkpoints(parts, self._charging)
        self._restarts = Restarts(parts, self._supervision)
        self._control = Control(parts, self._supervision, self._charging)
        self._scrub = Scrub(parts)
        self._listing = Listing(parts)
        self._replication = Replication(parts)
        self._watermarks = Watermarks(parts)
        self._removal = Removal(parts, self._charging)
        self._collecting = Collecting(parts, parts.sweeper, self._removal.purge)
        self._figures = Figures(parts, scrub=self._scrub, collecting=self._collecting)
        self._submissions = Submissions(
            parts,
            self._supervision,
            self._replication.check_level,
            UserSpace(parts, self._charging),
        )

    async def recover(self) -> None:
        """Find every job; call once, before anything is served."""
        self._removal.load()
        await recover(self._parts, self._supervision)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what requests begin, until cancelled; then every unit has been let go."""
        # first: who asks for the usage before the counting has begun waits for all of it
        self._parts.background.spawn("count, then collect", self._count_then_collect)
        self._parts.background.spawn("watermarks", self._watermarks.keep_going)
        self._parts.background.spawn("scrub, when it is due", self._scrub.keep_going)
        self._parts.background.spawn("replication", self._replication.keep_going)
        await self._parts.background.run(task_status=task_status)

    async def _count_then_collect(self) -> None:
        """Decide on no version before its head is known: 10 000 would be read on this thread."""
        try:
            await self._parts.store.count()
        except OSError as error:
            log.error("the store could not be counted: %s", error)
        # what is known of 10 000 versions stays: Python's cycle collector need not walk through it,
        # 130 ms each time in which no request is served
        gc.freeze()
        await write_rows(self._parts)
        await self._collecting.keep_going()

    def close(self) -> None:
        """Close the catalog; the last call."""
        self._parts.db.close()

    # What there is

    def jobs(self) -> Sequence[JobId]:
        """Return every job."""
        return tuple(self._parts.registry.jobs)

    def job(self, job: JobId) -> Job:
        """Return a job.  Raises NotFound."""
        return self._parts.registry.get(job)

    def head(self, job: JobId, version: Version) -> Head:
        """Return the verified head of a version.  Raises NotFound, Corrupt."""
        return self._parts.store.head(job, version)

    def latest(self, job: JobId) -> Version | None:
        """Return the newest version without known damage that has copies enough."""
        return versions.latest(self._parts.store, self._parts.copies, self.job(job))

    def version_state(self, job: JobId, version: Version) -> str:
        """Return ``restartable``, ``replicating 1/3`` or ``damaged (…)``."""
        found = versions.state_text(self._parts.store, job, version)
        if found != versions.RESTARTABLE:
            return found
        return self._replication.state_text(job, version) or found

    def verify_text(self, job: JobId, version: Version) -> str:
        """Return ``never``, ``ok …``, ``running …`` or ``damaged (…)``."""
        return versions.verify_text(self._parts.store, job, version)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call *subscriber* after each change."""
        self._parts.registry.subscribe(subscriber)

    # Verbs

    async def submit(self, caller: Caller, document: bytes) -> JobId:
        """Start the job that a JSDL document describes."""
        return await self._submissions.submit(caller, document)

    async def request_checkpoint(
        self, job: JobId, caller: Caller, request: CheckpointRequest
    ) -> Version:
        """Begin a version."""
        return await self._checkpoints.request(job, caller, request)

    async def request_restart(self, job: JobId, caller: Caller, request: RestartRequest) -> str:
        """Begin a restart; return the version, or the new job for a clone."""
        alive, version = await self._restarts.request(job, caller, request)
        return alive if request.as_clone else str(version)

    async def request_suspend(self, job: JobId, caller: Caller) -> Version:
        """Begin a version after which the job ends, to be resumed."""
        request = CheckpointRequest(purpose=Purpose.SUSPEND)
        return await self._checkpoints.request(job, caller, request, verb="suspend")

    async def request_resume(self, job: JobId, caller: Caller) -> Version:
        """Begin the restart of a suspended job from its latest version."""
        _, version = await self._restarts.request(job, caller, RestartRequest(None), verb="resume")
        return version

    async def request_kill(self, job: JobId, caller: Caller) -> None:
        """End a job."""
        self._control.kill(job, caller)
        await trio.lowlevel.checkpoint()

    async def request_signal(self, job: JobId, caller: Caller, request: SignalRequest) -> None:
        """Send a signal to processes of a job."""
        await self._control.signal(job, caller, request)

    def set_protocol(self, job: JobId, caller: Caller, protocol: CheckpointProtocol) -> None:
        """Choose the protocol of the versions to come."""
        self._control.set_protocol(job, caller, protocol)

    def set_retention(self, job: JobId, caller: Caller, rule: str, number: int) -> None:
        """Choose which restartable versions are kept."""
        self._control.set_retention(job, caller, rule, number)

    def set_replication(
        self, job: JobId, caller: Caller, level: int, min_level: int | None = None
    ) -> None:
        """Keep copies of the job's versions in *level* failure domains."""
        check = self._replication.check_level
        self._control.set_replication(job, caller, level, min_level, check)
        self._replication.wake()

    def replicas(self, job: JobId, version: Version) -> int:
        """Return in how many failure domains a version is whole."""
        return self._replication.count(job, version)

    def volumes(self) -> Sequence[VolumeStatus]:
        """Return the volumes beside the local one."""
        return self._replication.rows()

    async def request_volume(
        self, caller: Caller, verb: str, name: str, domain: str = "", seal: str = "plain"
    ) -> str:
        """Add, drain, use again or let go a volume."""
        return await self._replication.request(caller, verb, name, domain, seal)

    def pin(self, job: JobId, version: Version, caller: Caller, on: bool) -> None:
        """Keep a version from being removed."""
        self._control.pin(job, version, caller, on)

    def request_verify(self, job: JobId, version: Version, caller: Caller) -> None:
        """Begin to read and hash a version."""
        self._control.verify(job, version, caller)

    def scrub_text(self) -> str:
        """Return how far the scrub is."""
        return self._scrub.text()

    def request_scrub(self, caller: Caller, *, on: bool) -> None:
        """Begin or stop a scrub."""
        self._scrub.request(caller, on=on)

    def gc_text(self) -> str:
        """Return what the collector does, or did."""
        return self._collecting.text()

    async def request_gc(self, caller: Caller, *, dry: bool, empty_trash: bool) -> str:
        """Begin a collection, or return what one would do."""
        return await self._collecting.request(caller, dry=dry, empty_trash=empty_trash)

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        """Return the removed versions of a job that can be brought back."""
        return self._parts.store.trashed(job)

    def undelete(self, job: JobId, version: Version, caller: Caller) -> None:
        """Bring a removed version back."""
        self._control.undelete(job, version, caller)

    def damaged_versions(self) -> Sequence[tuple[JobId, Version]]:
        """Return every version with known damage."""
        return versions.damaged(self._parts.store, self._parts.registry.jobs.values())

    def remove_version(self, job: JobId, version: Version, caller: Caller) -> None:
        """Remove a version."""
        self._control.remove_version(job, version, caller)

    def remove_job(self, job: JobId, caller: Caller) -> None:
        """Remove an ended job without versions."""
        self._removal.remove(job, caller)

    def removed_jobs(self) -> Sequence[RemovedJob]:
        """Return the jobs that can be brought back."""
        return self._removal.rows()

    def undelete_job(self, job: JobId, caller: Caller) -> None:
        """Bring a removed job back with its versions."""
        self._removal.undelete(job, caller)

    def note_damage(self, damage: Damage) -> None:
        """A reader found damage: tell everybody who looks at that version."""
        self._parts.count("damage_found")
        self._parts.registry.changed(damage.job, damage.version)
        self._parts.registry.changed(damage.job)
        self._parts.registry.changed(None)

    # What runs

    async def refresh_blockers(self, job: JobId) -> None:
        """Find out what would make a checkpoint of *job* fail now."""
        await self._checkpoints.refresh_blockers(self.job(job))

    async def processes(self, job: JobId) -> Sequence[Process]:
        """Return the processes of a running job; empty when it does not answer."""
        try:
            found = await self._control.processes_by_unit(self.job(job))
        except CkptfsError:
            return ()
        return [process for _, processes in sorted(found.items()) for process in processes]

    def listed_versions(self, job: JobId) -> AsyncIterator[Sequence[Version]]:
        """Yield the versions of a job after bringing up to date what is known of them."""
        return self._listing.versions(job)

    # The service itself

    def checkpointers(self) -> Mapping[str, Availability]:
        """Return what each checkpointer here can do."""
        return self._parts.available()

    def node_name(self) -> str:
        """Return the name of the node the service runs on."""
        return self._parts.node.name

    def store_directory(self) -> str:
        """Return where the store is."""
        return str(self._parts.directory.logs.parent)

    def health(self) -> Sequence[str]:
        """Return one sentence per trouble."""
        sentences = list(self._parts.troubles)
        degraded = self._parts.store.degraded()
        if degraded:
            sentences.append(f"the store is read-only: {degraded}")
        if damaged := self.damaged_versions():
            sentences.append(versions.damage_sentence(damaged))
        sentences += self._replication.troubles()
        alarms = (self._scrub.alarm(), self._collecting.alarm(), self._watermarks.alarm())
        sentences += [alarm for alarm in (*alarms, self._charging.trouble) if alarm]
        entries = self._parts.available()
        if not any(entry.available for entry in entries.values()):
            reasons = [f"{name}: {entry.reason}" for name, entry in entries.items() if entry.reason]
            detail = reasons[0] if reasons else "run ckptfs doctor"
            sentences.append(f"no checkpointer works here: {detail}")
        return sentences

    def usage(self) -> Usage:
        """Return the store's space."""
        return self._parts.store.usage()

    def levels(self) -> Mapping[str, int]:
        """Return queues, and what the collector and the scrub do."""
        return self._figures.levels()

    def stop_times(self) -> Histogram:
        """Return how long jobs stood still for versions."""
        return self._figures.stops

    def counters(self) -> Mapping[str, int]:
        """Return flat counters of the service."""
        registry = self._parts.registry
        states = dict.fromkeys((f"jobs_{state}" for state in JobState), 0)
        for job in registry.jobs.values():
            states[f"jobs_{job.state}"] += 1
        return {
            "jobs": len(registry.jobs),
            **states,
            "operations": len(registry.operations),
            **dict.fromkeys(_COUNTERS, 0),
            **self._parts.counts,
        }


_COUNTERS = (
    "jobs_started",
    "jobs_ended",
    "checkpoints_complete",
    "checkpoints_failed",
    "restarts_complete",
    "restarts_failed",
    "damage_found",
    "objects_mended",
    "collections",
    "collected_bytes",
    "packs_rewritten",
    "scrubbed_versions",
    "scrubbed_bytes",
)
