"""Starting a version: promise, session, threads, and what the version before holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Corrupt, Degraded, Exists, InvalidInput, NotFound
from ..heap import give_back
from ..ids import JobId, Version, parse_job_id
from ..model import Head
from .claims import Claims
from .commit import Committer
from .damage import DamageBook
from .dedup import Deduplicator, Known
from .hash_ring import HashWorker, RingHashing
from .hashing import Hashing, HereHashing
from .ingest import VersionIngest
from .manifest import make_known
from .pack_format import Footer
from .packs import PACK_PAGES_MAX, PackSet, failure_of
from .pages import HASH_SIZE, page_count
from .pipeline import WorkThread
from .pipes import Pipes
from .sessions import Session, begin_session, end_session
from .space import Space
from .superblock import Superblock
from .syscalls import Syscalls
from .versions import Versions
from .volume import LocalVolume


@dataclass(frozen=True, slots=True)
class Guard:
    """What the collector must respect while a version is being written."""

    session_id: str
    epoch: int
    manifests: frozenset[str]  # whose pages it may refer to


class Writers:
    """Everything that versions being written share."""

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        clock: Callable[[], int],
        *,
        volume: LocalVolume,
        versions: Versions,
        damage: DamageBook,
        hash_worker: bool,
        pack_pages: int = PACK_PAGES_MAX,
    ) -> None:
        self.space = Space(volume)
        self.degraded = ""  # one sentence once the disk failed twice
        self._block, self._calls, self._clock = block, calls, clock
        self._volume, self._versions, self._damage = volume, versions, damage
        self._threads: tuple[WorkThread, WorkThread] | None = None
        self._pack_pages = pack_pages
        self._hash_worker = HashWorker() if hash_worker else None
        self._pipes = Pipes()
        self._running: dict[tuple[JobId, Version], VersionIngest] = {}
        self._guards: dict[tuple[JobId, Version], Guard] = {}
        self.epoch = block.epoch  # raised by the collector
        self.claims = Claims()

    def degrade(self, reason: str) -> None:
        """Make the store read-only until it is opened again.  Any thread."""
        self.degraded = self.degraded or reason

    def refuse(self) -> None:
        """Raise Degraded when the store is read-only."""
        if self.degraded:
            raise Degraded(f"the store is read-only: {self.degraded}")

    def begin(
        self, job: JobId, version: Version, *, expect_bytes: int, family: Sequence[JobId]
    ) -> VersionIngest:
        """See Store.begin."""
        self.refuse()
        parse_job_id(job)
        if version < 1 or expect_bytes < 0:
            raise InvalidInput("versions count from 1, sizes from 0")
        key = (job, version)
        if version in self._versions.versions(job) or key in self._running:
            raise Exists(f"{job} has a version {version} already")
        self.space.check(expect_bytes)
        session = self._begin_session(job, version, expect_bytes)
        hashing, writing = self._work_threads()
        packs = PackSet(
            self._volume,
            self._calls,
            bytes.fromhex(session.session_id),
            writing.submit,
            self.degrade,
            self._pack_pages,
        )
        try:
            promise = self.space.promise(expect_bytes, lambda: packs.written_bytes)
        except BaseException:
            end_session(self._block.directory, self._calls, session.session_id)
            raise
        source = self._find_parent(job, family)
        manifests = {file.manifest.partition(":")[0] for file in source.files} if source else ()
        self._guards[key] = Guard(session.session_id, session.epoch, frozenset(manifests))
        self._running[key] = VersionIngest(
            job,
            version,
            packs=packs,
            dedup=Deduplicator(packs, self._block.page_seed),
            promise=promise,
            committer=self._committer(packs, session),
            hasher=self._hasher(),
            hashing=hashing,
            writing=writing,
            pipes=self._pipes,
            load_known=lambda: self._load_known(source, job),
            refuse=self.refuse,
            ended=lambda head: self._ended(key, head),
        )
        return self._running[key]

    def guards(self) -> dict[tuple[JobId, Version], Guard]:
        """Return what versions being written rely on."""
        return dict(self._guards)

    def close_threads(self) -> None:
        """End the threads once their queues are empty, then the hash worker.  May be repeated.

        Versions still being written are given up, so that no checkpointer waits at its pipe.
        """
        for version in self._running.values():
            version.cut_off()
        threads, self._threads = self._threads, None
        for thread in threads or ():
            thread.close()
        if self._hash_worker is not None:
            self._hash_worker.close()

    def _ended(self, key: tuple[JobId, Version], head: Head | None) -> None:
        self._running.pop(key, None)
        self._guards.pop(key, None)
        if head is not None:
            self._versions.add(head)
        if self._threads and not self._running:  # else a job may stand still, and wait for it
            self._threads[1].submit(give_back)

    def _begin_session(self, job: JobId, version: Version, expect_bytes: int) -> Session:
        try:
            return begin_session(
                self._block.directory,
                self._calls,
                job,
                version,
                expect_bytes=expect_bytes,
                now_ns=self._clock(),
                epoch=self.epoch,
            )
        except OSError as error:
            raise failure_of(error) from error

    def _committer(self, packs: PackSet, session: Session) -> Committer:
        return Committer(
            self._volume,
            self._calls,
            key=self._block.signing_key,
            packs=packs,
            session=session,
            clock=self._clock,
            degrade=self.degrade,
            claims=self.claims,
        )

    def _find_parent(self, job: JobId, family: Sequence[JobId]) -> Head | None:
        """Return the newest readable head of the dedup domain: this job's, else its family's."""
        for member in (job, *family):
            for number in reversed(self._versions.versions(member)):
                with contextlib.suppress(Corrupt):
                    return self._versions.head(member, number)
        return None

    def _load_known(self, source: Head | None, job: JobId) -> Known:
        """Return the pages of the version before, none when damaged.  Hashing thread."""
        if source is None or not source.files:
            return Known()
        try:
            # Not from a copy: the job stands still meanwhile.  Without it all pages are written.
            manifest = self._versions.read_manifest(source.files[0].manifest.partition(":")[0])
            pages = sum(page_count(file.size_bytes) for file in manifest.files)
            table = self._volume.get("tables", manifest.manifest_id, pages * HASH_SIZE + 1)
            # Opening a pack proves that it is sealed and whole; damage inside is the quarantine's.
            footers = [self._footer(pack) for pack in manifest.packs]
            known = make_known(
                manifest,
                table,
                [footer is not None for footer in footers],
                # what a manifest names is there; a hit on a hole would be bytes that nobody has
                {n: f.present for n, f in enumerate(footers) if f and f.present is not None},
            )
        except (Corrupt, NotFound, OSError):
            return Known()
        return Known(source.version if source.job == job else None, known.packs, known.files)

    def _footer(self, pack_id: str) -> Footer | None:
        """Return the footer of a pack that may be relied on, None of any other."""
        if not self._damage.is_sound(pack_id):
            return None
        try:
            fd, footer = self._volume.open_pack(pack_id)
        except (Corrupt, NotFound):
            return None
        self._calls.close(fd)
        return footer

    def _hasher(self) -> Hashing:
        seed = self._block.page_seed
        return RingHashing(self._hash_worker, seed) if self._hash_worker else HereHashing(seed)

    def _work_threads(self) -> tuple[WorkThread, WorkThread]:
        if self._threads is None:
            self._threads = (WorkThread("ckptfs-hash"), WorkThread("ckptfs-write"))
        return self._threads
