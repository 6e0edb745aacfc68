"""The read worker: a process that gathers blocks out of packs and hashes them, and nothing else.

Started by `read_ring` with one socket and a shared memory; it ends when the other side closes, so
never after its daemon.  It opens no file and trusts nothing: the descriptors of the packs come with
each request and are closed behind it, the digest goes back, and the daemon holds it against the
manifest.  A block that cannot be read whole has no digest.  The layout of the memory and of the
messages is said once, here: numpy is not imported, so the start takes 60 ms instead of 200.

    ckptfs.store.read_worker SOCKET-FD MEMORY-FD SLOTS
"""

from __future__ import annotations

import array
import contextlib
import itertools
import mmap
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import blake3

PAGE: Final = 4096
BLOCK: Final = 1 << 20
PACK_PAGES: Final = 1 << 16  # a place is pack number x this + page in the pack; 0: a zero page
# Pages that are read and dropped rather than read around.  In the page cache a call costs as much
# as copying some 5 pages.
GAP_PAGES: Final = 4

READY: Final = b"ready"
# slot, bytes, number of packs; then u32 for each pack number, then u32 for each page's place; the
# descriptors of the packs, in that order, are beside it
REQUEST: Final = struct.Struct("<III")
REQUEST_MAX: Final = 8192
PACKS_MAX: Final = 128  # of one block; the kernel passes 253 descriptors at most
REPLY: Final = struct.Struct("<I32s")  # slot, digest
UNREADABLE: Final = bytes(32)

Run = tuple[int, int, int]  # place, page in the block, pages


def split_runs(places: Sequence[int]) -> list[Run]:
    """Return the runs of pages that lie one behind the other, by place.  Pure.

    Zero pages come first, each by itself.
    """
    runs: list[Run] = []
    begin = 0
    for at, (place, following) in enumerate(itertools.pairwise(places), 1):
        if following != place + 1 or not place:
            runs.append((places[begin], begin, at - begin))
            begin = at
    runs.append((places[begin], begin, len(places) - begin))
    return sorted(runs)


class Worker:
    """Answers requests with blocks put into *memory*."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._view = memoryview(memory)
        self._zeros = bytes(PAGE)
        self._dropped = memoryview(bytearray(GAP_PAGES * PAGE))

    def answer(self, request: bytes, descriptors: Sequence[int]) -> bytes:
        """Fill a slot and return its reply."""
        slot, size, count = REQUEST.unpack_from(request)
        words = array.array("I", request[REQUEST.size :])
        packs = dict(zip(words[:count], descriptors, strict=True))
        block = self._view[slot * BLOCK : (slot + 1) * BLOCK]
        try:
            self._fill(block, words[count:], packs)
        except OSError:
            return REPLY.pack(slot, UNREADABLE)
        return REPLY.pack(slot, blake3.blake3(block[:size]).digest())

    def _fill(self, block: memoryview, places: Sequence[int], packs: Mapping[int, int]) -> None:
        into: list[memoryview] = []  # what one call fills
        first = end = 0  # the places it covers
        for place, at, pages in split_runs(places):
            target = block[at * PAGE : (at + pages) * PAGE]
            if not place:
                target[:] = self._zeros
                continue
            gap = place - end
            if into and 0 <= gap <= GAP_PAGES and place // PACK_PAGES == first // PACK_PAGES:
                if gap:
                    into.append(self._dropped[: gap * PAGE])
            else:
                _read(packs, first, end, into)
                into, first = [], place
            into.append(target)
            end = place + pages
        _read(packs, first, end, into)


def _read(packs: Mapping[int, int], first: int, end: int, into: Sequence[memoryview]) -> None:
    """Read the places from *first* to *end*.  Raises OSError, also when there is less."""
    if not into:
        return
    descriptor = packs[first // PACK_PAGES]
    if os.preadv(descriptor, into, first % PACK_PAGES * PAGE) != (end - first) * PAGE:
        raise OSError("the pack is shorter than that")


def serve(channel: socket.socket, worker: Worker) -> None:
    """Answer until the other side closes."""
    channel.send(READY)
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, REQUEST_MAX, PACKS_MAX)
        if not request:
            return
        try:
            channel.send(worker.answer(request, descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def main() -> None:
    """Serve with what the daemon handed over."""
    channel, memory, slots = map(int, sys.argv[1:4])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the daemon has gone
        serve(socket.socket(fileno=channel), Worker(mmap.mmap(memory, slots * BLOCK)))


if __name__ == "__main__":
    main()
