"""Loading one block from the packs and proving it.  Blocking; runs in worker threads.

A block is gathered from a few reads, hashed, and held against the manifest.
On a mismatch everything is read once more past the page cache; then it is
Corrupt, and the packs whose own checksums fail are named.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ..errors import Corrupt, NotFound
from .dedup import sort_places, split_reads
from .index import PACK_PAGES
from .manifest import Manifest, ManifestFile
from .pack_format import REGION, Footer
from .pages import BLOCK, BLOCK_PAGES, PAGE, U8, U32, block_digest, page_count, region_checksum
from .syscalls import Syscalls
from .volume import LocalVolume

OPEN_MAX = 256  # packs kept open
SCRATCH_MAX = 1024  # pages that a thread keeps to gather in; a block read with its gaps seldom more


class PackFile:
    """An open sealed pack.  Closed when the last thread lets go of it."""

    def __init__(self, calls: Syscalls, fd: int, footer: Footer) -> None:
        self._calls, self.fd, self.footer = calls, fd, footer

    def read_into(self, buffer: memoryview, page: int, *, fresh: bool) -> None:
        """Fill *buffer* from a page on; *fresh*: past the page cache.  Raises Corrupt."""
        try:
            if fresh:
                self._calls.forget_cache(self.fd, page * PAGE, len(buffer))
            got = self._calls.pread_into(self.fd, buffer, page * PAGE)
        except OSError as error:
            raise Corrupt(f"a pack cannot be read: {error.strerror}") from error
        if got != len(buffer):
            raise Corrupt("a pack is shorter than its manifest says")

    def is_cached(self, page: int) -> bool:
        """Whether a page can be read without waiting for the disk, as far as the kernel says."""
        return self._calls.is_cached(self.fd, page * PAGE)

    def want(self, first_page: int, last_page: int) -> None:
        """Have the kernel begin to read these pages.  Raises OSError."""
        self._calls.want_cached(self.fd, first_page * PAGE, (last_page + 1 - first_page) * PAGE)

    def bad_regions(self, first_page: int, last_page: int) -> bool:
        """Whether a region that holds these pages fails its checksum.  Raises Corrupt."""
        for region in range(first_page * PAGE // REGION, last_page * PAGE // REGION + 1):
            start = region * REGION
            if start >= self.footer.data_end:
                return True
            buffer = bytearray(min(REGION, self.footer.data_end - start))
            self.read_into(memoryview(buffer), start // PAGE, fresh=True)
            if region_checksum(buffer) != self.footer.regions[region]:
                return True
        return False

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self._calls.close(self.fd)


class PackFiles:
    """The packs that are open for reading.  Thread safe."""

    def __init__(self, volume: LocalVolume, calls: Syscalls) -> None:
        self._volume, self._calls = volume, calls
        self._open: OrderedDict[str, PackFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pack_id: str) -> PackFile:
        """Return an open pack, proved to be sealed and the one of that name.  Raises Corrupt."""
        with self._lock:
            if (pack := self._open.get(pack_id)) is not None:
                self._open.move_to_end(pack_id)
                return pack
        try:
            pack = self.open_pack(pack_id)
        except NotFound as error:
            raise Corrupt(str(error)) from error
        with self._lock:
            self._open[pack_id] = pack
            while len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)
        return pack

    def peek(self, pack_id: str) -> PackFile | None:
        """Return a pack that is open, without waiting for a disk."""
        with self._lock:
            return self._open.get(pack_id)

    def open_pack(self, pack_id: str) -> PackFile:
        """Open a pack and prove that it is sealed.  Raises NotFound, Corrupt."""
        fd, footer = self._volume.open_pack(pack_id)
        return PackFile(self._calls, fd, footer)

    def drop(self, pack_id: str) -> None:
        """Forget an open pack, so that the next use proves it again."""
        with self._lock:
            self._open.pop(pack_id, None)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._open.clear()


class PackSource(Protocol):
    """Where a loader gets its packs.  Thread safe."""

    def get(self, pack_id: str) -> PackFile:
        """Return an open pack, proved to be sealed and the one of that name.  Raises Corrupt."""
        ...

    def drop(self, pack_id: str) -> None:
        """Have the next use prove the pack again."""
        ...


class BlockLoader:
    """Verified blocks out of packs."""

    def __init__(self, packs: PackSource) -> None:
        self._packs = packs
        self._mine = threading.local()
        self.rescue: Callable[[Manifest, ManifestFile, int], memoryview | None] | None = None

    def load(
        self, manifest: Manifest, file: ManifestFile, block: int, *, fresh: bool = False
    ) -> memoryview:
        """Return the bytes of a block, proved.  *fresh*: from the disk, not the page cache.

        Raises Corrupt after a second try, when no copy has it either (`rescue`).
        """
        try:
            return self._load(manifest, file, block, fresh=fresh)
        except Corrupt:
            for name in self._packs_of(manifest, file, block):
                self._packs.drop(name)
        try:
            return self._load(manifest, file, block, fresh=True)
        except Corrupt:
            rescued = self.rescue(manifest, file, block) if self.rescue else None
            if rescued is None:
                raise
            return rescued

    def prime(self, manifest: Manifest, file: ManifestFile, block: int) -> None:
        """Have the kernel begin to read what a block is made of.  Raises Corrupt, OSError.

        Where its first and last page are in the page cache already, so is all as a rule.
        """
        places = self._places(file, block)
        ends = [int(place) for place in (places.min(), places.max()) if place]
        packs = [self._packs.get(manifest.packs[place // PACK_PAGES]) for place in ends]
        there = zip(packs, ends, strict=True)
        if all(pack.is_cached(place % PACK_PAGES) for pack, place in there):
            return
        for run in split_reads(sort_places(places)):
            if len(run):
                first, last = int(run[0]), int(run[-1])
                pack = self._packs.get(manifest.packs[first // PACK_PAGES])
                pack.want(first % PACK_PAGES, last % PACK_PAGES)

    def suspects(self, manifest: Manifest, file: ManifestFile, block: int) -> list[str]:
        """Return the packs of a bad block that fail their own checksums, or are missing."""
        bad: list[str] = []
        for run in split_reads(sort_places(self._places(file, block))):
            name = manifest.packs[int(run[0]) // PACK_PAGES]
            first, last = int(run[0]) % PACK_PAGES, int(run[-1]) % PACK_PAGES
            try:
                if self._packs.get(name).bad_regions(first, last):
                    bad.append(name)
            except Corrupt:
                bad.append(name)
        return sorted(set(bad))

    def _places(self, file: ManifestFile, block: int) -> U32:
        return file.places[block * BLOCK_PAGES : (block + 1) * BLOCK_PAGES]

    def _packs_of(self, manifest: Manifest, file: ManifestFile, block: int) -> Sequence[str]:
        numbers = np.unique(sort_places(self._places(file, block)) // PACK_PAGES)
        return [manifest.packs[int(number)] for number in numbers]

    def _load(
        self, manifest: Manifest, file: ManifestFile, block: int, *, fresh: bool
    ) -> memoryview:
        size = min(BLOCK, file.size_bytes - block * BLOCK)
        rows: U8 = np.empty((page_count(size), PAGE), dtype=np.uint8)
        self._gather(manifest, self._places(file, block), rows, fresh=fresh)
        data = rows.reshape(-1).data[:size]
        if block_digest(data) != file.digest(block):
            raise Corrupt(f"block {block} does not match its hash")
        return data

    def _gather(self, manifest: Manifest, places: U32, rows: U8, *, fresh: bool) -> None:
        if places[0] != 0 and (places[1:] == places[:-1] + 1).all():  # one run: no copy
            pack = self._packs.get(manifest.packs[int(places[0]) // PACK_PAGES])
            pack.read_into(rows.reshape(-1).data, int(places[0]) % PACK_PAGES, fresh=fresh)
            return
        runs = [run for run in split_reads(sort_places(places)) if len(run)]
        counts = [int(run[-1]) - int(run[0]) + 1 for run in runs]
        read = self._scratch(1 + sum(counts))
        read[0] = 0  # row 0 is the zero page, behind it what the runs bring
        which = np.zeros(len(places), dtype=np.intp)
        row = 1
        for run, count in zip(runs, counts, strict=True):
            first, last = int(run[0]), int(run[-1])
            pack = self._packs.get(manifest.packs[first // PACK_PAGES])
            part = read[row : row + count].reshape(-1).data
            pack.read_into(part, first % PACK_PAGES, fresh=fresh)
            here = (places >= first) & (places <= last)
            which[here] = places[here].astype(np.intp) + (row - first)
            row += count
        np.take(read, which, axis=0, out=rows, mode="clip")  # "clip" writes into rows itself

    def _scratch(self, rows: int) -> U8:
        """Return memory for so many pages, the same for every block of a thread: never cold."""
        kept: U8 | None = getattr(self._mine, "pages", None)
        if kept is not None and len(kept) >= rows:
            return kept[:rows]
        pages: U8 = np.empty((rows, PAGE), dtype=np.uint8)
        if rows <= SCRATCH_MAX:
            self._mine.pages = pages
        return pages
