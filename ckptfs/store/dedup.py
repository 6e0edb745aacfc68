"""Deciding for the pages of a block: known already, zero, or new.

`Known` is what the version before this one holds; `Deduplicator` turns the
pages of blocks into rows of its index, which say where each is stored, and
hands the new ones to the pack.  Owned by
the hashing thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from ..ids import Version
from .index import PACK_PAGES, PageIndex
from .packs import PackSet
from .pages import BLOCK_PAGES, U8, U32, U64, equal_hashes

# A block that would take more separate reads than this is written whole, so that restart
# stays sequential.  Reads are counted, not extents: pages less than GAP_PAGES apart come
# with one read, and the pages that one version wrote for a block lie together in its pack,
# so a block of a long-lived job needs about one read per version that touched it.
READS_MAX = 64
GAP_PAGES = 16  # 64 KiB: reading that much too much costs less than another read


@dataclass(frozen=True, slots=True)
class KnownFile:
    """The page table of one file of the version before.  One row and one place per page."""

    hashes: U64
    places: U32


@dataclass(frozen=True, slots=True)
class Known:
    """The version before: its packs, in the order of the pack numbers in places, and its files."""

    version: Version | None = None  # None also when it is one of another job
    packs: tuple[str, ...] = ()
    files: Mapping[tuple[str, str], KnownFile] = field(
        default_factory=dict[tuple[str, str], KnownFile]
    )


def sort_places(places: U32) -> U32:
    """Return the distinct places that are not the zero page, ascending."""
    ascending = np.sort(places[places != 0])  # np.unique hashes: 0.24 s per GiB against 5 ms
    return ascending[np.concatenate((ascending[:1] != 0, ascending[1:] != ascending[:-1]))]


def split_reads(places: U32) -> list[U32]:
    """Cut ascending *places* into runs that one read each can bring.  Pure."""
    cuts = (np.diff(places) > GAP_PAGES) | (np.diff(places // PACK_PAGES) != 0)
    return np.split(places, np.flatnonzero(cuts) + 1)


def _scattered(places: U32, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return which whole blocks would take `READS_MAX` reads and more of their *known* pages."""
    whole = len(places) // BLOCK_PAGES * BLOCK_PAGES
    ascending = np.where(known[:whole], places[:whole], 0).reshape(-1, BLOCK_PAGES)
    ascending.sort(axis=1)
    before, after = ascending[:, :-1], ascending[:, 1:]
    jumps = (after - before > GAP_PAGES) & (before != 0)
    reads = jumps.sum(axis=1) + (ascending[:, -1] != 0)
    return np.flatnonzero(reads >= READS_MAX)


def _gather(parts: Sequence[U8], which: npt.NDArray[np.intp], out: U8) -> None:
    """Copy the rows *which*, ascending, counted over all *parts*, to *out*."""
    start = done = 0
    for part in parts:
        end = start + len(part)
        upto = int(np.searchsorted(which, end))
        # with mode "clip" take() writes into *out* itself; else it fills a copy first
        np.take(part, which[done:upto] - start, axis=0, out=out[done:upto], mode="clip")
        start, done = end, upto


class Deduplicator:
    """Places for pages, some blocks at a time."""

    def __init__(self, packs: PackSet, seed: int) -> None:
        self.seed = seed
        self.packs = packs
        self._index = PageIndex(seed)
        self._files: dict[tuple[str, str], range] = {}

    def learn(self, known: Known, expect_pages: int) -> None:
        """Take in the version before.  Once, before the first block.

        *expect_pages*: of this version; room that is not needed is never touched.

        Its hashes are kept once, in the index, and compared with from there.  `begin` follows,
        when nothing else holds *known* any more: what it does takes as much memory.
        """
        pages = sum(len(file.places) for file in known.files.values())
        # twice: to move to a larger one needs both, 20 MiB more at 3 GiB when 40 % are new
        self._index.reserve(max(2 * pages, expect_pages))
        for key, file in known.files.items():
            self._files[key] = self._index.load(file.hashes, file.places)

    def begin(self) -> None:
        """Have the pages of the version before found."""
        self._index.enter()

    def close(self) -> None:
        """No page comes any more; the rows stay good."""
        self._index.close()

    def table(self, rows: U32) -> tuple[Callable[[], Iterator[memoryview]], U32]:
        """Return hash and place of each row that `place` returned: what yields the pieces of the
        one, as often as it is called until `forget`, and the other."""
        return partial(self._index.hash_pieces, rows), self._index.all_places(rows)

    def forget(self) -> None:
        """Let go of the index, and with it of the hashes that `table` promised."""
        self._index = PageIndex(self.seed)
        self._files = {}

    def known_file(self, unit: str, name: str) -> range | None:
        """Return the rows of the file of that name in the version before."""
        return self._files.get((unit, name))

    def place(self, pages: Sequence[U8], hashes: U64, before: range | None, first_page: int) -> U32:
        """Return the row in the index of each page of *pages*, parts of n x 4096.

        *pages* are blocks, of which one may be short.  *before*, *first_page*: the same file in
        the version before and where in it the first block starts.  Comparing with the page at the
        same place first keeps runs together and finds nearly all that there is to find: one
        vector comparison.
        """
        count = len(hashes)
        rows: U32 = np.zeros(count, dtype=np.uint32)
        known = np.zeros(count, dtype=np.bool_)
        if before is not None:
            there = before[first_page : first_page + count]
            known[: len(there)] = equal_hashes(self._index.hashes(there), hashes[: len(there)])
            rows[: len(there)] = np.arange(there.start, there.stop)
        rest = np.flatnonzero(~known)
        if len(rest):
            found, where = self._index.find(hashes[rest])
            rows[rest[found]] = where[found]
            known[rest[found]] = True
        places = self._index.places(rows)
        for block in _scattered(places, known):
            part = slice(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)
            known[part] &= places[part] == 0
        new = np.flatnonzero(~known)
        if len(new):
            rows[new] = self._store(pages, new, hashes[new])
        return rows

    def _store(
        self, pages: Sequence[U8], new: npt.NDArray[np.intp], hashes: U64
    ) -> npt.NDArray[np.intp]:
        """Put the pages *new* into the pack, equal ones once; return their rows."""
        _, firsts, group = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
        if len(firsts) == len(new) or not np.array_equal(hashes[firsts][group], hashes):
            firsts, group = np.arange(len(new)), np.arange(len(new))
        else:  # np.unique orders by hash; the pack wants the order of the file
            order = np.argsort(firsts)
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            firsts, group = firsts[order], rank[group]
        stored = self._append(pages, new[firsts])
        return self._index.add(hashes[firsts], stored).start + group

    def _append(self, pages: Sequence[U8], which: npt.NDArray[np.intp]) -> U32:
        stored: U32 = np.empty(len(which), dtype=np.uint32)
        done = 0
        while done < len(which):
            room, first = self.packs.room(len(which) - done)
            take = len(room)
            _gather(pages, which[done : done + take], room)
            stored[done : done + take] = np.arange(first, first + take, dtype=np.uint32)
            self.packs.used(take)
            done += take
        return stored
