"""The hash worker: a process that turns blocks into digests, and does nothing else.

Started by `hash_ring` with two pipes and a shared memory; it ends when the
pipe that its requests come from is closed, so never after its daemon.  It
knows no files, no store and no names.  The layout of the memory and of the
messages is said once, here: numpy is not imported, for the start takes 60 ms
without and 200 ms with it, and 25 MiB less.

    ckptfs.store.hash_worker REQUESTS-FD REPLIES-FD MEMORY-FD SLOTS
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import sys
from collections.abc import Callable
from typing import Final

import blake3
import xxhash

PAGE: Final = 4096
BLOCK: Final = 1 << 20
HASH: Final = 16  # bytes of the hash of a page
HASHES: Final = BLOCK // PAGE * HASH  # bytes of the page hashes of a block
SLOT: Final = BLOCK + PAGE  # a block, and its page hashes behind it

REQUEST: Final = struct.Struct("<IIIIQ")  # kind, slot, bytes, stream, seed
REPLY: Final = struct.Struct("<II32s")  # slot, stream, digest; slot of an END: NO_SLOT
# Hashed three times while the cache of the core holds it, first by xxh3, which reads in order and
# so brings it there at full speed: 0.41 ms a block instead of 0.53, that BLAKE3 passes waited for.
PART: Final = 256 << 10
NO_SLOT: Final = 0xFFFFFFFF
READ_AT_ONCE: Final = 64 * REQUEST.size  # messages in a pipe stay whole up to 4096 bytes


class Kind(enum.IntEnum):
    """What is asked for."""

    BLOCK = 1  # the digest and the page hashes of one block, which also counts for its stream
    END = 2  # the digest of a stream, which is forgotten


class Worker:
    """Answers requests over the blocks in *memory*."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._view = memoryview(memory)
        self._streams: dict[int, blake3.blake3] = {}

    def answer(self, request: bytes) -> bytes:
        """Return the reply to one request."""
        kind, slot, size, stream, seed = REQUEST.unpack(request)
        if kind == Kind.BLOCK:
            return REPLY.pack(slot, stream, self._block(slot, size, stream, seed))
        whole = self._streams.pop(stream, None) or blake3.blake3()
        return REPLY.pack(NO_SLOT, stream, whole.digest())

    def _block(self, slot: int, size: int, stream: int, seed: int) -> bytes:
        start, view, page_hash = slot * SLOT, self._view, xxhash.xxh3_128_digest
        whole, block = self._streams.setdefault(stream, blake3.blake3()), blake3.blake3()
        hashes: list[bytes] = []
        for first in range(start, start + size, PART):
            end = min(first + PART, start + size)
            # The last page of a file is hashed as filled up with zeros, which the other side did.
            hashes += [page_hash(view[at : at + PAGE], seed) for at in range(first, end, PAGE)]
            part = view[first:end]
            whole.update(part)
            block.update(part)
        place = start + BLOCK
        view[place : place + len(hashes) * HASH] = b"".join(hashes)
        return block.digest()


def serve(requests: int, replies: int, answer: Callable[[bytes], bytes]) -> None:
    """Answer until the other side closes."""
    while messages := os.read(requests, READ_AT_ONCE):
        for at in range(0, len(messages), REQUEST.size):
            os.write(replies, answer(messages[at : at + REQUEST.size]))


def main() -> None:
    """Serve with what the daemon handed over."""
    requests, replies, memory, slots = map(int, sys.argv[1:5])
    serve(requests, replies, Worker(mmap.mmap(memory, slots * SLOT)).answer)


if __name__ == "__main__":
    main()
