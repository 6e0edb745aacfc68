"""One file on its way in: bytes → blocks → page hashes → places.

Runs in the hashing thread, but for the hash of the whole file: that needs a
second pass over the bytes (0.16 s per GB), which the writing thread takes, as
it waits for the disk most of its time.  A tree over the block digests would be
free, but no command that people have could check it.

A write of exactly one aligned block, which is what CRIU sends, is worked on
where it lies; anything else is gathered in a block buffer first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import blake3
import numpy as np

from .dedup import Deduplicator
from .pages import BLOCK, BLOCK_PAGES, PAGE, U32, U64, block_digest, hash_pages, page_count
from .pipeline import Step


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
        self._rest = bytearray()  # of the block being gathered

    def feed(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the file."""
        view = memoryview(data)
        if self._rest:
            want = BLOCK - len(self._rest)
            self._rest += view[:want]
            view = view[want:]
            if len(self._rest) < BLOCK:
                return
            self._block(self._rest)
            self._rest = bytearray()
        while len(view) >= BLOCK:
            self._block(view[:BLOCK])
            view = view[BLOCK:]
        self._rest += view

    def finish(self, unit: str, name: str) -> StoredFile:
        """Take the end of the file, which may have been renamed meanwhile; return its record."""
        if self._rest:
            self._block(self._rest)
        hashes = np.concatenate(self._hashes) if self._hashes else np.empty((0, 2), dtype=np.uint64)
        places = np.concatenate(self._places) if self._places else np.empty(0, dtype=np.uint32)
        digests = b"".join(self._digests)
        return StoredFile(unit, name, self._size, self._whole, digests, hashes, places)

    def _block(self, data: bytearray | memoryview) -> None:
        """Digest one block, place its pages.  The last page is filled up with zeros."""
        self._digests.append(block_digest(data))
        self._beside(lambda original=data: self._update(original))
        size = len(data)
        if size % PAGE:
            data = bytearray(data).ljust(page_count(size) * PAGE, b"\0")
        hashes = hash_pages(data, self._dedup.seed)
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE)
        first_page = len(self._hashes) * BLOCK_PAGES
        self._places.append(self._dedup.place(rows, hashes, self._before, first_page))
        self._hashes.append(hashes)
        self._size += size

    def _update(self, data: bytearray | memoryview) -> None:
        self._whole.update(data)
