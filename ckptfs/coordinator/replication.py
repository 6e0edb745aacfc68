"""Copies on volumes: when rounds run, what the jobs want, and what root asks of volumes.

A round begins when a version appears or changes, when a volume or a level changes, and every half
minute.  It gives way to checkpoints and restarts before each MiB.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from ..errors import CkptfsError, InvalidInput, NotAuthorised, OutOfRange, Unsupported
from ..ids import JobId, Version
from ..jobs.checkpointing_block import REPLICATION_MAX
from ..model import Caller
from ..security.access import ROOT_UID
from ..store.copies_api import VolumeStatus
from ..store.copies_plan import Key
from ..store.copies_record import PLAIN
from .awaiting import note_reached
from .lost_heads import lost_sentence, take_in
from .parts import Parts

log = logging.getLogger(__name__)
EVERY_S = 30.0
GOOD = frozenset({"up", "draining", "stale"})  # states of a volume that are no trouble


class Replication:
    """One round at a time.  Trio thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._copies = parts, parts.copies
        self._copies.local_domain = parts.node.name
        self._wanted = trio.Event()
        self._copies.wanted = self.wake
        self._released = trio.Event()  # set whenever a job's lock is given back
        parts.registry.on_release(lambda _job, _operation: self._released.set())
        parts.registry.subscribe(self._noticed)

    def _noticed(self, _job: JobId | None, version: Version | None) -> None:
        self._released.set()  # an operation may have stood aside
        if version is not None:
            self._wanted.set()

    def rows(self) -> tuple[VolumeStatus, ...]:
        """Return what is known of each volume beside the local one."""
        return tuple(self._copies.rows())

    def count(self, job: JobId, version: Version) -> int:
        """Return in how many failure domains a version is whole, as of the last round."""
        return self._copies.count(job, version)

    def troubles(self) -> list[str]:
        """Return one sentence per volume that does not work, or lacks a key."""
        down = [
            f"volume {row.name} ({row.directory}) is {row.state}: {row.reason}"
            for row in self._copies.rows()
            if row.state not in GOOD
        ] + self._unreachable()
        first = [lost_sentence(self._copies.lost()), self._copies.trouble]
        return [*filter(None, first), *down, *sorted(self._copies.locked)]

    def _unreachable(self) -> list[str]:
        """Return one sentence when jobs want more copies than there can be."""
        domains = self._copies.domains()
        wanting = [
            job
            for job in self._parts.registry.jobs.values()
            if job.versions and job.replication > domains
        ]
        if not wanting:
            return []
        most, more = max(wanting, key=lambda job: job.replication), len(wanting) - 1
        others = f" and {more} other job{'s' * (more > 1)} more than there can be" if more else ""
        return [
            f"{most.id} wants {most.replication} copies{others}, and there "
            f"{'is' if domains == 1 else 'are'} {domains} failure domain{'s' * (domains != 1)}: "
            "see ckptfs volume"
        ]

    def levels(self) -> dict[JobId, int]:
        """Return how many copies each job wants."""
        return {job.id: job.replication for job in self._parts.registry.jobs.values()}

    def state_text(self, job: JobId, version: Version) -> str:
        """Return ``replicating 1/3`` while copies are missing, else nothing."""
        known = self._parts.registry.jobs.get(job)
        copies = self._copies.count(job, version)
        if known is None or copies >= known.replication:
            return ""
        return f"replicating {copies}/{known.replication}"

    def check_level(self, level: int) -> None:
        """Raise OutOfRange (ERANGE) beyond 1…16, Unsupported above the number of domains."""
        if not 1 <= level <= REPLICATION_MAX:
            raise OutOfRange(f"replication is 1 to {REPLICATION_MAX}, not {level}")
        domains = self._copies.domains()
        if level > domains:
            raise Unsupported(
                f"{level} copies need as many failure domains, and there "
                f"{'is' if domains == 1 else 'are'} {domains}: see ckptfs volume add"
            )

    def wake(self) -> None:
        """Have a round soon."""
        self._wanted.set()

    async def request(
        self, caller: Caller, verb: str, name: str, domain: str = "", seal: str = PLAIN
    ) -> str:
        """Add, drain, use again (up) or let go (rm) a volume; return its name.  Root only.

        Raises NotAuthorised, InvalidInput, and what `CopiesPort` raises.
        """
        if caller.uid != ROOT_UID:
            raise NotAuthorised("only root may change volumes")
        if verb == "add":
            name = await self._add(name, domain, seal)
        elif verb == "rm":
            await self._copies.remove(name, self.levels())
        else:
            self._copies.set_draining(name, verb == "drain")
        log.info("volume %s: %s", name, verb)
        self._parts.registry.changed(None)
        self.wake()
        return name

    async def _add(self, directory: str, domain: str, seal: str) -> str:
        mountpoint = str(self._parts.mountpoint)
        if f"{directory}/".startswith(f"{mountpoint}/"):
            raise InvalidInput(f"{directory} lies in the mount itself")
        try:
            return await self._copies.add(directory, domain, seal)
        except OSError as error:
            raise InvalidInput(f"{directory} cannot be a volume: {error.strerror}") from error

    async def keep_going(self) -> None:
        """Run rounds until cancelled."""
        while True:
            self._wanted = trio.Event()
            try:
                await self._round()
            except (CkptfsError, OSError) as error:
                log.error("replication: %s", error)
            if self._copies.unfinished:
                continue
            with trio.move_on_after(EVERY_S):
                await self._wanted.wait()

    async def _round(self) -> None:
        registry, mended = self._parts.registry, self._copies.mended()
        lost = self._copies.lost()
        if not await self._copies.round(self.levels(), self._pace):
            return
        for job in list(registry.jobs.values()):
            note_reached(self._parts, job)
            for version in job.versions:
                registry.changed(job.id, version)
        back = take_in(self._parts, lost)
        registry.changed(None)
        self._parts.garbage.ring()  # what waited for copies of its successor may go now
        if self._copies.mended() > mended:
            self._parts.count("objects_mended", self._copies.mended() - mended)
            await self._prove_again(back)

    async def _prove_again(self, back: Collection[Key]) -> None:
        """Versions known to be damaged may be whole now; what came *back* may lack something."""
        store = self._parts.store
        for job in store.jobs():
            for version in store.versions(job):
                if (job, version) in back or store.damage(job, version):
                    await self._pace(0)
                    await store.verify(job, version)
                    self._parts.registry.changed(job, version)

    async def _pace(self, _size: int) -> None:
        """Return when bytes may be moved: never while a checkpoint or restart is under way."""
        while self._parts.registry.is_in_the_way():
            self._released = trio.Event()
            await self._released.wait()
        await trio.lowlevel.checkpoint()
