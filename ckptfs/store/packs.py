"""The open pack of one version: pages go in, a sealed pack comes out.

`PackSet` belongs to one ingest.  The hashing thread puts pages in (`room`,
`used`), full buffers go to the writing thread (`WriterThread`), which appends
them with O_DIRECT in pieces of up to 4 MiB out of buffers made once.  Sealing
is footer, fdatasync, rename, fsync of the directory.

A failed fdatasync poisons the file: the kernel marks pages clean that never
reached the disk, so asking again would lie.  The bytes are read back past the
cache, proved against the region checksums kept in memory, and written to a new
file, once.  When that fails too the error says so and the store degrades.
"""

from __future__ import annotations

import contextlib
import mmap
import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import CkptfsError, Degraded, StoreFull
from . import layout
from .index import PACK_PAGES, PACKS_MAX
from .pack_format import REGION, Footer, encode_footer, encode_header
from .pages import PAGE, U8, region_checksum
from .syscalls import Syscalls, is_full
from .volume import LocalVolume

PIECE = 4 << 20  # one pwrite; 1, 4 and 8 MiB measured alike (3 GB/s), 4 leaves the writer slack
PIECE_PAGES = PIECE // PAGE
PACK_PAGES_MAX = PACK_PAGES  # 256 MiB; the unit of replication, repair and deletion
BUFFERS = 3  # per version: one filling, one being written, one ready


