"""Every job in memory: its record, its units, who holds its lock, who listens.

All methods are plain, so between two awaits of a caller nothing changes.
`save` makes the durable part of a job durable; states that only a running
daemon can be in (checkpointing, restarting) are written as the state to go
back to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ..catalog import jobs as catalog_jobs
from ..catalog.connection import Connection
from ..errors import Busy, CkptfsError, Exists, NotFound
from ..ids import JobId, UnitName, Version
from ..jobs.directory import JobsDirectory
from ..jobs.lifecycle import MOVING
from ..jobs.record import JobRecord
from ..model import JobState
from ..node.api import Exit, NodePort, UnitPort
from .api import Job, Subscriber

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Operation:
    """The job lock: one verb at a time."""

    verb: str
    former: JobState  # state, reason and exit of the job before
    former_reason: str
    former_exit: Exit | None
    version: Version | None = None  # in use: neither removed nor collected
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    kill_wanted: bool = False  # somebody asked for a kill meanwhile
    is_aside: bool = False  # it waits for copies, so copying goes on
    charge_bytes: int = 0  # what the version in work may come to be charged to the owner


@dataclass(slots=True)
class Incarnation:
    """The units of a job that were started or rebuilt together; *units* empty: nothing runs."""

    units: frozenset[UnitName] = frozenset()
    ports: dict[UnitName, UnitPort] = field(default_factory=dict[UnitName, UnitPort])
    exits: dict[UnitName, Exit | None] = field(default_factory=dict[UnitName, Exit | None])
    started_ns: int = 0
    over_limit: str = ""  # sentence: why the service itself killed it
    asking: trio.Lock = field(default_factory=trio.Lock)  # one prepare at a time
    exited: trio.Event = field(default_factory=trio.Event)  # set, and replaced, at each exit


class Registry:
    """The jobs of one service."""

    def __init__(
        self, directory: JobsDirectory, db: Connection, clock_ns: Callable[[], int]
    ) -> None:
        self.directory, self.db, self.clock_ns = directory, db, clock_ns
        self.jobs: dict[JobId, Job] = {}
        self.incarnations: dict[JobId, Incarnation] = {}
        self.operations: dict[JobId, Operation] = {}
        # Jobs whose memory is still being read, and the version it is read from: in use.
        self.loading: dict[JobId, tuple[JobId, Version]] = {}
        # Rows of the catalog that should have been struck with their versions: see `lost_heads`.
        self.stale_rows: set[tuple[JobId, Version]] = set()
        # Versions whose rows are yet to be written.
        self.missing_rows: list[tuple[JobId, Version]] = []
        # Jobs whose versions are being let go: see `retention`.
        self.letting_go: set[JobId] = set()
        self._subscribers: list[Subscriber] = []
        self._released: list[Callable[[JobId, Operation], None]] = []

    def get(self, job: JobId) -> Job:
        """Return a job.  Raises NotFound (ENOENT)."""
        found = self.jobs.get(job)
        if found is None:
            raise NotFound(f"no job is called {job}")
        return found

    def add(self, job: Job) -> None:
        """Take in a job; its units follow."""
        self.jobs[job.id] = job
        self.incarnations[job.id] = Incarnation()

    def drop(self, job: JobId) -> None:
        """Forget a job; whoever still holds the record sees that it was removed."""
        record = self.jobs.pop(job)
        record.removed = True
        self.incarnations.pop(job, None)
        self.changed(job)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have *subscriber* called after each change."""
        self._subscribers.append(subscriber)

    def changed(self, job: JobId | None, version: Version | None = None) -> None:
        """Tell everybody; a subscriber with a bug harms nobody else."""
        record = self.jobs.get(job) if job else None
        if record is not None:
            record.changed_ns = self.clock_ns()
        for subscriber in self._subscribers:
            try:
                subscriber(job, version)
            except Exception:
                log.exception("a subscriber failed on %s", job)

    def on_release(self, callback: Callable[[JobId, Operation], None]) -> None:
        """Have *callback* called whenever the lock of a job was given back."""
        self._released.append(callback)

    def acquire(self, job: JobId, verb: str) -> Operation:
        """Take the job lock.  Raises Busy (EBUSY) naming who holds it."""
        holder = self.operations.get(job)
        if holder is not None:
            raise Busy(f"a {holder.verb} of {job} is under way: wait until it is over")
        record = self.get(job)
        operation = Operation(verb, record.state, record.reason, record.exit)
        self.operations[job] = operation
        return operation

    @contextmanager
    def given_back(self, job: Job, verb: str) -> Generator[None]:
        """Give the job lock back, and note why, when what *verb* begins with fails."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, CkptfsError):
                self.note_error(job, verb, str(error))
            self.release(job.id)
            raise

    def stand_aside(self, job: JobId) -> None:
        """Let copying go on during an operation that waits for it."""
        self.operations[job].is_aside = True
        self.changed(job)

    def is_in_the_way(self) -> bool:
        """Whether an operation is under way that copying gives way to."""
        return any(not operation.is_aside for operation in self.operations.values())

    def release(self, job: JobId) -> None:
        """Give the lock back and tell everybody how it ended.  Harmless when repeated."""
        operation = self.operations.pop(job, None)
        if operation is None:
            return
        for callback in self._released:
            callback(job, operation)
        self.changed(job)

    def save(self, job: Job) -> None:
        """Make *job* durable, record first, then index.  Raises StoreFull, Degraded."""
        record = self.record_of(job)
        self.directory.save(record)
        self._index(record)

    def create(self, job: Job) -> None:
        """Make a new job durable, or leave no trace of it.  Raises Exists, StoreFull, Degraded."""
        record = self.record_of(job)
        try:
            self.directory.create(record)
            self._index(record)
        except Exists:
            raise  # somebody else's
        except CkptfsError:
            self.directory.remove(job.id)
            raise

    def adopt(self, job: Job) -> None:
        """Make the record of a job durable that had none any more.  Raises Exists, StoreFull."""
        record = self.record_of(job)
        self.directory.create(record)
        self._index(record)

    def withdraw(self, job: JobId) -> None:
        """Undo `create` and `add` of a job that could not be started: its number alone is used."""
        self.drop(job)
        self.release(job)
        self.directory.remove(job)
        self.unindex(job)

    def unindex(self, job: JobId) -> None:
        """Take a job that is gone out of the index; the records are the truth."""
        try:
            catalog_jobs.remove_job(self.db, job)
        except CkptfsError as error:
            log.error("%s stays in the catalog: %s", job, error)

    def save_later_if_full(self, job: Job) -> None:
        """`save`, but a full disk is only noted: what happened has happened."""
        try:
            self.save(job)
        except CkptfsError as error:
            log.error("%s could not be made durable: %s", job.id, error)
            self.note_error(job, "state", str(error))

    def note_error(self, job: Job, verb: str, sentence: str) -> None:
        """Keep the last failure for humans (``ctl/error``)."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock_ns() / 1e9))
        job.error = f"{now} {verb}: {sentence}"

    def note_exit(self, job: JobId, unit: UnitName, ended: Exit | None) -> bool:
        """Record how a unit of the present incarnation ended; False: it is of an earlier one."""
        incarnation = self.incarnations.get(job)
        if incarnation is None or unit not in incarnation.units:
            return False
        incarnation.exits[unit] = ended
        exited, incarnation.exited = incarnation.exited, trio.Event()
        exited.set()
        return True

    async def wait_exit(self, job: JobId, unit: UnitName, deadline_s: float) -> None:
        """Return when the unit's exit was reported, or after *deadline_s* seconds.

        So that the report of an old incarnation is never taken for one of the next.
        """
        incarnation = self.incarnations[job]
        with trio.move_on_after(deadline_s):
            while unit in incarnation.units and unit not in incarnation.exits:
                await incarnation.exited.wait()

    def end_incarnation(self, job: Job, node: NodePort) -> None:
        """Let the units of *job* go: nothing of them runs any more."""
        self.loading.pop(job.id, None)
        incarnation = self.incarnations[job.id]
        for unit in sorted(incarnation.units):
            node.forget(job.id, unit)
        self.incarnations[job.id] = Incarnation(started_ns=incarnation.started_ns)
        for status in job.units.values():
            status.pid, status.state = 0, "ended" if status.state != "lost" else "lost"

    def index(self, job: Job) -> None:
        """Write the index entry of *job* alone.  Raises StoreFull, Degraded."""
        self._index(self.record_of(job))

    def _index(self, record: JobRecord) -> None:
        catalog_jobs.save_job(
            self.db,
            record.id,
            record.spec.owner,
            state=record.state,
            reason=record.reason,
            created_ns=record.created_ns,
            highest_version=record.highest_version,
            clone_of=record.clone_of,
        )

    def record_of(self, job: Job) -> JobRecord:
        """Return what must survive of a job."""
        state, reason, ended = job.state, job.reason, job.exit
        operation = self.operations.get(job.id)
        if operation is not None and state in MOVING:
            state, reason = operation.former, operation.former_reason
            ended = operation.former_exit
        return JobRecord(
            id=job.id,
            spec=job.spec,
            created_ns=job.created_ns,
            started_ns=self.incarnations[job.id].started_ns,
            state=state,
            reason=reason,
            units={unit: status.node for unit, status in job.units.items()},
            highest_version=job.highest_version,
            keep_last=job.keep_last,
            keep_within_s=job.keep_within_s,
            keep_every_s=job.keep_every_s,
            keep_user_bytes=job.keep_user_bytes,
            replication=job.replication,
            min_level=job.min_level,
            reached=job.reached,
            protocol=job.protocol,
            exit_code=ended.code if ended else None,
            exit_signal=ended.signal if ended else 0,
            clone_of=job.clone_of,
            stdout=job.stdout,
            stderr=job.stderr,
            logs_shown_as=job.logs_shown_as,
            events=dict(job.events),
            stat=dict(job.stat),
        )
