"""Pages and blocks: sizes, the page hash, the block hash.  Pure.

A page (4 KiB) is the unit of deduplication, a block (1 MiB) that of
verification.  The page hash is xxh3_128 with a seed that only this store
knows; it only ever says "probably the same page", and the BLAKE3 of the block
over the original bytes is what a restored byte is held against.  Measured
(AMD EPYC, one thread): 256 page hashes of one block 58 us (18 GB/s), BLAKE3 of
one block 162 us (6.5 GB/s).
"""

from __future__ import annotations

import blake3
import numpy as np
import numpy.typing as npt
import xxhash

PAGE = 4096
BLOCK = 1 << 20
BLOCK_PAGES = BLOCK // PAGE
HASH_SIZE = 16  # of a page
DIGEST_SIZE = 32  # of a block

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

Bytes = bytes | bytearray | memoryview

ZERO_PAGE = bytes(PAGE)


def page_count(size_bytes: int) -> int:
    """Return how many pages hold *size_bytes*; the last may be part filled."""
    return -(-size_bytes // PAGE)


def block_count(size_bytes: int) -> int:
    """Return how many blocks hold *size_bytes*."""
    return -(-size_bytes // BLOCK)


def hash_pages(data: Bytes, seed: int) -> U64:
    """Return one row of two words per page of *data*, whose length is whole pages."""
    view = memoryview(data)
    digest = xxhash.xxh3_128_digest
    joined = b"".join([digest(view[at : at + PAGE], seed) for at in range(0, len(view), PAGE)])
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


def filled_runs(data: Bytes) -> list[tuple[int, int]]:
    """Return (offset, bytes) of each run of pages that are not all zeros; whole pages in *data*."""
    words = np.frombuffer(data, dtype=np.uint64).reshape(-1, PAGE // 8)
    filled = np.zeros(len(words) + 2, dtype=np.int8)
    filled[1:-1] = words.any(axis=1)
    steps = np.diff(filled)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [(int(a) * PAGE, int(b - a) * PAGE) for a, b in zip(starts, ends, strict=True)]


def equal_hashes(these: U64, those: U64) -> npt.NDArray[np.bool_]:
    """Return which rows of two tables of page hashes are equal.

    ``(these == those).all(axis=1)`` takes six times as long: numpy's loop over rows of two.
    """
    same = these[:, 0] == those[:, 0]
    same &= these[:, 1] == those[:, 1]
    return same


def block_digest(*parts: Bytes) -> bytes:
    """Return the BLAKE3 of one block, which may lie in several parts; 32 bytes."""
    hasher = blake3.blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def region_checksum(data: Bytes) -> bytes:
    """Return the cheap checksum of a pack's region, 16 bytes; 60 GB/s, for scrub and rewriting."""
    return xxhash.xxh3_128_digest(data)
