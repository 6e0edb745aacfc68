"""Reading in a process of its own: blocks are gathered and hashed outside the interpreter's lock.

The thread of the mount copies each block to the kernel while it holds that lock, and threads that
gather and hash want it between every two of their calls: the two made each other wait for half of
the time.  The worker (`read_worker`) puts a block into a slot of shared memory; here its digest is
held against the manifest.  Whatever the worker cannot do (a pack not open yet, no slot, a digest
that is not the one, the process gone) is done by the threads as before, with all their means.

A slot is free again when nobody holds its bytes any more.  Trio thread only.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import trio

from .blocks import PackFile
from .index import PACK_PAGES
from .manifest import Manifest, ManifestFile
from .pages import BLOCK, BLOCK_PAGES
from .read_worker import PACKS_MAX, READY, REPLY, REQUEST

log = logging.getLogger(__name__)
SLOTS = 32  # MiB of shared memory: what the cache keeps, what is under way, what is being sent
QUEUE = 8  # blocks asked for and not yet there; who wants more is helped by a thread
STARTS = 3  # a worker that keeps dying is not started again
END_S = 5.0  # how long a worker may take to end

Block = Future[memoryview]


class OpenPacks(Protocol):
    """The packs that are open already."""

    def peek(self, pack_id: str) -> PackFile | None:
        """Return a pack that is open, without waiting for a disk."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    block: Block
    digest: bytes  # of the manifest
    size: int
    instead: Callable[[Block], None]  # completes the block some other way


class ReadRing:
    """A worker process and its memory, started when it is first of use."""

    def __init__(self, packs: OpenPacks) -> None:
        self._packs = packs
        self._worker: _Worker | None = None
        self._starts = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The worker's pid, None while there is none."""
        return self._worker.process.pid if self._worker and not self._worker.is_gone else None

    def load(
        self, manifest: Manifest, file: ManifestFile, block: int, instead: Callable[[Block], None]
    ) -> Block | None:
        """Have a block loaded and proved; None when that is not possible now.

        *instead* is called with the block when the worker turns out not to have it right.
        """
        worker = self._ready_worker()
        if worker is None or not worker.has_room:
            return None
        places = file.places[block * BLOCK_PAGES : (block + 1) * BLOCK_PAGES]
        stored = cast("list[int]", (places[places != 0] // PACK_PAGES).tolist())
        numbers = sorted(set(stored))
        packs = [pack for n in numbers if (pack := self._packs.peek(manifest.packs[n]))]
        if len(packs) != len(numbers) or len(packs) > PACKS_MAX:
            return None
        size = min(BLOCK, file.size_bytes - block * BLOCK)
        asked = _Asked(Future(), file.digest(block), size, instead)
        words = np.array(numbers, dtype="<u4").tobytes() + places.astype("<u4").tobytes()
        return asked.block if worker.ask(asked, len(numbers), words, packs) else None

    def begin(self) -> None:
        """Start a worker if there is none."""
        self._ready_worker()

    async def ready(self) -> bool:
        """Start a worker if there is none, return when it takes requests: False when it cannot."""
        self.begin()
        worker = self._worker
        if worker is None or worker.is_gone:
            return False
        await worker.answered.wait()
        return not worker.is_gone

    def close(self) -> None:
        """End the worker.  May be repeated."""
        self._closed = True
        if self._worker is not None:
            for asked in self._worker.close():
                asked.block.cancel()

    def _ready_worker(self) -> _Worker | None:
        if self._worker is None or self._worker.is_gone:
            if self._closed or self._starts == STARTS:
                return None
            self._starts += 1
            try:
                self._worker = _Worker()
            except OSError as error:
                log.warning("a process for reading cannot be started: %s", error)
                self._starts = STARTS
                return None
        self._worker.listen()
        return self._worker if self._worker.answered.is_set() else None


class _Worker:
    """One process.  Raises OSError when it cannot be started."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("ckptfs-read", os.MFD_CLOEXEC)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.ftruncate(descriptor, SLOTS * BLOCK)
            memory = mmap.mmap(descriptor, SLOTS * BLOCK)
            words = map(str, (theirs.fileno(), descriptor, SLOTS))
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ckptfs.store.read_worker", *words],
                pass_fds=(theirs.fileno(), descriptor),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at a daemon in the foreground is the daemon's
            )
        except OSError:
            self._channel.close()
            raise
        finally:
            theirs.close()
            os.close(descriptor)
        self._channel.setblocking(False)
        self._slots = np.frombuffer(memory, dtype=np.uint8).reshape(SLOTS, BLOCK)
        self._free = list(range(SLOTS))  # the last one that was freed is still in the CPU's cache
        self._asked: dict[int, _Asked] = {}
        self._listening: trio.lowlevel.TrioToken | None = None
        self.answered = trio.Event()  # set when it takes requests, or has gone
        self.is_gone = False

    @property
    def has_room(self) -> bool:
        """Whether a block may be asked for."""
        return bool(self._free) and len(self._asked) < QUEUE

    def ask(self, asked: _Asked, count: int, words: bytes, packs: list[PackFile]) -> bool:
        """Send a request; False when the worker does not take it."""
        slot = self._free.pop()
        header = REQUEST.pack(slot, asked.size, count)
        try:
            socket.send_fds(self._channel, [header, words], [pack.fd for pack in packs])
        except OSError as error:
            self._free.append(slot)
            if not isinstance(error, BlockingIOError):
                self._has_gone()
            return False
        self._asked[slot] = asked
        return True

    def listen(self) -> None:
        """Have a task of this trio run take the replies."""
        token = trio.lowlevel.current_trio_token()
        if self._listening is not token:
            self._listening = token
            trio.lowlevel.spawn_system_task(self._take_replies)

    async def _take_replies(self) -> None:
        while not self.is_gone:
            try:
                await trio.lowlevel.wait_readable(self._channel)
                reply = self._channel.recv(REPLY.size)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                reply = b""
            if reply == READY:
                self.answered.set()
            elif reply:
                self._take(*REPLY.unpack(reply))
            else:
                self._has_gone()

    def _take(self, slot: int, digest: bytes) -> None:
        asked = self._asked.pop(slot)
        if digest != asked.digest:
            self._free.append(slot)
            asked.instead(asked.block)
        elif not asked.block.set_running_or_notify_cancel():
            self._free.append(slot)
        else:
            row = self._slots[slot][: asked.size]
            weakref.finalize(row, self._free.append, slot).atexit = False
            asked.block.set_result(row.data)

    def _has_gone(self) -> None:
        if not self.is_gone:
            log.warning("the process that reads has ended; threads read what it was to")
            for asked in self.close():
                asked.instead(asked.block)
            self.answered.set()

    def close(self) -> list[_Asked]:
        """End the process, wait for it, return what it still owed.  May be repeated."""
        if self.is_gone:
            return []
        self.is_gone = True
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._channel)
        self._channel.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        owed = list(self._asked.values())
        self._asked.clear()
        return owed
