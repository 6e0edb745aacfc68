"""Hashing in a process of its own, over a ring of shared memory.

The interpreter's lock lets one thread of the daemon run at a time, and a
checkpointer waits for the thread that takes its bytes: with the hashing in
another process that thread is free.  A block is copied once, into memory that
was touched long ago (fresh memory costs more than hashing it: 0.6 s per GiB
where measured), and lies there until its new pages have gone into the pack.
Replies are looked at when the ring is full, most of which has been answered by
then, and are handed out several at a time.  A small file is hashed where it is: asking costs more.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import blake3
import numpy as np

from ..errors import CkptfsError
from .hash_worker import BLOCK, HASHES, NO_SLOT, REPLY, REQUEST, SLOT, Kind
from .hashing import Done, hash_here
from .pages import PAGE, U8, U64, page_count

SLOTS = 24  # blocks under way
AT_ONCE = 8  # blocks handed out together: numpy's calls cost half as much per page as one by one
ASK_AT_ONCE = 4  # requests written together: each write, read and poll lets go of the interpreter
HERE_MAX = 64 << 10  # bytes of a file that is hashed in the calling thread
REPLIES_AT_ONCE = 64
OWED_MAX = 512  # requests without a reply; so many fit into the pipes and nobody waits there
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which mmap has no name for: linux/mman.h
END_S = 5.0  # how long a worker may take to end; it only ever has a few blocks left


@dataclass(frozen=True, slots=True)
class _Pending:
    slot: int
    size: int
    stream: int
    done: Done


class HashRing:
    """One worker process and its memory.  Raises OSError when it cannot be started."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("ckptfs-hash", os.MFD_CLOEXEC)
        asked, self._requests = os.pipe2(os.O_CLOEXEC)
        self._replies, answered = os.pipe2(os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, SLOTS * SLOT)
            memory = mmap.mmap(descriptor, SLOTS * SLOT)
            process = _start_worker(asked, answered, descriptor)
        except OSError:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            for end in (asked, answered, descriptor):
                os.close(end)
        self.pid = process.pid
        self.is_gone = False
        self._let_go = weakref.finalize(self, _let_go, process, self._requests, self._replies)
        self._memory = memory
        self._warm = 0  # slots that were touched
        slots = np.frombuffer(memory, dtype=np.uint8).reshape(SLOTS, SLOT)
        self._blocks = [slot[:BLOCK] for slot in slots]
        self._hashes = [slot[BLOCK : BLOCK + HASHES].view("<u8").reshape(-1, 2) for slot in slots]
        self._free = deque(range(SLOTS))
        self._pending: deque[_Pending] = deque()
        self._answered: list[tuple[_Pending, bytes]] = []  # with digests, still in their slots
        self._ended: dict[int, bytes] = {}  # stream → digest
        self._unwanted: set[int] = set()  # streams whose digest nobody waits for
        self._numbers = itertools.count(1)
        self._unsent = bytearray()
        self._owed = 0  # requests without a reply

    @property
    def pending_bytes(self) -> int:
        """Bytes in slots that are not free, rounded up to whole slots."""
        return (SLOTS - len(self._free)) * BLOCK

    def warm(self, expect_bytes: int) -> None:
        """Touch the slots that so many bytes take, each once: fresh ones cost 0.6 ms."""
        while self._warm < min(SLOTS, -(-expect_bytes // BLOCK)):
            with contextlib.suppress(OSError):  # before Linux 5.14 the first use does it
                self._memory.madvise(_POPULATE_WRITE, self._warm * SLOT, SLOT)
            self._warm += 1

    def new_stream(self) -> int:
        """Return a number for a file."""
        return next(self._numbers)

    def slot(self) -> tuple[int, U8]:
        """Return a slot and its memory, to be filled; wait for one.  Raises CkptfsError."""
        if not self._free:
            while len(self._answered) < AT_ONCE:
                self._take_replies()
            self._hand_out()
        slot = self._free.popleft()
        return slot, self._blocks[slot]

    def submit(self, slot: int, size: int, stream: int, seed: int, done: Done) -> None:
        """Have a filled slot hashed.  Raises CkptfsError."""
        self._pending.append(_Pending(slot, size, stream, done))
        self._ask(Kind.BLOCK, slot, size, stream, seed)

    def end(self, stream: int) -> bytes:
        """Return the digest of a stream, after every *done* before it.  Raises CkptfsError."""
        self._ask(Kind.END, NO_SLOT, 0, stream, 0)
        while stream not in self._ended:
            self._take_replies()
        self._hand_out()
        return self._ended.pop(stream)

    def forget(self, stream: int) -> None:
        """Let go of a stream: a worker keeps 2 KB for each until it ends.  Raises nothing."""
        if not self.is_gone:
            self._unwanted.add(stream)
            with contextlib.suppress(CkptfsError):
                self._ask(Kind.END, NO_SLOT, 0, stream, 0)

    def drain(self) -> None:
        """Wait until every *done* was called.  Raises CkptfsError."""
        while self._pending:
            self._take_replies()
        self._hand_out()
        self._send()

    def close(self) -> None:
        """End the worker.  May be repeated."""
        self.is_gone = True
        self._let_go()

    def _ask(self, *request: int) -> None:
        if self._owed >= OWED_MAX:
            self._take_replies()
        self._unsent += REQUEST.pack(*request)
        self._owed += 1
        if len(self._unsent) >= ASK_AT_ONCE * REQUEST.size:
            self._send()

    def _send(self) -> None:
        if not self._unsent:
            return
        try:
            os.write(self._requests, self._unsent)  # far below what a pipe takes at once
        except OSError as error:
            raise self._gone() from error
        self._unsent.clear()

    def _take_replies(self) -> None:
        """Wait for replies, take all that are there.  Raises CkptfsError."""
        if self.is_gone:
            raise self._gone()
        self._send()
        replies = os.read(self._replies, REPLIES_AT_ONCE * REPLY.size)
        if not replies:
            raise self._gone()
        for slot, stream, digest in REPLY.iter_unpack(replies):
            self._owed -= 1
            self._take(slot, stream, digest)

    def _take(self, slot: int, stream: int, digest: bytes) -> None:
        if slot == NO_SLOT and stream in self._unwanted:
            self._unwanted.discard(stream)
            return
        if slot == NO_SLOT:
            self._ended[stream] = digest
            return
        self._answered.append((self._pending.popleft(), digest))

    def _hand_out(self) -> None:
        """Call *done* for what is answered, once for blocks in a row of one file."""
        answered, self._answered = self._answered, []
        for _, group in itertools.groupby(answered, lambda entry: entry[0].stream):
            blocks = list(group)
            rows: list[U8] = []
            hashes: list[U64] = []
            for pending, _ in blocks:
                pages = page_count(pending.size)
                rows.append(self._blocks[pending.slot][: pages * PAGE].reshape(pages, PAGE))
                hashes.append(self._hashes[pending.slot][:pages])
            digests = [digest for _, digest in blocks]
            blocks[0][0].done(rows, digests, np.concatenate(hashes))
            self._free.extend(pending.slot for pending, _ in blocks)

    def _gone(self) -> CkptfsError:
        self.is_gone = True
        return CkptfsError("the process that hashes has ended; try again")


class HashWorker:
    """The ring of a store; a new one when the worker has ended."""

    def __init__(self) -> None:
        self._ring: HashRing | None = None
        with contextlib.suppress(CkptfsError):  # whoever needs it will hear
            self.ring()

    def ring(self) -> HashRing:
        """Return a ring that works.  Hashing thread.  Raises CkptfsError."""
        if self._ring is not None and self._ring.is_gone:
            self.close()
        if self._ring is None:
            try:
                self._ring = HashRing()
            except OSError as error:
                raise CkptfsError(f"a process for hashing cannot be started: {error}") from error
        return self._ring

    def close(self) -> None:
        """End the worker.  Only while nobody hashes.  May be repeated."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()


class RingHashing:
    """See Hashing.  One per version; the worker is the store's."""

    def __init__(self, worker: HashWorker, seed: int) -> None:
        self._worker, self._seed = worker, seed
        self._bound: HashRing | None = None
        self._asked: set[int] = set()  # streams that the worker knows
        self._small: dict[int, bytes] = {}  # digests of files that it does not

    @property
    def pending_bytes(self) -> int:
        """See Hashing.  Those of other versions count as well."""
        return self._bound.pending_bytes if self._bound is not None else 0

    def warm(self, expect_bytes: int) -> None:
        """See Hashing."""
        self._ring.warm(expect_bytes)

    def begin(self) -> int:
        """See Hashing."""
        return self._ring.new_stream()

    @property
    def _ring(self) -> HashRing:
        """The ring that this version began with: another does not know its streams."""
        if self._bound is None:
            self._bound = self._worker.ring()
        return self._bound

    def block(self, stream: int, parts: Sequence[memoryview], done: Done) -> None:
        """See Hashing."""
        size = sum(map(len, parts))
        if size <= HERE_MAX and stream not in self._asked:  # less than a block: a whole file
            self._small[stream] = hash_here(parts, self._seed, done)
            return
        self._asked.add(stream)
        slot, memory = self._ring.slot()
        at = 0
        for part in parts:
            memory[at : at + len(part)] = np.frombuffer(part, dtype=np.uint8)
            at += len(part)
        memory[size : page_count(size) * PAGE] = 0
        self._ring.submit(slot, size, stream, self._seed, done)

    def end(self, stream: int) -> bytes:
        """See Hashing."""
        if stream in self._asked:
            self._asked.discard(stream)
            return self._ring.end(stream)
        return self._small.pop(stream, None) or blake3.blake3().digest()

    def drain(self) -> None:
        """See Hashing."""
        if self._bound is not None:
            self._bound.drain()

    def forget(self) -> None:
        """See Hashing."""
        if self._bound is not None:
            for stream in self._asked:
                self._bound.forget(stream)
            with contextlib.suppress(CkptfsError):
                self._bound.drain()  # what is in the ring holds on to the version
        self._asked.clear()
        self._small.clear()


def _start_worker(asked: int, answered: int, memory: int) -> subprocess.Popen[bytes]:
    words = map(str, (asked, answered, memory, SLOTS))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ckptfs.store.hash_worker", *words],
        pass_fds=(asked, answered, memory),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at a daemon in the foreground is the daemon's
    )


def _let_go(process: subprocess.Popen[bytes], requests: int, replies: int) -> None:
    """Close the pipes, which ends the worker, and wait for it."""
    os.close(requests)
    os.close(replies)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(OSError):
            process.wait()
