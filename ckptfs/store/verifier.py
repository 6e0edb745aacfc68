"""Which pass goes over a version, in which thread, and how far it has come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from ..errors import Corrupt
from ..ids import JobId, UnitName, Version
from ..model import Head
from .api import Damage
from .blocks import BlockLoader
from .damage import DamageBook
from .manifest import Manifest
from .pages import BLOCK
from .proving import Proof
from .reader import BlockCache
from .verification import verify_files
from .versions import Versions

VERIFIERS = 1  # verifications and sums at the same time: each takes a core


def _forget(_: float) -> None:
    """Take note of nothing."""


class Verifier:
    """The passes of one store.  Trio thread but for the passes themselves."""

    def __init__(
        self, versions: Versions, loader: BlockLoader, damage: DamageBook, readers: BlockCache
    ) -> None:
        self._versions, self._loader, self._damage = versions, loader, damage
        self._readers = readers
        self._progress: dict[tuple[JobId, Version], float] = {}
        self.turns = trio.CapacityLimiter(VERIFIERS)

    def progress(self, job: JobId, version: Version) -> float | None:
        """0..1 while a pass over this version is shown, else None."""
        return self._progress.get((job, version))

    async def verify(self, job: JobId, version: Version) -> list[Damage]:
        """Prove everything from the disk, past every cache, when it is its turn."""
        async with self.turns:
            return await self._shown(job, version, partial(self._from_disk, wait=_forget))

    async def verify_paced(
        self, job: JobId, version: Version, wait: Callable[[int], None]
    ) -> list[Damage]:
        """Like `verify`, without a turn and without showing progress; *wait* in the thread."""
        work = partial(self._from_disk, job, version, _forget, wait=wait)
        return await trio.to_thread.run_sync(work)

    async def prove(self, job: JobId, version: Version, *, up_to_bytes: int) -> list[Damage]:
        """Prove the files up to this size (0: all) as readers get them, without a turn."""
        with suppress(Corrupt):
            head = self._versions.head(job, version)
            if any(entry.size_bytes > BLOCK for entry in head.files):
                self._readers.expect()  # what is proved is about to be read
        work = partial(self._as_read, up_to_bytes=up_to_bytes or sys.maxsize)
        return await self._shown(job, version, work)

    async def _shown(
        self, job: JobId, version: Version, work: Callable[..., list[Damage]]
    ) -> list[Damage]:
        def progress(part: float) -> None:
            self._progress[job, version] = part

        progress(0.0)
        try:
            return await trio.to_thread.run_sync(
                work, job, version, progress, limiter=trio.CapacityLimiter(1)
            )
        finally:
            self._progress.pop((job, version), None)  # a restart may prove beside a user

    # -- in worker threads -----------------------------------------------------------------------

    def _from_disk(
        self,
        job: JobId,
        version: Version,
        progress: Callable[[float], None],
        *,
        wait: Callable[[int], None],
    ) -> list[Damage]:
        def run(head: Head, manifest: Manifest) -> list[Damage]:
            suspect = partial(self._suspect, job, version)
            return verify_files(
                head, manifest, self._loader, progress=progress, suspect=suspect, wait=wait
            )

        return self._with_manifest(job, version, run)

    def _as_read(
        self,
        job: JobId,
        version: Version,
        progress: Callable[[float], None],
        *,
        up_to_bytes: int,
    ) -> list[Damage]:
        def run(head: Head, manifest: Manifest) -> list[Damage]:
            suspect = partial(self._suspect, job, version)
            with self._readers.noting(manifest.manifest_id) as noted:
                proof = Proof(
                    head,
                    manifest,
                    self._loader,
                    progress=progress,
                    suspect=suspect,
                    noted=noted,
                )
                return proof.run(trio.from_thread.check_cancelled, up_to_bytes=up_to_bytes)

        return self._with_manifest(job, version, run)

    def _with_manifest(
        self, job: JobId, version: Version, run: Callable[[Head, Manifest], list[Damage]]
    ) -> list[Damage]:
        """Run a pass with head and manifest as they are on the disk now."""
        try:
            head = self._versions.load_head(job, version)
            if not head.files:
                return []
            manifest = self._versions.load_manifest(head.files[0].manifest.partition(":")[0])
        except Corrupt as error:
            return [Damage(job, version, UnitName(""), "COMMIT", -1, str(error))]
        return run(head, manifest)

    def _suspect(self, job: JobId, version: Version, pack: str) -> None:
        # a removed version's packs may be gone; packs go after their heads, never before
        if self._versions.path(job, version).exists():
            self._damage.quarantine(pack)