class Piece:
    """A page-aligned buffer of `PIECE` bytes, touched once so that it never faults again."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, PIECE)
        self.view = memoryview(self._map)
        self.pages: U8 = np.frombuffer(self._map, dtype=np.uint8).reshape(PIECE_PAGES, PAGE)
        self.pages[:] = 0


@dataclass(slots=True)
class OpenPack:
    """A pack being written.  The writing thread owns everything but *number*."""

    number: int  # within its version
    path: Path
    fd: int
    written: int = 0  # bytes
    regions: list[bytes] = field(default_factory=list[bytes])
    pack_id: str = ""  # "" until sealed


class PackSet:
    """All packs that one version writes.  Pages in from one thread, bytes out in another."""

    def __init__(
        self,
        volume: LocalVolume,
        calls: Syscalls,
        session: bytes,
        submit: Callable[[Callable[[], None]], None],
        degrade: Callable[[str], None],
        pages: int = PACK_PAGES_MAX,
    ) -> None:
        self._pages_max = pages  # of one pack, its header included
        self._volume = volume
        self._calls = calls
        self._session = session
        self._submit = submit
        self._degrade = degrade
        self._number = 0
        self._pages_in_pack = 0
        self._piece: Piece | None = None
        self._filled = 0  # pages of the current piece
        self._free: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._made = 0
        self.packs: list[OpenPack] = []
        self.failure: CkptfsError | None = None
        self.written_bytes = 0  # by the writing thread, footers included
        self.taken_bytes = 0  # by the hashing thread

    # -- the hashing thread ---------------------------------------------------

    def make_pieces(self, expect_bytes: int) -> None:
        """Make the buffers that so many bytes need: 4 ms each, before the job stands still."""
        while self._made < min(BUFFERS, -(-expect_bytes // PIECE)):
            self._made += 1
            self._free.put(Piece())

    def number_from(self, first: int) -> None:
        """Number the packs from *first* on: lower numbers are those of the version before."""
        self._number = first

    def room(self, count: int) -> tuple[U8, int]:
        """Return (rows to fill, place of the first): between one and *count* pages.

        May wait for the writing thread: that is the back-pressure.  Call `used` after filling.
        """
        if self._pages_in_pack == self._pages_max:
            self._end_pack()
        if self._piece is None:
            self._piece = self._next_piece()
            self._filled = 0
        if self._pages_in_pack == 0:
            self._start_pack()
        take = min(count, PIECE_PAGES - self._filled, self._pages_max - self._pages_in_pack)
        rows = self._piece.pages[self._filled : self._filled + take]
        return rows, self._number * PACK_PAGES + self._pages_in_pack

    def used(self, count: int) -> None:
        """Say that *count* rows of the last `room` are filled."""
        self._filled += count
        self._pages_in_pack += count
        self.taken_bytes += count * PAGE
        if self._filled == PIECE_PAGES:
            self._flush()

    def finish(self) -> None:
        """Send the open pack away to be written and sealed.  The pack set takes no more pages."""
        if self._pages_in_pack:
            self._end_pack()

    def _next_piece(self) -> Piece:
        if self._free.empty() and self._made < BUFFERS:
            self._made += 1
            return Piece()
        return self._free.get()

    def _start_pack(self) -> None:
        if self._number >= PACKS_MAX:
            raise StoreFull("a version cannot refer to more than 65536 packs")
        assert self._piece is not None
        name = f"{self._session.hex()}.{self._number}"
        pack = OpenPack(self._number, self._volume.directory / layout.OPEN_PACKS / name, -1)
        self.packs.append(pack)
        self._piece.view[:PAGE] = encode_header(self._session)  # a pack starts with its own piece
        self._filled = 1
        self._pages_in_pack = 1

    def _flush(self) -> None:
        if self._piece is None or not self._filled:
            return
        pack, piece, size = self.packs[-1], self._piece, self._filled * PAGE
        self._submit(lambda: self._guard(lambda: self._write(pack, piece, size), piece))
        self._piece = None

    def _end_pack(self) -> None:
        self._flush()
        pack = self.packs[-1]
        self._submit(lambda: self._guard(lambda: self._seal(pack)))
        self._number += 1
        self._pages_in_pack = 0

    # -- the writing thread ---------------------------------------------------

    def _guard(self, step: Callable[[], None], piece: Piece | None = None) -> None:
        """Run one step unless one failed before; keep the first failure; give the buffer back."""
        try:
            if self.failure is None:
                step()
        except OSError as error:
            self.failure = failure_of(error)
        except CkptfsError as error:
            self.failure = error
        except BaseException as error:  # a bug: this version fails, the thread serves the others
            self.failure = failed_inside(error)
        finally:
            if piece is not None:
                self._free.put(piece)

    def _write(self, pack: OpenPack, piece: Piece, size: int) -> None:
        if pack.fd < 0:
            pack.fd = self._calls.create(pack.path, direct=True)
        self._calls.pwrite(pack.fd, piece.view[:size], pack.written)
        for at in range(0, size, REGION):
            pack.regions.append(region_checksum(piece.view[at : min(at + REGION, size)]))
        pack.written += size
        self.written_bytes += size

    def _seal(self, pack: OpenPack) -> None:
        footer = Footer(self._session, pack.number, pack.written, tuple(pack.regions))
        pack_id, tail = encode_footer(footer)
        try:
            self._append(pack.fd, tail, pack.written)
            self._calls.fdatasync(pack.fd)
        except OSError as error:
            if is_full(error):
                raise
            self._rewrite(pack, tail, error)
        self._close(pack)
        self._calls.chmod(pack.path, 0o400)
        self._volume.adopt(pack.path, pack_id)
        self.written_bytes += len(tail)
        pack.pack_id = pack_id

    def _append(self, fd: int, tail: bytes, offset: int) -> None:
        aligned = mmap.mmap(-1, len(tail))  # O_DIRECT wants an aligned buffer
        aligned[:] = tail
        self._calls.pwrite(fd, memoryview(aligned), offset)

    def _rewrite(self, pack: OpenPack, tail: bytes, first: OSError) -> None:
        """Write the pack's proved bytes to a new file.  Raises Degraded when that fails too."""
        fresh = pack.path.with_name(pack.path.name + ".again")
        try:
            fd = self._calls.create(fresh, direct=True)
            try:
                self._copy_regions(pack, fd)
                self._append(fd, tail, pack.written)
                self._calls.fdatasync(fd)
            except BaseException:
                self._calls.close(fd)
                raise
        except OSError as error:
            with contextlib.suppress(OSError):
                self._calls.unlink(fresh)
            self._degrade(
                f"the disk failed twice to keep a pack: {first.strerror}, {error.strerror}"
            )
            raise Degraded(
                f"the store is read-only: the disk does not keep what is written: {error}"
            ) from first
        poisoned = pack.path
        self._close(pack)
        pack.path, pack.fd = fresh, fd
        self._calls.unlink(poisoned)

    def _copy_regions(self, pack: OpenPack, fd: int) -> None:
        piece = Piece()
        at = 0
        for checksum in pack.regions:
            size = min(REGION, pack.written - at)
            view = piece.view[:size]
            self._calls.forget_cache(pack.fd, at, size)
            if (
                self._calls.pread_into(pack.fd, view, at) != size
                or region_checksum(view) != checksum
            ):
                raise OSError(Degraded.errno, "a pack lost bytes before it was sealed")
            self._calls.pwrite(fd, view, at)
            at += size

    def _close(self, pack: OpenPack) -> None:
        fd, pack.fd = pack.fd, -1
        if fd >= 0:
            self._calls.close(fd)

    def release(self) -> None:
        """Let go of the buffers, 12 MiB.  Only while nothing is queued; no page comes any more."""
        self._piece = None
        self._free = queue.SimpleQueue()

    def discard(self) -> None:
        """Remove every file of this set, sealed ones too.  Only while nothing is queued."""
        for pack in self.packs:
            with contextlib.suppress(OSError):
                self._close(pack)
            with contextlib.suppress(OSError):
                self._calls.unlink(pack.path)
            if pack.pack_id:
                with contextlib.suppress(OSError):
                    self._volume.delete("packs", pack.pack_id)


def failed_inside(error: BaseException) -> CkptfsError:
    """Return the failure of a version that met a bug, which stays its cause."""
    failure = CkptfsError(f"the store failed inside: {error!r}")
    failure.__cause__ = error
    return failure


def failure_of(error: OSError) -> CkptfsError:
    """Return what a failed system call means for the version being written."""
    if is_full(error):
        return StoreFull("the store's disk is full; remove versions or enlarge it")
    return Degraded(f"the store's disk failed: {error.strerror}")
