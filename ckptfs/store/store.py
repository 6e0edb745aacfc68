"""The store put together: what `store.api.Store` promises, out of the steps beside this file.

All of it runs on the trio thread; bulk work is handed to the hashing, writing
and reading threads, durability to worker threads.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from ..errors import Busy, Corrupt
from ..ids import JobId, UnitName, Version
from ..model import FileEntry, Head
from . import layout
from .accounts import Kind
from .api import TRASH_S, Account, Damage, Pace, Usage
from .blocks import BlockLoader, PackFiles
from .copies import Copies
from .damage import DamageBook, encode_damage
from .garbage import Garbage
from .ingest import VersionIngest
from .packs import PACK_PAGES_MAX, failure_of
from .read_ring import ReadRing
from .reader import BlockCache, FileReader
from .sessions import sweep_sessions
from .summaries import Summaries
from .superblock import Superblock, create_store, open_superblock
from .syscalls import Syscalls, write_durably
from .trash import Trash
from .used import Used
from .verification import decode_sums, encode_sums, make_sums, sums_length
from .verified import Verified
from .verifier import Verifier
from .versions import DAMAGE, PIN, SIDECAR_MAX, SUMS, Versions, find_file
from .volume import LocalVolume
from .writers import Writers


def open_store(
    directory: Path,
    *,
    create: bool,
    clock: Callable[[], int] = time.time_ns,
    calls: Syscalls | None = None,
    hash_worker: bool = False,
    pack_pages: int = PACK_PAGES_MAX,
) -> LocalStore:
    """Open the store in *directory*; with *create* make one where there is none.

    *clock*: nanoseconds since the epoch; *hash_worker*: hash in a process of its own;
    *pack_pages*: of 4 KiB in one pack at most, its header included.
    Raises NotFound (no store), Busy (open elsewhere), Corrupt, CannotRun (unknown format), NotEmpty
    (something else lies there), StoreFull, Degraded.
    """
    calls = calls or Syscalls()
    try:
        if create and not (directory / layout.FORMAT).exists():
            create_store(directory, calls)
        block = open_superblock(directory, calls, lock=True)
    except OSError as error:
        raise failure_of(error) from error
    try:
        return LocalStore(block, calls, clock, hash_worker=hash_worker, pack_pages=pack_pages)
    except BaseException as error:
        block.unlock()
        if isinstance(error, OSError):
            raise failure_of(error) from error
        raise


class LocalStore:
    """See Store."""

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        clock: Callable[[], int],
        *,
        hash_worker: bool = False,
        pack_pages: int = PACK_PAGES_MAX,
    ) -> None:
        self.store_id = block.store_id
        self._block, self._calls, self._clock = block, calls, clock
        self._volume = LocalVolume(block.directory, calls)
        self._damage = DamageBook(block.directory, calls)
        self._versions = Versions(block, self._volume, calls)
        for job, version in self._versions.all_marked(DAMAGE):
            self._damage.recall(job, version, self._versions.read_marker(job, version, DAMAGE))
        self._writers = Writers(
            block,
            calls,
            clock,
            volume=self._volume,
            versions=self._versions,
            damage=self._damage,
            hash_worker=hash_worker,
            pack_pages=pack_pages,
        )
        with contextlib.suppress(OSError):  # a disk that takes no changes can still be read
            sweep_sessions(block.directory, calls)
        self._packs = PackFiles(self._volume, calls)
        self.trash = Trash(block, calls, volume=self._volume, versions=self._versions)
        self.garbage = Garbage(
            block,
            calls,
            volume=self._volume,
            versions=self._versions,
            writers=self._writers,
            damage=self._damage,
            packs=self._packs,
            trash=self.trash,
        )
        self._loader = BlockLoader(self._packs)
        self.copies = Copies(
            block,
            calls,
            versions=self._versions,
            damage=self._damage,
            packs=self._packs,
            loader=self._loader,
        )
        self._cache = BlockCache(self._loader, ReadRing(self._packs) if hash_worker else None)
        self._readers: Counter[tuple[JobId, Version]] = Counter()
        self._verifier = Verifier(self._versions, self._loader, self._damage, self._cache)
        self._summing: dict[tuple[JobId, Version], trio.Lock] = {}
        self.summaries = Summaries(self._versions, self._volume, self._damage)
        self._verified = Verified(self._versions)
        self._used = Used(self._volume, self._versions, lambda: self._writers.space.reserved_bytes)
        self._closed = False

    # -- the whole ------------------------------------------------------------

    def degraded(self) -> str:
        """See Store."""
        return self._writers.degraded

    def usage(self) -> Usage:
        """See Store."""
        return self._used.usage()

    async def count(self) -> None:
        """See Store.  Raises OSError."""
        await self._used.count()
        await self._verified.learn()

    def is_counted(self) -> bool:
        """See Store."""
        return self._used.is_counted()

    async def wait_counted(self) -> None:
        """See Store."""
        await self._used.wait_counted()

    def totals(self, job: JobId) -> Mapping[Kind, tuple[int, int]]:
        """See Store."""
        return self._used.totals(job)

    def account(self, job: JobId, version: Version) -> Account:
        """See Store."""
        return self._used.account(job, version)

    async def added_bytes(self, job: JobId) -> Mapping[Version, int]:
        """See Store."""
        return await self._used.added_bytes(job)

    def jobs(self) -> Sequence[JobId]:
        """See Store."""
        return self._versions.jobs()

    def versions(self, job: JobId) -> Sequence[Version]:
        """See Store."""
        return self._versions.versions(job)

    def head(self, job: JobId, version: Version) -> Head:
        """See Store."""
        return self._versions.head(job, version)

    def begin(
        self, job: JobId, version: Version, *, expect_bytes: int, family: Sequence[JobId] = ()
    ) -> VersionIngest:
        """See Store.  Raises Exists when the version is committed or being written."""
        return self._writers.begin(job, version, expect_bytes=expect_bytes, family=family)

    def close(self) -> None:
        """See Store.  Call `abort` on what is being written before.  May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._writers.close_threads()
        self._cache.close()
        self._packs.clear()
        self.copies.close()
        try:
            if not self.degraded():
                self._versions.index_keeper()()
        finally:
            self._block.unlock()

    # -- reading --------------------------------------------------------------

    async def ready(self, job: JobId, version: Version) -> None:
        """See Store.  Raises NotFound, Corrupt (the head)."""
        try:
            head = self.head(job, version)
        except Corrupt:
            head = await self.copies.fetch_head(job, version)
        if wanted := self._versions.manifest_wanted(head):
            with contextlib.suppress(Corrupt):  # said by who opens it
                load = self._versions.load_manifest
                self._versions.take_in(await trio.to_thread.run_sync(load, wanted))

    def open(self, job: JobId, version: Version, unit: UnitName, name: str) -> FileReader:
        """See Store."""
        head = self.head(job, version)
        index = find_file(head, unit, name)
        try:
            manifest = self._versions.manifest(head)
            if manifest is None or index >= len(manifest.files):
                raise Corrupt(f"the manifest of version {version} of {job} holds no {name}")
        except Corrupt as error:
            self._damage.add(Damage(job, version, unit, name, -1, str(error)))
            self._keep_damage(job, version)
            raise
        self._readers[job, version] += 1
        entry = head.files[index]

        def damaged(block: int, reason: str) -> str:
            return self._note_damage(head, entry, index, block, reason)

        def closed() -> None:
            self._readers[job, version] -= 1

        return FileReader(self._cache, manifest, index, damaged=damaged, closed=closed)

    def _note_damage(
        self, head: Head, entry: FileEntry, index: int, block: int, reason: str
    ) -> str:
        damage = Damage(head.job, head.version, entry.unit, entry.name, block, reason)
        known = damage in self._damage.of(head.job, head.version)
        self._damage.add(damage)
        if not known:
            self._keep_damage(head.job, head.version)
        if not known and (manifest := self._versions.manifest(head)) is not None:
            for pack in self._loader.suspects(manifest, manifest.files[index], block):
                self._damage.quarantine(pack)
        return f"{damage}: {reason}"

    def _keep_damage(self, job: JobId, version: Version) -> None:
        """Remember what is known of a version over a restart, as far as the disk takes it."""
        found = self._damage.of(job, version)
        with contextlib.suppress(OSError):
            if found and version in self.versions(job):
                self._versions.mark(job, version, DAMAGE, encode_damage(found))
            elif not found:
                self._versions.unmark(job, version, DAMAGE)

    async def sums(self, job: JobId, version: Version) -> bytes:
        """See Store.  Raises NotFound, Corrupt naming file and block."""
        head = self.head(job, version)
        async with self._summing.setdefault((job, version), trio.Lock()):
            kept = decode_sums(self._versions.read_marker(job, version, SUMS), head)
            if kept is not None:
                return kept
            await self.ready(job, version)
            manifest = self._versions.manifest(head)
            text = await trio.to_thread.run_sync(
                make_sums, head, manifest, self._loader, limiter=self._verifier.turns
            )
            if not self.degraded() and version in self.versions(job):
                with contextlib.suppress(OSError):  # a full disk: it is computed again next time
                    self._versions.mark(job, version, SUMS, encode_sums(text))
            return text

    def sums_size(self, job: JobId, version: Version) -> int:
        """See Store."""
        return sums_length(self.head(job, version))

    async def verify(
        self, job: JobId, version: Version, *, pace: Pace | None = None
    ) -> Sequence[Damage]:
        """See Store.  Raises NotFound."""
        self._versions.check_present(job, version)
        if pace is None:
            found = await self._verifier.verify(job, version)
        else:
            waiting = partial(trio.from_thread.run, pace)
            found = await self._verifier.verify_paced(job, version, waiting)
        if version not in self.versions(job):
            return []  # removed meanwhile: what was missing was taken away
        self._damage.clear(job, version)
        for damage in found:
            self._damage.add(damage)
        self._keep_damage(job, version)
        if not found and not self.degraded():
            with contextlib.suppress(OSError):
                self._verified.mark(job, version, self._clock())
        return found

    async def prove(
        self, job: JobId, version: Version, *, up_to_bytes: int = 0
    ) -> Sequence[Damage]:
        """See Store.  Raises NotFound."""
        self._versions.check_present(job, version)
        found = await self._verifier.prove(job, version, up_to_bytes=up_to_bytes)
        for damage in found:
            self._damage.add(damage)
        if found:
            self._keep_damage(job, version)
        return found

    def quarantined(self) -> int:
        """See Store."""
        return self._damage.count_quarantined()

    def scrub_record(self) -> bytes:
        """See Store."""
        with contextlib.suppress(OSError):
            return self._calls.read_file(self._block.directory / layout.SCRUB, SIDECAR_MAX)
        return b""

    def keep_scrub_record(self, document: bytes) -> None:
        """See Store."""
        self._writers.refuse()
        try:
            write_durably(self._calls, self._block.directory / layout.SCRUB, document)
        except OSError as error:
            raise failure_of(error) from error

    def verify_progress(self, job: JobId, version: Version) -> float | None:
        """See Store."""
        return self._verifier.progress(job, version)

    def damage(self, job: JobId, version: Version) -> Sequence[Damage]:
        """See Store."""
        return self._damage.of(job, version)

    def unique_bytes(self, job: JobId, version: Version) -> int:
        """See Store.  Raises NotFound, Corrupt."""
        return self.summaries.unique_bytes(job, version)

    # -- markers and removal --------------------------------------------------

    def pinned(self, job: JobId, version: Version) -> bool:
        """See Store.  Raises NotFound."""
        self._versions.check_present(job, version)
        return self._versions.marked(job, version, PIN)

    def pin(self, job: JobId, version: Version, on: bool) -> None:
        """See Store.  May be repeated.  Raises NotFound, StoreFull, Degraded."""
        self._versions.check_present(job, version)
        self._writers.refuse()
        try:
            if on and not self._versions.marked(job, version, PIN):
                self._versions.mark(job, version, PIN)
            elif not on:
                self._versions.unmark(job, version, PIN)
        except OSError as error:
            raise failure_of(error) from error

    def verified_ns(self, job: JobId, version: Version) -> int:
        """See Store.  Raises NotFound."""
        self._versions.check_present(job, version)
        return self._verified.ns(job, version)

    def remove(self, job: JobId, version: Version, *, trash_s: int = TRASH_S) -> None:
        """See Store."""
        self._versions.check_present(job, version)
        self._writers.refuse()
        if self.pinned(job, version):
            raise Busy(f"version {version} of {job} is pinned; echo 0 > pin first")
        if self._readers[job, version] > 0:
            raise Busy(f"version {version} of {job} is being read")
        try:
            self._versions.remove(job, version, expiry_ns=self._clock() + trash_s * 10**9)
        except OSError as error:
            raise failure_of(error) from error

    def trashed(self, job: JobId) -> Sequence[tuple[Version, int]]:
        """See Store."""
        return [(entry.version, entry.expires_s) for entry in self.trash.of(job)]

    def undelete(self, job: JobId, version: Version) -> None:
        """See Store."""
        self._writers.refuse()
        self.trash.bring_back(job, version)

    def trashed_head(self, job: JobId, version: Version) -> Head:
        """See Store."""
        return self.trash.head(job, version)
