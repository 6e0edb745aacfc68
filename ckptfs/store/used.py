"""How the space of a store is used: sums that are kept, counted once in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from ..ids import JobId, Version
from .accounts import Kind
from .api import Account, Usage
from .footprint import Footprint
from .versions import Versions
from .volume import LocalVolume


class Used:
    """See Store.usage, count, account, added_bytes.  *reserved*: bytes promised.  Trio thread."""

    def __init__(
        self, volume: LocalVolume, versions: Versions, reserved: Callable[[], int]
    ) -> None:
        self._volume, self._versions, self._reserved = volume, versions, reserved
        self._footprint = Footprint(versions, volume)
        self._is_counting = self._is_counted = False
        self._heads_read = trio.Event()  # of the count under way, or given up

    def usage(self) -> Usage:
        """See Store.  Raises OSError."""
        free, total = self._volume.free_and_total()
        counted, accounts = self._volume.counted, self._versions.accounts
        is_current = False
        if not self._is_counting:
            self._fill()
            is_current = counted.glance()
        packs, stored = counted.sums()
        return Usage(
            total_bytes=total,
            free_bytes=free,
            reserved_bytes=self._reserved(),
            stored_bytes=stored,
            logical_bytes=accounts.logical_bytes,
            versions=self._versions.count(),
            packs=packs,
            hollow_bytes=counted.hollow_bytes(),
            is_counting=not is_current,
        )

    def _fill(self) -> None:
        if not self._is_counted:
            self._versions.accounts.fill(self._versions.keys())
            self._is_counted = True

    def is_counted(self) -> bool:
        """See Store."""
        return not self._is_counting or self._heads_read.is_set()

    async def wait_counted(self) -> None:
        """See Store."""
        while not self.is_counted():
            await self._heads_read.wait()
        await trio.lowlevel.checkpoint()

    def totals(self, job: JobId) -> Mapping[Kind, tuple[int, int]]:
        """See Store."""
        if not self._is_counting:
            self._fill()
        return self._versions.accounts.totals(job)

    async def count(self) -> None:
        """See Store.  Raises OSError."""
        self._is_counting, self._heads_read = True, trio.Event()
        try:
            versions = self._versions  # first: charges and listings wait for the heads alone
            await versions.accounts.fill_in_background(versions.keys(), versions.is_present)
            self._is_counted = True
            self._heads_read.set()
            await trio.to_thread.run_sync(versions.index_keeper())
            await trio.to_thread.run_sync(self._volume.counted.look)
        finally:
            self._is_counting = False
            self._heads_read.set()

    def account(self, job: JobId, version: Version) -> Account:
        """See Store."""
        self._versions.check_present(job, version)
        return self._versions.accounts.get((job, version))

    async def added_bytes(self, job: JobId) -> Mapping[Version, int]:
        """See Store."""
        return await self._footprint.added_bytes(job)
