"""Reading everything of a version before a restart relies on it.  Blocking; runs in worker threads.

Every byte that reaches a process is proved again when it is read, so this pass
need not go past the page cache as a verification does: it is there so that a
damaged version is refused, file and block named, before anything is touched.
Two threads: BLAKE3 and pread release the GIL (1.0 GiB in the page cache: 0.24 s
with one, 0.18 s with two).  Where it is not there a third has the kernel read
ahead of them (five packs, disk of 0.7 GB/s: 1.2 s instead of 2.6 s).

What readers have had loaded since the pass began is proved by that, and left out.
As long as they have blocks loaded fast, the pass waits: a checkpointer reads all of
the version, and to prove blocks before it comes by only takes its CPUs away (1 GiB,
the mount's cache empty: restart in 1.05 to 1.26 s instead of 1.26 to 1.84).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

from ..errors import Corrupt
from ..model import Head
from .api import Damage
from .blocks import BlockLoader
from .manifest import Manifest
from .pages import block_count
from .verification import find_mismatches

THREADS = 2
LOOK_S = 0.01
FAST_BLOCKS_S = 300  # 0.3 GB/s: slower readers wait for something else than the CPU


class Pace:
    """Whether readers get on so fast that they are best left alone.  Any thread."""

    def __init__(
        self, noted: AbstractSet[tuple[int, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._noted, self._clock = noted, clock
        self._lock = threading.Lock()
        self._count, self._looked_s, self._is_fast = len(noted), clock(), False

    @property
    def is_fast(self) -> bool:
        """Looked at anew every `LOOK_S`."""
        with self._lock:
            past_s = self._clock() - self._looked_s
            if past_s >= LOOK_S:
                count = len(self._noted)
                self._is_fast = count - self._count >= FAST_BLOCKS_S * past_s
                self._count, self._looked_s = count, self._looked_s + past_s
            return self._is_fast


class Proof:
    """One pass over the blocks of a version."""

    def __init__(
        self,
        head: Head,
        manifest: Manifest,
        loader: BlockLoader,
        *,
        progress: Callable[[float], None],
        suspect: Callable[[str], None],
        noted: AbstractSet[tuple[int, int]],
        pace: Pace | None = None,
    ) -> None:
        self._head, self._manifest, self._loader = head, manifest, loader
        self._progress, self._suspect, self._noted = progress, suspect, noted
        self._pace = pace or Pace(noted)
        self._blocks: deque[tuple[int, int]] = deque()  # file, block; in the order of the files
        self._total = 1
        self._lock = threading.Lock()
        self._done = 0
        self._stop = threading.Event()
        self.found: list[Damage] = []

    def run(self, check: Callable[[], None], *, up_to_bytes: int) -> list[Damage]:
        """Prove every block of files up to that size and return what is wrong.

        *check* is called often and may raise.
        """
        self.found.extend(find_mismatches(self._head, self._manifest))
        if self.found:
            return self.found
        self._blocks = self._in_order(up_to_bytes)
        self._total = sum(block_count(entry.size_bytes) for entry in self._head.files) or 1
        with ThreadPoolExecutor(THREADS, thread_name_prefix="ckptfs-prove") as pool:
            try:
                pool.submit(self._prime, tuple(self._blocks))
                others = [pool.submit(self._work, _nothing) for _ in range(THREADS - 1)]
                self._work(check)
                for other in others:
                    other.result()
            finally:
                self._stop.set()
        self.found.sort(key=lambda damage: (damage.unit, damage.name, damage.block))
        return self.found

    def _in_order(self, up_to_bytes: int) -> deque[tuple[int, int]]:
        return deque(
            (index, block)
            for index, entry in enumerate(self._head.files)
            if entry.size_bytes <= up_to_bytes
            for block in range(block_count(entry.size_bytes))
        )

    def _prime(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Have the kernel read; it holds up who asks for more than the disk does."""
        for index, block in blocks:
            if self._stop.is_set():
                return
            try:
                self._loader.prime(self._manifest, self._manifest.files[index], block)
            except (Corrupt, OSError):
                return  # found, and said, by who reads it

    def _work(self, check: Callable[[], None]) -> None:
        while not self._stop.is_set():
            check()
            if self._pace.is_fast:
                self._stop.wait(LOOK_S)
                continue
            with self._lock:
                here = self._blocks.popleft() if self._blocks else None
            if here is None:
                return
            if here not in self._noted:
                self._prove(*here)
            with self._lock:
                self._done += 1
                self._progress(self._done / self._total)

    def _prove(self, index: int, block: int) -> None:
        head, file = self._head, self._manifest.files[index]
        try:
            self._loader.load(self._manifest, file, block)
        except Corrupt as error:
            entry = head.files[index]
            damage = Damage(head.job, head.version, entry.unit, entry.name, block, str(error))
            self.found.append(damage)
            for pack in self._loader.suspects(self._manifest, file, block):
                self._suspect(pack)


def _nothing() -> None:
    """The first thread checks for all."""
