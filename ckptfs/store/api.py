"""What the rest of ckptfs sees of the store.  Concrete classes are in `store.store`.

Everything here runs on the trio thread.  Plain functions do not block for
longer than a small file's I/O; what moves bulk or waits for the disk is async.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..ids import JobId, UnitName, Version
from ..model import Head, Initiator, Purpose
from ..model import Protocol as CheckpointProtocol
from .ingest_api import Ingest

TRASH_S = 24 * 3600  # seconds for which a version that somebody removed can be brought back


@dataclass(frozen=True, slots=True)
class Usage:
    """Space, in bytes.  *total* and *free* are of the file system below the local volume."""

    total_bytes: int
    free_bytes: int
    reserved_bytes: int  # promised to running checkpoints
    stored_bytes: int  # packs and manifests
    logical_bytes: int  # sum over all versions
    versions: int
    packs: int
    is_counting: bool = False  # the store was opened just now: sums may still grow
    hollow_bytes: int = 0  # dead pages that packs were written anew without; not in stored_bytes


@dataclass(frozen=True, slots=True)
class Alone:
    """What one version alone holds, as long as its neighbours in the job are these."""

    size_bytes: int
    before: Version | None
    after: Version | None


@dataclass(frozen=True, slots=True)
class Account:
    """What sums and listings need of a version's head.  Sizes in bytes."""

    logical_bytes: int
    stored_bytes: int  # what it put into the store
    purpose: Purpose
    initiator: Initiator
    parent: Version | None
    committed_ns: int  # since the epoch
    frozen_usec: int = 0
    files: int = 0
    protocol: CheckpointProtocol = CheckpointProtocol.COORDINATED
    keep: bool = False
    note: str = ""
    alone: Alone | None = None  # not of the head: counted when somebody asks


Pause = Callable[[], Awaitable[None]]  # returns when work may go on
Pace = Callable[[int], Awaitable[None]]  # bytes about to be read; returns when they may be


