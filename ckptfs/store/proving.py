"""Reading everything of a version before a restart relies on it.  Blocking; runs in worker threads.

Every byte that reaches a process is proved again when it is read, so this pass
need not go past the page cache as a verification does: it is there so that a
damaged version is refused, file and block named, before anything is touched.
Two threads: BLAKE3 and pread release the GIL (1.0 GiB in the page cache: 0.24 s
with one, 0.18 s with two).  Where it is not there a third has the kernel read
ahead of them (five packs, disk of 0.7 GB/s: 1.2 s instead of 2.6 s).

The pass goes from the end to the beginning and leaves out what readers have had
loaded since it began: who reads the version meanwhile comes from the other side.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..errors import Corrupt
from ..model import Head
from .api import Damage
from .blocks import BlockLoader
from .manifest import Manifest
from .pages import block_count
from .verification import find_mismatches

THREADS = 2


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
        noted: Container[tuple[int, int]],
    ) -> None:
        self._head, self._manifest, self._loader = head, manifest, loader
        self._progress, self._suspect, self._noted = progress, suspect, noted
        self._blocks: list[tuple[int, int]] = []  # file, block; in the order of the files
        self._total = 1
        self._lock = threading.Lock()
        self._done = 0
        self._stop = False
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
                self._stop = True
        self.found.sort(key=lambda damage: (damage.unit, damage.name, damage.block))
        return self.found

    def _in_order(self, up_to_bytes: int) -> list[tuple[int, int]]:
        return [
            (index, block)
            for index, entry in enumerate(self._head.files)
            if entry.size_bytes <= up_to_bytes
            for block in range(block_count(entry.size_bytes))
        ]

    def _prime(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Have the kernel read from both ends; it holds up who asks for more than the disk does."""
        pairs = zip(reversed(blocks), blocks, strict=True)
        for pair in itertools.islice(pairs, (len(blocks) + 1) // 2):
            for index, block in pair:
                if self._stop:
                    return
                try:
                    self._loader.prime(self._manifest, self._manifest.files[index], block)
                except (Corrupt, OSError):
                    return  # found, and said, by who reads it

    def _work(self, check: Callable[[], None]) -> None:
        while not self._stop:
            check()
            with self._lock:
                here = self._blocks.pop() if self._blocks else None
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
