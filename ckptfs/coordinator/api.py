"""What the mount sees of the coordinator: job records, requests, and the service.

`Job` and friends are plain records owned by the service: everyone else only
reads them.  After each change the service calls the subscribers, on the trio
thread and without an await in between, so a reader never misses one.
Requests check everything that can be decided before a process is touched and
raise; what comes later is reported in the records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..ids import JobId, UnitName, Version
from ..model import Caller, Head, Initiator, JobSpec, JobState, Purpose
from ..model import Protocol as CheckpointProtocol
from ..node.api import Exit, Process
from ..store.api import Damage, Store, Usage
from ..store.copies_api import VolumeStatus
from ..store.ingest_api import Ingest
from ..translib.api import Availability
from .charges import Charges
from .histogram import Histogram


@dataclass(slots=True)
class UnitStatus:
    """One line of ``ctl/units``."""

    node: str
    pid: int  # host pid of the unit's root process, 0 when none
    translib: str
    state: str  # running, frozen, saving, rebuilding, ended, lost


@dataclass(slots=True)
class Outcome:
    """Latest request of a kind.

    *word* is saving|copying|complete|failed or rebuilding|running|failed.
    """

    version: Version
    word: str
    reason: str = ""
    done_bytes: int = 0
    total_bytes: int = 0  # estimate, 0 unknown

    def __str__(self) -> str:
        return f"{self.version} {self.word}" + (f" ({self.reason})" if self.reason else "")


JOB_EVENTS = (
    "complete",
    "failed",
    "aborted",
    "restarted",
    "suspended",
    "killed",
    "signalled",
    "units_lost",
    "loaded",
)
JOB_STATS = (
    "checkpoints",
    "restarts",
    "last_frozen_usec",
    "last_total_usec",
    "last_saved_bytes",
    "last_unique_bytes",
    "last_restart_usec",
)


RETENTION_MAX: Mapping[str, int] = {  # rule, also the name of the field, and its largest number
    "keep_last": 1_000_000,
    "keep_within_s": 10**9,
    "keep_every_s": 10**9,
    "keep_user_bytes": 1 << 60,
}


@dataclass(slots=True)
class Job:
    """Everything the mount shows of a job."""

    id: JobId
    spec: JobSpec
    created_ns: int
    state: JobState = JobState.PENDING
    reason: str = ""  # of state failed
    units: dict[UnitName, UnitStatus] = field(default_factory=dict[UnitName, UnitStatus])
    checkpoint: Outcome | None = None
    restart: Outcome | None = None
    exit: Exit | None = None
    protocol: CheckpointProtocol = CheckpointProtocol.COORDINATED
    keep_last: int = 0  # restartable versions; with the two below 0, all are kept
    keep_within_s: int = 0  # all that are younger, in seconds
    keep_every_s: int = 0  # the newest of each such period, in seconds
    keep_user_bytes: int = 0  # space that the user provides; 0: as much as there is
    replication: int = 1  # copies in as many failure domains
    min_level: int = 1  # of them before a checkpoint is called complete
    reached: int = 0  # newest version known to have had so many, 0: none; outlives volumes
    highest_version: int = 0  # ever assigned
    versions: list[Version] = field(default_factory=list[Version])  # committed, ascending
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JOB_EVENTS, 0))
    stat: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JOB_STATS, 0))
    blockers: tuple[str, ...] = ()  # as of the last refresh_blockers
    error: str = ""  # "<time> <verb>: <sentence>" of the last failure, for humans
    stdout: str = ""  # path of the file, also when it is the default one
    stderr: str = ""
    clone_of: JobId | None = None
    logs_shown_as: JobId | None = None  # whose log paths its images name, when not its own
    changed_ns: int = 0
    removed: bool = False
    # images that a restart under way reads from end to end, each byte once
    read_through: set[tuple[Version, UnitName]] = field(
        default_factory=set[tuple[Version, UnitName]]
    )

    @property
    def state_text(self) -> str:
        """The content of ``ctl/state`` without newline."""
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """``keep=yes note=…`` of ``ctl/checkpoint``."""

    keep: bool = False
    note: str = ""
    purpose: Purpose = Purpose.USER
    initiator: Initiator = Initiator.USER


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """What ``ctl/restart`` takes: ``7``, ``latest``, ``7 as=clone stopped=yes lazy=yes``, …"""

    version: Version | None  # None: latest restartable
    as_clone: bool = False
    stopped: bool = False
    lazy: bool = False  # it runs before its memory has been read
    placement: Mapping[UnitName, str] = field(default_factory=dict[UnitName, str])


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """``15 only=…|except=…|master`` of ``ctl/signal``; pids are the host's."""

    number: int
    only: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    master: bool = False