class Reader(Protocol):
    """A committed file, every byte verified against its block hash when it is loaded."""

    size_bytes: int

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return the bytes, read-only.  Raises Corrupt naming file and block; never wrong bytes."""
        ...

    def close(self) -> None:
        """Let go of the file.  May be repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing found wrong: which file and block of which version, as a sentence."""

    job: JobId
    version: Version
    unit: UnitName
    name: str
    block: int  # of 1 MiB; -1: manifest or head
    reason: str

    def __str__(self) -> str:
        place = f"{self.unit}/{self.name}" if self.unit else self.name
        return f"{place}, block {self.block}" if self.block >= 0 else f"{place}: {self.reason}"


class Summaries(Protocol):
    """What is known of versions without reading anything: for listings of 10 000 of them."""

    def account(self, job: JobId, version: Version) -> Account | None:
        """Return the figures of a version, None while they, or it, cannot be told."""
        ...

    def moment(self) -> object:
        """Return what is equal as long as no version comes and no damage is found or cleared."""
        ...

    def unread(self) -> int:
        """How many heads have not been read since the store was opened."""
        ...

    def alone_bytes(self, job: JobId, version: Version) -> int | None:
        """Return `Store.unique_bytes` if it has been counted, 0 where it cannot be."""
        ...

    async def count_alone(
        self, job: JobId, version: Version | None = None, pace: Pause | None = None
    ) -> None:
        """Count it of one version, or of all of a job, in worker threads; *pace* before each.

        May be cancelled: what was counted stays known.
        """
        ...


class Store(Protocol):
    """The store as a whole.  `store.store.open_store(directory, create=...)` makes one."""

    store_id: str

    @property
    def summaries(self) -> Summaries:
        """What is known of versions without reading anything."""
        ...

    def degraded(self) -> str:
        """Return one sentence why the store is read-only, or nothing."""
        ...

    def usage(self) -> Usage:
        """Return how the space is used, at once; the first call counts, unless `count` does."""
        ...

    async def count(self) -> None:
        """Count everything once, in worker threads; call when the service starts."""
        ...

    def is_counted(self) -> bool:
        """Whether every head has been looked at: what `totals` says is all there is."""
        ...

    async def wait_counted(self) -> None:
        """Return when `is_counted`."""
        ...

    def totals(self, job: JobId) -> Mapping[tuple[Purpose, Initiator], tuple[int, int]]:
        """Return (versions, logical bytes) of a job's counted heads, by purpose and initiator."""
        ...

    def account(self, job: JobId, version: Version) -> Account:
        """Return the figures of a version.  Raises NotFound, Corrupt."""
        ...

    async def added_bytes(self, job: JobId) -> Mapping[Version, int]:
        """Return how many bytes each version adds to those before it that are still there.

        Their sum is what the job holds in the store.  Of a clone's first version the pages of
        the job it was cloned from do not count.
        """
        ...

    def jobs(self) -> Sequence[JobId]:
        """Jobs that have at least one head."""
        ...

    def versions(self, job: JobId) -> Sequence[Version]:
        """Committed versions, ascending."""
        ...

    def head(self, job: JobId, version: Version) -> Head:
        """Return the verified head.  Raises NotFound, Corrupt."""
        ...

    def begin(
        self, job: JobId, version: Version, *, expect_bytes: int, family: Sequence[JobId] = ()
    ) -> Ingest:
        """Start a version: session, reservation.

        *family*: jobs this one was cloned from, the dedup domain when it has no version itself.
        Raises StoreFull (ENOSPC) when *expect_bytes* cannot be promised, Degraded.
        """
        ...

    async def ready(self, job: JobId, version: Version) -> None:
        """Have at hand what `open` needs, from a copy where it is damaged here; call it before.

        Raises NotFound, Corrupt (the head).
        """
        ...

    def open(self, job: JobId, version: Version, unit: UnitName, name: str) -> Reader:
        """Open one committed file.  Raises NotFound, Corrupt (manifest unreadable)."""
        ...

    async def sums(self, job: JobId, version: Version) -> bytes:
        """Return SHA256SUMS, ``<hex>  ./<path>`` lines: computed when first asked, then kept."""
        ...

    def sums_size(self, job: JobId, version: Version) -> int:
        """Return the size of SHA256SUMS without computing it."""
        ...

    async def verify(
        self, job: JobId, version: Version, *, pace: Pace | None = None
    ) -> Sequence[Damage]:
        """Read and hash everything of a version; progress through `verify_progress`.

        *pace* is awaited before each block; such a verification shows no progress and takes
        no turn from the others.  Raises NotFound, and what *pace* raises.
        """
        ...

    async def prove(
        self, job: JobId, version: Version, *, up_to_bytes: int = 0
    ) -> Sequence[Damage]:
        """Read and hash everything once as readers get it, from the page cache where it is there.

        What a restart needs before it begins; `verify` says what the disk holds.  With
        *up_to_bytes* larger files are left to those who will read them.  Progress
        through `verify_progress`.  May be cancelled.  Raises NotFound.
        """
        ...

    def quarantined(self) -> int:
        """How many packs are in quarantine: damaged, so nothing new relies on them."""
        ...

    def scrub_record(self) -> bytes:
        """Return what `keep_scrub_record` kept, nothing when it cannot be read."""
        ...

    def keep_scrub_record(self, document: bytes) -> None:
        """Keep how far the scrub is, durably.  Raises StoreFull, Degraded."""
        ...

    def verify_progress(self, job: JobId, version: Version) -> float | None:
        """0..1 while a verification of this version runs, else None."""
        ...

    def damage(self, job: JobId, version: Version) -> Sequence[Damage]:
        """What is known to be wrong with a version (from reads and verifications)."""
        ...

    def unique_bytes(self, job: JobId, version: Version) -> int:
        """Physical bytes only this version holds (its st_blocks)."""
        ...

    def pinned(self, job: JobId, version: Version) -> bool:
        """Whether the version may not be removed.  Raises NotFound."""
        ...

    def pin(self, job: JobId, version: Version, on: bool) -> None:
        """Durable marker beside the head."""
        ...

    def verified_ns(self, job: JobId, version: Version) -> int:
        """When every byte was last read and found right; 0 never."""
        ...

    def remove(self, job: JobId, version: Version, *, trash_s: int = TRASH_S) -> None:
        """Move the head to the trash, from where it can be brought back for *trash_s* seconds.

        The version is gone from view, its bytes wait for the collector.
        Raises NotFound, Busy (pinned, or a reader has it open), Degraded.
        """
        ...

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        """Return (version, when it goes for good in seconds since the epoch).  Raises Corrupt."""
        ...

    def trashed_head(self, job: JobId, version: Version) -> Head:
        """Return the verified head of a removed version.  Raises NotFound, Corrupt, Degraded."""
        ...

    def undelete(self, job: JobId, version: Version) -> None:
        """Bring a removed version back.

        Raises NotFound (not in the trash), Corrupt (not whole any more), StoreFull, Degraded.
        """
        ...

    def close(self) -> None:
        """End the threads and let the store go.  Abort what is being written first."""
        ...
