"""What the verbs of the service share: the parts they work with, and their deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..catalog.connection import Connection
from ..gc.api import Sweeper
from ..ids import JobId, UnitName, Version
from ..jobs.directory import JobsDirectory
from ..node.api import NodePort
from ..store.api import Store
from ..store.copies_api import CopiesPort, NoCopies
from ..store.ingest_api import Ingest
from ..translib.api import Availability
from .background import Background, Bell
from .registry import Registry


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the units of a job may take for each order, in seconds.

    *request_s* bounds what happens inside a write(2); the mount gives up at 10 s.
    """

    request_s: float = 6.0
    stop_s: float = 10.0
    save_s: float = 600.0  # and *save_s_per_gib* on top
    save_s_per_gib: float = 60.0
    commit_s: float = 300.0
    resume_s: float = 15.0
    kill_s: float = 15.0
    verify_s: float = 3600.0
    rebuild_s: float = 1200.0
    copies_s: float = 300.0  # until as many copies are there as a checkpoint waits for
    copies_s_per_gib: float = 60.0  # on top
    thaw_s: float = 2.0  # waiting for an exit that a kill must have caused

    def saving(self, image_bytes: int) -> float:
        """Return how long images of this size may take to be written, in seconds."""
        return self.save_s + self.save_s_per_gib * image_bytes / (1 << 30)

    def copying(self, image_bytes: int) -> float:
        """Return how long a checkpoint waits for copies of images of this size, in seconds."""
        return self.copies_s + self.copies_s_per_gib * image_bytes / (1 << 30)

    def committing(self, image_bytes: int) -> float:
        """Return how long a commit may take, in seconds: what was spooled is hashed in it."""
        return self.commit_s + self.save_s_per_gib * image_bytes / (1 << 30)


@dataclass(frozen=True, slots=True)
class Parts:
    """Built once by the daemon; the verbs get it whole."""

    store: Store
    node: NodePort
    directory: JobsDirectory
    db: Connection
    registry: Registry
    background: Background
    mountpoint: Path
    clock_ns: Callable[[], int]
    deadlines: Deadlines = Deadlines()
    staging: dict[str, Ingest] = field(default_factory=dict[str, Ingest])
    availability: dict[str, Availability] = field(default_factory=dict[str, Availability])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    troubles: list[str] = field(default_factory=list[str])
    copies: CopiesPort = field(default_factory=NoCopies)
    garbage: Bell = field(default_factory=Bell)  # rung when the collector may find something
    sweeper: Sweeper | None = None  # None: nothing is collected

    def staging_directory(self, job: JobId, version: Version, unit: UnitName) -> Path:
        """Return where the image of a unit is written; below the mount, for root alone."""
        return self.mountpoint / ".staging" / staging_name(job, version) / unit

    def image_directory(self, job: JobId, version: Version, unit: UnitName) -> Path:
        """Return where a committed image is read from."""
        return self.mountpoint / job / str(version) / unit

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of the service's ``ctl/stat`` and ``ctl/events``."""
        self.counts[name] = self.counts.get(name, 0) + by
        self.registry.changed(None)

    def available(self) -> Mapping[str, Availability]:
        """Return what the checkpointers here can do, as of the last probe."""
        return self.availability


def make_parts(
    store: Store,
    node: NodePort,
    *,
    directory: Path,
    mountpoint: Path,
    clock_ns: Callable[[], int] = time.time_ns,
    deadlines: Deadlines | None = None,
    sweeper: Sweeper | None = None,
    copies: CopiesPort | None = None,
) -> Parts:
    """Return the parts of a service whose jobs are kept in *directory* (the store's).

    Makes ``jobs/``, ``logs/`` and ``catalog.db`` where they are missing.
    """
    jobs = JobsDirectory(directory / "jobs", directory / "logs")
    db = Connection(directory / "catalog.db")
    return Parts(
        store=store,
        node=node,
        directory=jobs,
        db=db,
        registry=Registry(jobs, db, clock_ns),
        background=Background(),
        mountpoint=mountpoint,
        clock_ns=clock_ns,
        deadlines=deadlines or Deadlines(),
        sweeper=sweeper,
        copies=copies or NoCopies(),
    )


def default_translib(parts: Parts) -> str:
    """Return the checkpointer that units get: the first that works here, by name."""
    names = sorted(name for name, entry in parts.available().items() if entry.available)
    return names[0] if names else "none"


def staging_name(job: JobId, version: Version) -> str:
    """Return the name of a version in work below ``.staging``."""
    return f"{job}.{version}"
