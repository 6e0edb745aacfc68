"""Which page is already stored, and where.  Pure.

One index per version being written: filled with the pages of the version
before it, then with every new page as it goes into the pack, so a page that
two processes of a tree share is stored once.  A *place* is one 32-bit word,
pack number * 65536 + page number; place 0 is the zero page, never stored.
A *row* is a page's number in the index; row 0 is the zero page.

The table may forget: a hash has four slots, and a page that finds them all
taken is not remembered (0.16 % of random pages when full).  It is written
again, nothing else.  Measured: one block added 65 us, looked up 83 us, 28 to
41 bytes a page.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .pages import U32, U64, ZERO_PAGE, equal_hashes, hash_pages

FIRST_CAPACITY = 1 << 12
SLOTS_PER_PAGE = 2  # at least; with 1.25 six pages in a hundred are forgotten, with 2 one in 600
ENTER_AT_ONCE = 1 << 14  # rows; temporary arrays stay small
CHOICES = tuple((word, np.uint64(shift)) for shift in (0, 32) for word in (0, 1))
PACK_PAGES = 1 << 16  # page numbers of a pack; number 0 is its header
PACKS_MAX = 1 << 16  # packs that one version can refer to


Indices = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


class PageIndex:
    """Page hashes → places.  Not thread safe: one hashing thread owns it."""

    def __init__(self, seed: int) -> None:
        self._hashes: U64 = np.zeros((FIRST_CAPACITY, 2), dtype=np.uint64)
        self._places: U32 = np.zeros(FIRST_CAPACITY, dtype=np.uint32)
        self._hashes[0] = hash_pages(ZERO_PAGE, seed)[0]  # empty slots lead to the zero page
        self._count = 1
        self._slots: U32 = np.zeros(0, dtype=np.uint32)
        self._mask = np.uint64(0)
        self._make_slots()

    def __len__(self) -> int:
        """Return how many pages were added; some may be forgotten."""
        return self._count - 1

    def reserve(self, count: int) -> None:
        """Make room for *count* pages in all, so that adding them moves nothing."""
        if (rows := count + 1) > len(self._places):
            hashes: U64 = np.empty((rows, 2), dtype=np.uint64)  # not touched before it is used
            places: U32 = np.empty(rows, dtype=np.uint32)
            hashes[: self._count] = self._hashes[: self._count]
            places[: self._count] = self._places[: self._count]
            self._hashes, self._places = hashes, places

    def load(self, hashes: U64, places: U32) -> range:
        """Take pages in, one row and one word each; return their rows.  Found after `enter`."""
        first, end = self._count, self._count + len(hashes)
        if end > len(self._places):
            self.reserve(end + end // 4)
        self._hashes[first:end] = hashes
        self._places[first:end] = places
        self._count = end
        return range(first, end)

    def enter(self) -> None:
        """Have everything found that was loaded."""
        self._make_slots()

    def add(self, hashes: U64, places: U32) -> range:
        """Remember pages, one row and one word each; return their rows."""
        rows = self.load(hashes, places)
        if rows.stop * SLOTS_PER_PAGE > len(self._slots):
            self._make_slots()
        else:
            self._enter(rows.start, rows.stop)
        return rows

    def close(self) -> None:
        """Let go of what finding needs: 4 MiB per GiB.  Rows stay good; nothing is added."""
        self._slots = np.zeros(0, dtype=np.uint32)

    def hashes(self, rows: range) -> U64:
        """Return the hashes of rows that lie together, not a copy."""
        return self._hashes[rows.start : rows.stop]

    def hash_pieces(self, rows: U32) -> Iterator[memoryview]:
        """Return the bytes of the hash of each row, in pieces: a table of all is 4 MiB per GiB."""
        for first in range(0, len(rows), ENTER_AT_ONCE):
            yield self._hashes[rows[first : first + ENTER_AT_ONCE]].data.cast("B")

    def places(self, rows: U32) -> U32:
        """Return the place of each row."""
        return self._places[rows]

    def all_places(self, rows: U32) -> U32:
        """Return the place of each row.  In parts: numpy makes eight bytes of each index."""
        places: U32 = np.empty(len(rows), dtype=np.uint32)
        for first in range(0, len(rows), ENTER_AT_ONCE):
            part = slice(first, first + ENTER_AT_ONCE)
            np.take(self._places, rows[part], out=places[part], mode="clip")
        return places

    def find(self, hashes: U64) -> tuple[Flags, Indices]:
        """Return (known, rows), one entry per row of *hashes*; a row counts where known."""
        rows: Indices = np.zeros(len(hashes), dtype=np.intp)
        found: Flags = np.zeros(len(hashes), dtype=np.bool_)
        for word, shift in CHOICES:
            slots = (hashes[:, word] >> shift & self._mask).astype(np.intp)
            candidates = self._slots[slots].astype(np.intp)
            hit = equal_hashes(self._hashes[candidates], hashes) & ~found
            rows[hit] = candidates[hit]
            found |= hit
            if found.all():
                break
        return found, rows

    def _enter(self, first: int, end: int) -> None:
        # Backwards, because of equal hashes in one batch the last assignment wins and the
        # first page must: then the others find it and need not be stored.
        rows = np.arange(end - 1, first - 1, -1)
        for word, shift in CHOICES:
            slots = (self._hashes[rows, word] >> shift & self._mask).astype(np.intp)
            empty = self._slots[slots] == 0
            self._slots[slots[empty]] = rows[empty]
            rows = rows[self._slots[slots] != rows]  # taken before, or by another of this batch
            if not len(rows):
                return

    def _make_slots(self) -> None:
        count = 1 << (max(self._count, FIRST_CAPACITY) * SLOTS_PER_PAGE - 1).bit_length()
        self._mask = np.uint64(count - 1)
        self._slots = np.zeros(count, dtype=np.uint32)
        for first in range(1, self._count, ENTER_AT_ONCE):
            self._enter(first, min(first + ENTER_AT_ONCE, self._count))
