"""Room on the disk: promised before the first byte, and counted.

A promise is kept in memory, the session file says how much it was.  Promised
and not yet written bytes of all versions, and a floor that deletion and heads
need, are taken off what the file system reports as free.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import StoreFull
from .packs import failure_of
from .volume import Volume

FLOOR = 16 << 20  # bytes never promised: manifests, heads, markers, removal at a full disk
RESERVE_PARTS = 100  # no new version is begun into the last part of so many of the disk,
RESERVE_MAX = 1 << 30  # or into the last so many bytes: versions under way may still need them
STEP = 64 << 20  # bytes a promise grows by when a version turns out larger than expected
FOR_METADATA = 64  # one byte in so many again: manifest and page table


class Promise:
    """Bytes promised to one version."""

    def __init__(self, space: Space, size: int, written: Callable[[], int]) -> None:
        self._space = space
        self._written = written
        self.reserved_bytes = size

    @property
    def outstanding_bytes(self) -> int:
        """Promised and not yet on the disk."""
        return max(0, self.reserved_bytes - self._written())

    def ensure(self, needed_bytes: int) -> None:
        """Grow the promise to *needed_bytes*.  Raises StoreFull, and leaves it as it was."""
        while needed_bytes > self.reserved_bytes:
            # where a whole step does not fit, what is really needed still may
            missing = min(STEP, needed_bytes - self.reserved_bytes)
            step = STEP if self._space.spare_bytes >= STEP else missing
            self._space.check(step)
            self.reserved_bytes += step

    def release(self) -> None:
        """Give back what is left.  May be repeated."""
        self._space.release(self)


class Space:
    """The promises of a store."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._promises: set[Promise] = set()

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised to running checkpoints and not yet written."""
        return sum(promise.outstanding_bytes for promise in self._promises)

    @property
    def spare_bytes(self) -> int:
        """Bytes that are neither used nor promised nor needed for removal; may be negative.

        Raises Degraded when the disk does not say.
        """
        try:
            free, _ = self._volume.free_and_total()
        except OSError as error:
            raise failure_of(error) from error
        return free - self.reserved_bytes - FLOOR

    def check_begin(self, size: int) -> None:
        """Raise StoreFull unless a new version of *size* bytes leaves the reserve alone."""
        try:
            _, total = self._volume.free_and_total()
        except OSError as error:
            raise failure_of(error) from error
        self.check(size, min(total // RESERVE_PARTS, RESERVE_MAX) - FLOOR)

    def check(self, size: int, reserve: int = 0) -> None:
        """Raise StoreFull unless *size* more bytes can be promised and *reserve* stays free."""
        spare = self.spare_bytes - max(0, reserve)
        if spare < size:
            raise StoreFull(
                f"the store has room for {max(0, spare)} bytes, the checkpoint may need {size};"
                " remove versions and free them at once (ckptfs gc --empty-trash),"
                " or enlarge the disk"
            )

    def promise(self, size: int, written: Callable[[], int]) -> Promise:
        """Promise *size* bytes; *written* tells how many reached the disk.  Raises StoreFull."""
        size += size // FOR_METADATA
        self.check_begin(size)
        promise = Promise(self, size, written)
        self._promises.add(promise)
        return promise

    def release(self, promise: Promise) -> None:
        """Forget a promise.  May be repeated."""
        self._promises.discard(promise)
