"""What a job holds in the store, shared pages counted once.

A page comes from the version before, so the versions that have it are neighbours, and the sum
over what each version has and the one before it has not is what all of them hold together.  Where
the version before is still the one that was there at the commit, the head says it (what it put
into the store); manifests are compared only where versions between went.  At most one comparison
per gap, and the answer never changes.
"""

from __future__ import annotations

import contextlib
from functools import partial

import numpy as np
import trio

from ..errors import Corrupt, NotFound
from ..ids import JobId, Version
from ..model import Head
from .pages import PAGE, U32
from .versions import Versions, manifest_of, pages_by_pack
from .volume import LocalVolume

BREATH = 200  # versions looked at before others get their turn
Key = tuple[JobId, Version, Version | None]  # a version, and the one that is now before it


class Footprint:
    """See Store.added_bytes.  Trio thread; manifests are read and compared in a worker thread."""

    def __init__(self, versions: Versions, volume: LocalVolume) -> None:
        self._versions, self._volume = versions, volume
        self._known: dict[JobId, dict[Key, int]] = {}

    async def added_bytes(self, job: JobId) -> dict[Version, int]:
        """Return what each version adds; one whose head cannot be read adds nothing."""
        numbers = self._versions.versions(job)
        keys = [(job, v, before) for v, before in zip(numbers, [None, *numbers], strict=False)]
        known = self._known.setdefault(job, {})
        for at, key in enumerate(keys):
            if key not in known:
                known[key] = await self._added(key)  # kept also when we are cancelled later
            elif at % BREATH == 0:
                await trio.lowlevel.checkpoint()
        found = {key: known[key] for key in keys if key in known}
        self._known[job] = found  # what is not asked for any more is forgotten
        return {version: size for (_, version, _), size in found.items()}

    async def _added(self, key: Key) -> int:
        job, version, before = key
        try:
            account = self._versions.accounts.get((job, version))
            if account.parent == before:
                await trio.lowlevel.checkpoint()
                return account.stored_bytes
            return await trio.to_thread.run_sync(partial(self._compare, job, version, before))
        except (Corrupt, NotFound):
            return 0

    def _compare(self, job: JobId, version: Version, before: Version | None) -> int:
        """Worker thread."""
        head = self._versions.load_head(job, version)
        mine = self._pages(head)
        theirs: dict[str, U32] = {}
        if before is not None:
            with contextlib.suppress(Corrupt):
                theirs = self._pages(self._versions.load_head(job, before))
        return PAGE * only_in(mine, theirs) + self._volume.documents_bytes(manifest_of(head))

    def _pages(self, head: Head) -> dict[str, U32]:
        manifest = manifest_of(head)
        return pages_by_pack(self._versions.load_manifest(manifest)) if manifest else {}


def only_in(mine: dict[str, U32], theirs: dict[str, U32]) -> int:
    """Return how many pages of *mine* are not among *theirs*; both are sorted sets.  Pure."""
    return sum(
        len(np.setdiff1d(pages, theirs[pack], assume_unique=True)) if pack in theirs else len(pages)
        for pack, pages in mine.items()
    )
