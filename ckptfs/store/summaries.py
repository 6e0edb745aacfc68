"""What is known of versions without reading anything, and counting what each of them holds alone.

What a version holds alone is counted against the nearest older and newer version of the job.  That
is enough: a page comes from the version before, so whoever else in the job has it, a neighbour has
it too.  A clone's pages count as its own.  The answer holds as long as the neighbours are these, so
it is kept in the index of the heads: 10 000 versions take 30 s to count, once.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import trio

from ..errors import Corrupt, NotFound
from ..ids import JobId, Version
from ..model import Head
from .api import Account, Alone, Pause
from .damage import DamageBook
from .index import PACK_PAGES
from .manifest import Manifest
from .pages import PAGE
from .versions import Versions, manifest_of
from .volume import LocalVolume

PAGES_KEPT = 3  # a version and its neighbours: 8 bytes per page each, while a job is counted
ID_DIGITS = 12  # hexadecimal: 48 bits tell the packs of three versions apart
Keys = npt.NDArray[np.uint64]  # sorted, each once: pack and page
Key = tuple[JobId, Version]


class Summaries:
    """See api.Summaries.  Trio thread only."""

    def __init__(self, versions: Versions, volume: LocalVolume, damage: DamageBook) -> None:
        self._versions, self._volume, self._damage = versions, volume, damage
        self._failed: dict[Key, Alone] = {}  # cannot be counted while it is so

    def account(self, job: JobId, version: Version) -> Account | None:
        """See api.Summaries."""
        return self._versions.accounts.known((job, version))

    def moment(self) -> object:
        """See api.Summaries."""
        return self._versions.arrivals, self._damage.changes

    def unread(self) -> int:
        """See api.Summaries."""
        return self._versions.accounts.unread(self._versions.count())

    def alone_bytes(self, job: JobId, version: Version) -> int | None:
        """See api.Summaries."""
        account = self.account(job, version)
        alone = account.alone if account else None
        alone = alone or self._failed.get((job, version))
        if alone and (alone.before, alone.after) == self._versions.around((job, version)):
            return alone.size_bytes
        return None

    def unique_bytes(self, job: JobId, version: Version) -> int:
        """See Store.unique_bytes.  Raises NotFound, Corrupt."""
        self._versions.check_present(job, version)
        known = self.alone_bytes(job, version)
        if known:
            return known
        around = self._versions.around((job, version))
        size = _Counting(self._versions, self._volume, job).alone(version, *around)
        self._versions.accounts.get((job, version))
        self._versions.accounts.note_alone((job, version), Alone(size, *around))
        return size

    async def count_alone(
        self, job: JobId, version: Version | None = None, pace: Pause | None = None
    ) -> None:
        """See api.Summaries."""
        counting = _Counting(self._versions, self._volume, job)
        wanted = self._versions.versions(job) if version is None else [version]
        for number in wanted:
            key = (job, number)
            if self.alone_bytes(*key) is not None or not self._versions.is_present(key):
                continue
            if pace:
                await pace()
            around = self._versions.around(key)
            try:
                size = await trio.to_thread.run_sync(counting.alone, number, *around)
            except (Corrupt, NotFound):
                self._failed[key] = Alone(0, *around)
            else:
                self._failed.pop(key, None)
                self._versions.accounts.note_alone(key, Alone(size, *around))


class _Counting:
    """Reads the manifests of one job, each once where its versions are counted in order.

    Worker threads, one at a time.
    """

    def __init__(self, versions: Versions, volume: LocalVolume, job: JobId) -> None:
        self._versions, self._volume, self._job = versions, volume, job
        self._pages: OrderedDict[Version, Keys] = OrderedDict()

    def alone(self, version: Version, before: Version | None, after: Version | None) -> int:
        """Return the bytes that *version* alone holds.  Raises Corrupt."""
        head = self._versions.load_head(self._job, version)
        mine = self._pages_of(version, head)
        left = np.ones(len(mine), dtype=np.bool_)
        for neighbour in (before, after):
            if neighbour is not None:
                with contextlib.suppress(Corrupt):
                    left &= ~_found(mine, self._pages_of(neighbour))
        return int(left.sum()) * PAGE + self._volume.documents_bytes(manifest_of(head))

    def _pages_of(self, version: Version, head: Head | None = None) -> Keys:
        if version not in self._pages:
            head = head or self._versions.load_head(self._job, version)
            name = manifest_of(head)
            manifest = self._versions.read_manifest(name) if name else None
            self._pages[version] = keys_of(manifest) if manifest else np.empty(0, dtype=np.uint64)
        self._pages.move_to_end(version)
        while len(self._pages) > PAGES_KEPT:
            self._pages.popitem(last=False)
        return self._pages[version]


def keys_of(manifest: Manifest) -> Keys:
    """Return the pages that *manifest* refers to, comparable with those of others.  Pure."""
    places = np.sort(np.concatenate([file.places for file in manifest.files]))
    fresh = places != 0
    fresh[1:] &= places[1:] != places[:-1]
    places = places[fresh]
    packs = np.array([int(pack[:ID_DIGITS], 16) for pack in manifest.packs], dtype=np.uint64)
    keys = packs[places // PACK_PAGES] * np.uint64(PACK_PAGES)
    return np.sort(keys + (places % PACK_PAGES).astype(np.uint64))


def _found(mine: Keys, theirs: Keys) -> npt.NDArray[np.bool_]:
    """Return which of *mine* are among *theirs*.  Pure."""
    if not len(theirs):
        return np.zeros(len(mine), dtype=np.bool_)
    at = np.searchsorted(theirs, mine)
    at[at == len(theirs)] = 0
    return theirs[at] == mine
