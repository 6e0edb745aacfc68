"""One file on its way in: bytes → blocks → page hashes → places.

Runs in the hashing thread; the hashes themselves come from `hashing`, where a
block may still be under way while the next ones arrive.  The hash of the whole
file needs a second pass over the bytes (0.16 s per GB).  A tree over the block
digests would be free, but no command that people have could check it.

CRIU sends 1 MiB at a time, of whole pages, but seldom from the start of a block
on: a block stays where it lies, in the two writes that hold it, until it is
whole.  Only odd sizes are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .dedup import Deduplicator
from .hashing import Hashing
from .pages import BLOCK, PAGE, U8, U32, U64, Bytes
from .pipeline import Step

PART_MIN = 16 * PAGE  # smaller pieces are gathered: each costs some calls


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file once all its pages are placed.  One entry per page or block."""

    unit: str
    name: str
    size_bytes: int
    whole: bytes  # BLAKE3, as b3sum prints it
    digests: bytes  # 32 bytes per block
    hashes: Callable[[], Iterator[memoryview]]  # 16 bytes per page, in pieces; repeatable
    places: U32


class PageRows:
    """Rows of a file's pages in the index, growing in place: joining parts takes twice as much."""

    def __init__(self) -> None:
        self._rows: U32 = np.empty(0, dtype=np.uint32)
        self.pages = 0

    def append(self, rows: U32) -> None:
        """Add one row per page; copied."""
        first, self.pages = self.pages, self.pages + len(rows)
        if self.pages > len(self._rows):
            self._resize(max(self.pages, first + first // 8))
        self._rows[first : self.pages] = rows

    def finish(self) -> U32:
        """Return the rows, as long as they are, and let go of them."""
        self._resize(self.pages)
        rows, self._rows, self.pages = self._rows, np.empty(0, dtype=np.uint32), 0
        return rows

    def _resize(self, rows: int) -> None:
        self._rows.resize(rows, refcheck=False)  # nobody else has it yet


class FileStream:
    """The state of one file between two writes."""

    def __init__(
        self,
        dedup: Deduplicator,
        hashing: Hashing,
        unit: str,
        name: str,
        guard: Callable[[Step], None],
    ) -> None:
        self._dedup, self._hashing = dedup, hashing
        self._guard = guard  # does a step of this version; its failure is the version's
        self._stream = hashing.begin()
        self._before = dedup.known_file(unit, name)
        self._unit, self._name = unit, name
        self._size = 0  # bytes in finished blocks
        self._whole = b""
        self._digests: list[bytes] = []
        self._rows = PageRows()
        self._parts: list[memoryview] = []  # of the block being gathered, whole pages
        self._rest = bytearray()  # instead of parts, once there was an odd one
        self._have = 0  # bytes in either

    def feed(self, data: Bytes) -> None:
        """Take the next bytes of the file."""
        view = memoryview(data)
        while view:
            part = view[: BLOCK - self._have]
            view = view[len(part) :]
            self._have += len(part)
            if self._rest or len(part) < PART_MIN or len(part) % PAGE:
                self._rest += b"".join(self._parts)
                self._parts.clear()
                self._rest += part
            else:
                self._parts.append(part)
            if self._have == BLOCK:
                self._end_block()

    def close(self) -> None:
        """Take the end of the file."""
        if self._have:
            self._end_block()
        self._whole = self._hashing.end(self._stream)

    def record(self, unit: str, name: str) -> StoredFile:
        """Return the record of a closed file, which may have been renamed meanwhile.  Once."""
        hashes, places = self._dedup.table(self._rows.finish())
        digests = b"".join(self._digests)
        return StoredFile(unit, name, self._size, self._whole, digests, hashes, places)

    def _end_block(self) -> None:
        parts = self._parts or [memoryview(self._rest)]
        self._size += self._have
        self._parts, self._rest, self._have = [], bytearray(), 0
        self._hashing.block(self._stream, parts, self._hashed)

    def _hashed(self, rows: Sequence[U8], digests: Sequence[bytes], hashes: U64) -> None:
        self._guard(lambda: self._place(rows, digests, hashes))

    def _place(self, rows: Sequence[U8], digests: Sequence[bytes], hashes: U64) -> None:
        """Place the pages of blocks in a row.  The last page is filled up with zeros."""
        placed = self._dedup.place(rows, hashes, self._before, self._rows.pages)
        self._digests += digests
        self._rows.append(placed)
