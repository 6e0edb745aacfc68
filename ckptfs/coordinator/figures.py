"""What is counted of the service beside its counters: queues, what runs, how long jobs stood still.

Asked for by whoever reads ``ctl/stat`` or ``ctl/metrics``; nothing here is kept but the times.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import CkptfsError
from ..ids import JobId, Version
from .collecting import Collecting
from .histogram import Histogram
from .parts import Parts
from .scrub import Scrub

US = 1_000_000


class Figures:
    """Trio thread only."""

    def __init__(self, parts: Parts, *, scrub: Scrub, collecting: Collecting) -> None:
        self._parts, self._scrub, self._collecting = parts, scrub, collecting
        self._began_ns = parts.clock_ns()
        self._counted: dict[JobId, Version] = {}  # newest version whose stop was counted
        self.stops = Histogram()
        parts.registry.subscribe(self._noticed)

    def _noticed(self, job: JobId | None, version: Version | None) -> None:
        """Count the stop of a version that this service has taken, once."""
        if job is None or version is None or version <= self._counted.get(job, 0):
            return
        try:
            account = self._parts.store.account(job, version)
            if account.committed_ns < self._began_ns:
                return  # pinned, verified or brought back
            self.stops.add(self._parts.store.head(job, version).frozen_usec / US)
        except CkptfsError:
            return  # removed, or its head cannot be read
        self._counted[job] = version

    def levels(self) -> Mapping[str, int]:
        """Return figures that go up and down."""
        short, missing = self._copies_missing()
        staging = self._parts.staging.values()
        return {
            "versions_in_work": len(staging),
            "bytes_in_work": sum(ingest.progress_bytes() for ingest in staging),
            "versions_short_of_copies": short,
            "copies_missing": missing,
            "packs_in_quarantine": self._parts.store.quarantined(),
            **self._collecting.levels(),
            **self._scrub.levels(),
        }

    def _copies_missing(self) -> tuple[int, int]:
        """Return (versions that have fewer copies than their job wants, copies they lack)."""
        lacking = [
            job.replication - copies
            for job in self._parts.registry.jobs.values()
            if job.replication > 1
            for version in job.versions
            if (copies := self._parts.copies.count(job.id, version)) < job.replication
        ]
        return len(lacking), sum(lacking)
