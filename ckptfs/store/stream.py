"""One file on its way in: bytes → blocks → page hashes → places.

Runs in the hashing thread, but for the hash of the whole file: that needs a
second pass over the bytes (0.16 s per GB), which the writing thread takes, as
it waits for the disk most of its time.  A tree over the block digests would be
free, but no command that people have could check it.

CRIU sends 1 MiB at a time, of whole pages, but seldom from the start of a block
on: a block is worked on where it lies, in the two writes that hold it.  Copying
it together first took 13 % of this thread.  Only odd sizes are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import blake3
import numpy as np

from .dedup import Deduplicator
from .pages import BLOCK, BLOCK_PAGES, PAGE, U32, U64, block_digest, hash_pages, page_count
from .pipeline import Step

PART_MIN = 16 * PAGE  # smaller pieces are gathered: each costs some calls


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file once all its pages are placed.  One entry per page or block."""

    unit: str
    name: str
    size_bytes: int
    whole: blake3.blake3  # what b3sum prints; complete once the writing thread is through
    digests: bytes  # 32 bytes per block
    hashes: U64
    places: U32


class FileStream:
    """The state of one file between two writes."""

    def __init__(
        self, dedup: Deduplicator, unit: str, name: str, beside: Callable[[Step], None]
    ) -> None:
        self._dedup = dedup
        self._beside = beside  # takes steps of the writing thread
        self._before = dedup.known_file(unit, name)
        self._unit, self._name = unit, name
        self._size = 0  # bytes in finished blocks
        self._whole = blake3.blake3()
        self._digests: list[bytes] = []
        self._hashes: list[U64] = []
        self._places: list[U32] = []
        self._parts: list[memoryview] = []  # of the block being gathered, whole pages
        self._rest = bytearray()  # instead of parts, once there was an odd one
        self._have = 0  # bytes in either

    def feed(self, data: bytes | bytearray) -> None:
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

    def finish(self, unit: str, name: str) -> StoredFile:
        """Take the end of the file, which may have been renamed meanwhile; return its record."""
        if self._have:
            self._end_block()
        hashes = np.concatenate(self._hashes) if self._hashes else np.empty((0, 2), dtype=np.uint64)
        places = np.concatenate(self._places) if self._places else np.empty(0, dtype=np.uint32)
        digests = b"".join(self._digests)
        return StoredFile(unit, name, self._size, self._whole, digests, hashes, places)

    def _end_block(self) -> None:
        parts = self._parts or [memoryview(self._rest)]
        self._parts, self._rest, self._have = [], bytearray(), 0
        self._block(parts)

    def _block(self, parts: list[memoryview]) -> None:
        """Digest one block, place its pages.  The last page is filled up with zeros."""
        self._digests.append(block_digest(*parts))
        self._beside(lambda: self._update(parts))
        size = sum(map(len, parts))
        pages = parts
        if size % PAGE:
            pages = [memoryview(b"".join(parts).ljust(page_count(size) * PAGE, b"\0"))]
        hashes = np.concatenate([hash_pages(part, self._dedup.seed) for part in pages])
        rows = [np.frombuffer(part, dtype=np.uint8).reshape(-1, PAGE) for part in pages]
        first_page = len(self._hashes) * BLOCK_PAGES
        self._places.append(self._dedup.place(rows, hashes, self._before, first_page))
        self._hashes.append(hashes)
        self._size += size

    def _update(self, parts: list[memoryview]) -> None:
        for part in parts:
            self._whole.update(part)
