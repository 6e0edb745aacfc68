"""Hashing the blocks of files: where it is done is behind one Protocol.

`HereHashing` does it in the calling thread; `hash_ring.RingHashing` in a
process of its own, because the interpreter's lock lets one thread of the
daemon work at a time, and a checkpointer waits for the thread that takes its
bytes.  Owned by the hashing thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import blake3
import numpy as np

from .pages import PAGE, U8, U64, block_digest, hash_pages, page_count

# Blocks in a row of one stream: rows of 4096 bytes (the last filled up with zeros), one digest per
# block, one hash per row; rows and hashes are good until it returns.
Done = Callable[[Sequence[U8], Sequence[bytes], U64], None]


class Hashing(Protocol):
    """Blocks in, digests and page hashes out, in the order of the blocks.

    A *stream* is one file: its blocks count for the digest of the whole as well.
    """

    @property
    def pending_bytes(self) -> int:
        """At most so many bytes were taken and not yet answered.  Any thread."""
        ...

    def warm(self, expect_bytes: int) -> None:
        """Make ready for so many bytes: the first do not pay for it.  Raises CkptfsError."""
        ...

    def begin(self) -> int:
        """Return the number of a new stream."""
        ...

    def block(self, stream: int, parts: Sequence[memoryview], done: Done) -> None:
        """Take a block of at most 1 MiB, which may lie in several parts; none is kept.

        *done* is called from here or from a later call, once, for this block alone or for several
        of the stream (then that of the first), and must not raise: the call may be one for another
        version.  Raises CkptfsError; *done* is not called any more then.
        """
        ...

    def end(self, stream: int) -> bytes:
        """Have every *done* called, return the BLAKE3 of the whole file.  Raises CkptfsError."""
        ...

    def drain(self) -> None:
        """Have every *done* called, of streams that nobody ends as well.  Raises CkptfsError."""
        ...

    def forget(self) -> None:
        """Let go of the streams that nobody will end.  Raises nothing."""
        ...


def as_rows(parts: Sequence[memoryview]) -> list[U8]:
    """Return parts of whole pages as rows of 4096 bytes; else one that is filled up with zeros."""
    size = sum(map(len, parts))
    if any(len(part) % PAGE for part in parts):
        parts = [memoryview(b"".join(parts).ljust(page_count(size) * PAGE, b"\0"))]
    return [np.frombuffer(part, dtype=np.uint8).reshape(-1, PAGE) for part in parts]


def hash_here(parts: Sequence[memoryview], seed: int, done: Done) -> bytes:
    """Hash one block in the calling thread; return its digest."""
    rows, digest = as_rows(parts), block_digest(*parts)
    hashes = [hash_pages(part.data.cast("B"), seed) for part in rows]
    done(rows, [digest], hashes[0] if len(hashes) == 1 else np.concatenate(hashes))
    return digest


class HereHashing:
    """Hashes in the calling thread."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[int, blake3.blake3] = {}
        self._numbers = itertools.count(1)

    @property
    def pending_bytes(self) -> int:
        """See Hashing."""
        return 0

    def warm(self, expect_bytes: int) -> None:
        """See Hashing."""

    def begin(self) -> int:
        """See Hashing."""
        stream = next(self._numbers)
        self._streams[stream] = blake3.blake3()
        return stream

    def block(self, stream: int, parts: Sequence[memoryview], done: Done) -> None:
        """See Hashing."""
        for part in parts:
            self._streams[stream].update(part)
        hash_here(parts, self._seed, done)

    def end(self, stream: int) -> bytes:
        """See Hashing."""
        return self._streams.pop(stream).digest()

    def drain(self) -> None:
        """See Hashing."""

    def forget(self) -> None:
        """See Hashing."""
        self._streams.clear()
