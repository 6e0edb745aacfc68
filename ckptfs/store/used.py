"""How the space of a store is used: sums that are kept, counted once in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from ..ids import JobId, Version
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

    def usage(self) -> Usage:
        """See Store.  Raises OSError."""
        free, total = self._volume.free_and_total()
        counted, accounts = self._volume.counted, self._versions.accounts
        if not self._is_counting:
            accounts.fill(() if self._is_counted else self._versions.keys())
            self._is_counted = True
            counted.look()
        packs, stored = counted.sums()
        return Usage(
            total_bytes=total,
            free_bytes=free,
            reserved_bytes=self._reserved(),
            stored_bytes=stored,
            logical_bytes=accounts.logical_bytes,
            versions=self._versions.count(),
            packs=packs,
            is_counting=self._is_counting,
        )

    async def count(self) -> None:
        """See Store.  Raises OSError."""
        self._is_counting = True
        try:
            await trio.to_thread.run_sync(self._volume.counted.look)
            versions = self._versions
            await versions.accounts.fill_in_background(versions.keys(), versions.is_present)
            self._is_counted = True
            await trio.to_thread.run_sync(versions.index_keeper())
        finally:
            self._is_counting = False

    def account(self, job: JobId, version: Version) -> Account:
        """See Store."""
        self._versions.check_present(job, version)
        return self._versions.accounts.get((job, version))

    async def added_bytes(self, job: JobId) -> Mapping[Version, int]:
        """See Store."""
        return await self._footprint.added_bytes(job)
