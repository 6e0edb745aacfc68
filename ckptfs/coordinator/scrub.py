"""The scrub: every version is read and proved again, slowly, those verified longest ago first; then
the copies on the volumes.

It finds what nobody reads.  A damaged version is known as such from then on
(`ctl/state`, `ctl/degraded`, `ctl/health`), its bad packs go to quarantine, and
the next version of the job writes those pages anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from ..errors import Busy, CkptfsError, Corrupt, NotAuthorised, NotFound
from ..ids import JobId, Version
from ..model import Caller
from ..security.access import ROOT_UID
from .pacing import Pacing, is_loaded
from .parts import Parts
from .scrub_record import (
    BY_HAND,
    NOTHING,
    ScrubRecord,
    decode_record,
    encode_record,
    idle_text,
    oldest_first,
)

log = logging.getLogger(__name__)
RATE = 64 << 20  # bytes per second: a tenth of what one thread reads and proves
RATE_UNDER_LOAD = RATE // 16  # never nothing, or a busy machine would never be scrubbed
EVERY_NS = 7 * 24 * 3600 * 10**9
DUE_CHECK_S = 3600.0
KEEP_EVERY = 16  # packs between two notes of the cursor
SCRUBBED = frozenset({"up", "draining", "full", "readonly"})  # states of a volume that can be read


class Scrub:
    """One run at a time.  Trio thread only."""

    def __init__(self, parts: Parts, loaded: Callable[[], bool] = is_loaded) -> None:
        self._parts = parts
        self._pacing = Pacing(parts.registry, RATE, RATE_UNDER_LOAD, loaded)
        self._record = NOTHING
        self._scope: trio.CancelScope | None = None  # of the run under way
        self._total = self._done = 0  # bytes of the run under way
        self._share = 0  # percent, as last told

    def text(self) -> str:
        """Return ``running 40%``, or ``idle`` and how the last run ended."""
        return f"running {self._share}%" if self._scope else idle_text(self._record)

    def levels(self) -> Mapping[str, int]:
        """Return figures that go up and down."""
        return {
            "scrub_running": int(self._scope is not None),
            "scrub_last_ended_seconds": self._record.last_ended_ns // 10**9,
        }

    def alarm(self) -> str:
        """Return one sentence when a run was given up, else nothing."""
        stopped = self._record.stopped
        if not stopped or stopped == BY_HAND:
            return ""
        return f"the scrub stopped: {stopped}; see ctl/degraded, and look at the disk's own log"

    def request(self, caller: Caller, *, on: bool) -> None:
        """Begin a run, or stop it; a stopped one is gone on with.

        Raises NotAuthorised (EPERM) for all but root, Busy while one runs, Degraded, StoreFull.
        """
        if caller.uid != ROOT_UID:
            raise NotAuthorised("only root may scrub the store")
        if on and self._scope:
            raise Busy("the scrub is running already")
        if on:
            self._begin()
        elif self._scope:
            self._keep(self._record.stopped_by_hand())
            self._scope.cancel()

    async def keep_going(self) -> None:
        """Go on with a run that was cut off, and begin one every week; until cancelled."""
        self._load()
        if self._record.started_ns and not self._record.stopped:
            self._start()
        while True:
            await trio.sleep(DUE_CHECK_S)
            last_ns = max(self._record.last_ended_ns, self._record.started_ns)
            due = self._parts.clock_ns() - last_ns > EVERY_NS
            if due and not self._scope and not self._record.stopped:
                try:
                    self._begin()
                except CkptfsError as error:  # read-only or full: there is a sentence on that
                    log.warning("no scrub: %s", error)

    def _load(self) -> None:
        try:
            self._record = decode_record(self._parts.store.scrub_record())
        except Corrupt as error:
            log.warning("%s; it begins anew", error)

    def _begin(self) -> None:
        self._keep(self._record.begun(self._parts.clock_ns()))
        self._start()

    def _start(self) -> None:
        self._scope = trio.CancelScope()
        self._share = 0
        self._parts.background.spawn("scrub", self._run)
        self._parts.registry.changed(None)

    def _keep(self, record: ScrubRecord) -> None:
        self._parts.store.keep_scrub_record(encode_record(record))
        self._record = record

    async def _run(self) -> None:
        assert self._scope
        try:
            with self._scope:
                await self._read_all()
        except CkptfsError as error:
            log.error("the scrub was given up: %s", error)
        finally:
            self._scope = None
            self._parts.registry.changed(None)

    async def _read_all(self) -> None:
        store = self._parts.store
        every = [
            (store.verified_ns(job, version), job, version)
            for job in store.jobs()
            for version in store.versions(job)
        ]
        due = oldest_first(self._record, every)
        volumes = [row for row in self._parts.copies.rows() if row.state in SCRUBBED]
        self._total = sum(self._size(job, version) for job, version in due)
        self._total += sum(row.used_bytes for row in volumes) + store.usage().stored_bytes
        self._done = 0
        for job, version in due:
            await self._verify(job, version)
            if self._record.stopped:
                log.error("the scrub stopped: %s", self._record.stopped)
                return
        await self._read_packs()
        if self._record.stopped:
            log.error("the scrub stopped: %s", self._record.stopped)
            return
        for row in volumes:
            await self._read_copies(row.name)
        self._keep(self._record.ended(self._parts.clock_ns()))
        log.info("scrubbed %d versions, %d errors", len(due), self._record.last_errors)

    async def _read_packs(self) -> None:
        """Read every byte of the packs: also what no block of a version covers."""
        count = 0

        def note(name: str, is_good: bool) -> bool:
            nonlocal count
            count += 1
            record = self._record.read_pack(name, is_good=is_good)
            if not is_good:
                self._parts.count("damage_found")
            if not is_good or count % KEEP_EVERY == 0:
                self._keep(record)
            return not record.stopped

        await self._parts.copies.scrub_packs(self._pace, self._record.pack, note)
        log.info("scrubbed %d packs", count)

    async def _read_copies(self, volume: str) -> None:
        """Read the copies on a volume; replication makes damaged ones again."""
        count, damaged = await self._parts.copies.scrub(
            volume,
            self._pace,
            since_ns=self._record.started_ns,
            clock_ns=self._parts.clock_ns,
        )
        log.info("scrubbed %d copies on volume %s, %d damaged", count, volume, damaged)
        if damaged:
            self._parts.count("damage_found", damaged)
            self._keep(self._record.found_copies(damaged))

    def _size(self, job: JobId, version: Version) -> int:
        try:
            return self._parts.store.account(job, version).logical_bytes
        except CkptfsError:
            return 0  # said when it is verified

    async def _verify(self, job: JobId, version: Version) -> None:
        store, registry = self._parts.store, self._parts.registry
        packs = store.quarantined()
        try:
            damage = await store.verify(job, version, pace=self._pace)
        except NotFound:
            return  # removed meanwhile
        if version not in store.versions(job):
            return  # likewise: its packs may have gone before they were read
        if damage:
            log.error("the scrub found version %d of %s damaged: %s", version, job, damage[0])
            self._parts.count("damage_found", len(damage))
        bad_packs = max(0, store.quarantined() - packs)
        if damage or bad_packs:
            self._keep(self._record.found(job, version, len(damage), bad_packs))
        self._parts.count("scrubbed_bytes", self._size(job, version))
        self._parts.count("scrubbed_versions")
        registry.changed(job, version)
        registry.changed(job)

    async def _pace(self, size: int) -> None:
        """Return when *size* bytes may be read: not during a checkpoint, not above the rate."""
        await self._pacing.wait(size)
        self._done += size
        share = min(99, 100 * self._done // self._total) if self._total else 0
        if share != self._share:
            self._share = share
            self._parts.registry.changed(None)