@dataclass(frozen=True, slots=True)
class RemovedJob:
    """A job that can be brought back.  *until_s*: its first version goes, seconds since epoch."""

    job: JobId
    uid: int
    versions: tuple[Version, ...]
    until_s: int


NO_VERSION: Final = Version(0)  # answered where nothing had to be done and no version tells
Subscriber = Callable[[JobId | None, Version | None], None]


class Service(Protocol):
    """The coordinator as the mount and the daemon see it.

    Every request raises NotAuthorised (EPERM) first when the caller is neither
    the owner nor root, before anything is looked at; a denied request changes nothing.
    """

    store: Store
    charges: Charges  # who pays for what
    staging: Mapping[str, Ingest]  # "<job>.<version>" → version in work; fs shows it to root alone

    def jobs(self) -> Sequence[JobId]:
        """Every job, by id."""
        ...

    def job(self, job: JobId) -> Job:
        """Raises NotFound."""
        ...

    def head(self, job: JobId, version: Version) -> Head:
        """Raises NotFound, Corrupt."""
        ...

    def latest(self, job: JobId) -> Version | None:
        """Newest restartable version (committed, not known damaged)."""
        ...

    def version_state(self, job: JobId, version: Version) -> str:
        """``restartable``, ``replicating 1/3`` or ``damaged (JobUnit_1/pages-1.img, block 17)``."""
        ...

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call *subscriber*(job, version) after each change; (None, None) is the service itself."""
        ...

    async def submit(self, caller: Caller, document: bytes) -> JobId:
        """Parse JSDL, check it, start the job.

        Raises InvalidInput, Unsupported, NotAuthorised, NotFound.
        """
        ...

    async def request_checkpoint(
        self, job: JobId, caller: Caller, request: CheckpointRequest
    ) -> Version:
        """Begin a version; return its number, durable."""
        ...

    async def request_restart(self, job: JobId, caller: Caller, request: RestartRequest) -> str:
        """Return the version, or for a clone the id of the new job."""
        ...

    async def request_suspend(self, job: JobId, caller: Caller) -> Version:
        """Begin a version after which the units end; return its number.

        A suspended job stays as it is; the answer is the version it was suspended with.
        """
        ...

    async def request_resume(self, job: JobId, caller: Caller) -> Version:
        """Begin the restart of a suspended job; return the version.

        A running job stays as it is; the answer is the version it was last restarted from, or 0.
        """
        ...

    async def request_kill(self, job: JobId, caller: Caller) -> None:
        """Have every process ended; the state tells when."""
        ...

    async def request_signal(self, job: JobId, caller: Caller, request: SignalRequest) -> None:
        """Raises OutOfRange (ERANGE), NoSuchProcess (ESRCH)."""
        ...

    def set_protocol(self, job: JobId, caller: Caller, protocol: CheckpointProtocol) -> None:
        """Raises Busy while a version is in work."""
        ...

    def set_retention(self, job: JobId, caller: Caller, rule: str, number: int) -> None:
        """Set one of `RETENTION_MAX`.  Raises OutOfRange.  What is too many goes at once."""
        ...

    def set_replication(
        self, job: JobId, caller: Caller, level: int, min_level: int | None = None
    ) -> None:
        """*min_level*: copies before a checkpoint is called complete, None: as it is.

        Raises OutOfRange, Unsupported: more than there are failure domains.
        """
        ...

    def replicas(self, job: JobId, version: Version) -> int:
        """In how many failure domains a version is whole, as of the last look."""
        ...

    def volumes(self) -> Sequence[VolumeStatus]:
        """The volumes beside the local one."""
        ...

    async def request_volume(
        self, caller: Caller, verb: str, name: str, domain: str = "", seal: str = "plain"
    ) -> str:
        """Carry out add (*name*: the directory), drain, up or rm; return its name.  Root only.

        *seal*: how copies lie on the new volume: plain, compress or encrypt.
        """
        ...

    def pin(self, job: JobId, version: Version, caller: Caller, on: bool) -> None:
        """Keep a version from removal, or let it go."""
        ...

    def request_verify(self, job: JobId, version: Version, caller: Caller) -> None:
        """Begin to read and hash a version.  Raises Busy while one does."""
        ...

    def verify_text(self, job: JobId, version: Version) -> str:
        """``never``, ``ok 2026-…``, ``running 40%``, ``damaged (file)``."""
        ...

    def scrub_text(self) -> str:
        """``running 40%``, ``idle (never|last 2026-…, 0 errors|stopped …)``."""
        ...

    def request_scrub(self, caller: Caller, *, on: bool) -> None:
        """Begin to read and prove every version, or stop it.  Root only.  Raises Busy, Degraded."""
        ...

    def gc_text(self) -> str:
        """``running 3/12``, ``idle (freed 41231 bytes)``."""
        ...

    async def request_gc(self, caller: Caller, *, dry: bool, empty_trash: bool) -> str:
        """Begin to free what no version needs.  Root only.  Raises Busy, TryAgain (in doubt).

        *dry*: change nothing, return one line per version: what happens to it and why.
        """
        ...

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        """Removed versions, and when they go for good, in seconds since the epoch."""
        ...

    def undelete(self, job: JobId, version: Version, caller: Caller) -> None:
        """Bring a removed version back, pinned.  Raises NotFound, Corrupt, StoreFull, Degraded."""
        ...

    def damaged_versions(self) -> Sequence[tuple[JobId, Version]]:
        """Every version with known damage, by job."""
        ...

    def remove_version(self, job: JobId, version: Version, caller: Caller) -> None:
        """Raises Busy: pinned, open, or in use by a restart."""
        ...

    def remove_job(self, job: JobId, caller: Caller) -> None:
        """Remove an ended job without versions.  Raises Busy, NotEmpty."""
        ...

    def removed_jobs(self) -> Sequence[RemovedJob]:
        """Removed jobs that can be brought back.  Raises Corrupt, Degraded."""
        ...

    def undelete_job(self, job: JobId, caller: Caller) -> None:
        """Bring a removed job back, its versions pinned.

        Raises NotFound, NotAuthorised, QuotaExceeded, StoreFull, Degraded.
        """
        ...

    def note_damage(self, damage: Damage) -> None:
        """A reader found damage: record, change the version's state, tell subscribers."""
        ...

    async def refresh_blockers(self, job: JobId) -> None:
        """Bring `Job.blockers` up to date, unless an operation is under way."""
        ...

    async def processes(self, job: JobId) -> Sequence[Process]:
        """Processes of a running job (for ``jobinfo.xml``); empty when it does not run."""
        ...

    def listed_versions(self, job: JobId) -> AsyncIterator[Sequence[Version]]:
        """Yield a job's versions, some at a time, so that others get their turn between.

        Before, what `Store.summaries` knows of them is brought up to date, as far as a second goes;
        the rest is done in the background.
        """
        ...

    def checkpointers(self) -> Mapping[str, Availability]:
        """What each checkpointer here can do, by name."""
        ...

    def node_name(self) -> str:
        """The node the service runs on."""
        ...

    def store_directory(self) -> str:
        """Where the store is."""
        ...

    def health(self) -> Sequence[str]:
        """One sentence per trouble; empty = ok."""
        ...

    def usage(self) -> Usage:
        """Space of the store."""
        ...

    def levels(self) -> Mapping[str, int]:
        """Queues, and what the collector and the scrub do, for ``ctl/stat`` and ``ctl/metrics``."""
        ...

    def stop_times(self) -> Histogram:
        """How long jobs stood still for the versions that this service took."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Flat counters of the service for ``ctl/stat``, ``ctl/events``, ``ctl/metrics``."""
        ...
