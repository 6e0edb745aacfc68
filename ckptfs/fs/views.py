"""What a control file's row is given: one object of the service, seen by one opener.

A view is made at open and holds no state of the object itself: every access
asks the service again, so that a removed object is noticed (ENODEV).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..coordinator.api import Job, Service
from ..errors import Gone, NotFound
from ..ids import JobId, Version, is_among
from ..node.api import Process
from .nodes import NO_VERSION
from .spool import Spool


@dataclass(slots=True)
class Recollection:
    """What the mount itself remembers of requests; lost at unmount.

    *submitted*: last id by uid.  *requests*: last text written to a verb, by
    job and file name.  *failures*: last refused request of a job, as
    ``<time> <file>: <sentence>``.
    """

    submitted: dict[int, JobId] = field(default_factory=dict[int, JobId])
    requests: dict[tuple[JobId, str], str] = field(default_factory=dict[tuple[JobId, str], str])
    failures: dict[JobId, str] = field(default_factory=dict[JobId, str])

    def forget(self, job: JobId) -> None:
        """Drop what is known of a removed job."""
        self.failures.pop(job, None)
        for key in [key for key in self.requests if key[0] == job]:
            del self.requests[key]


async def at_once(_seconds: float) -> None:
    """Do not pause."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all views share.  *clock_ns*: nanoseconds since the epoch."""

    service: Service
    spool: Spool
    recollection: Recollection
    clock_ns: Callable[[], int]
    load: Callable[[], float]  # of this machine, one minute
    pause: Callable[[float], Awaitable[None]] = at_once  # seconds


@dataclass(slots=True)
class ServiceView:
    """The service as *uid* sees it."""

    around: Surroundings
    uid: int

    @property
    def service(self) -> Service:
        """The coordinator."""
        return self.around.service


@dataclass(slots=True)
class JobView:
    """One job.  *processes* and *listing* are filled by a row's refresh at open."""

    around: Surroundings
    id: JobId
    processes: Sequence[Process] = ()
    listing: str = ""

    @property
    def service(self) -> Service:
        """The coordinator."""
        return self.around.service

    @property
    def job(self) -> Job:
        """The record.  Raises Gone (ENODEV) when the job was removed."""
        try:
            job = self.around.service.job(self.id)
        except NotFound:
            raise Gone(f"{self.id} was removed") from None
        if job.removed:
            raise Gone(f"{self.id} was removed")
        return job


@dataclass(slots=True)
class VersionView(JobView):
    """One committed version of a job."""

    version: Version = NO_VERSION

    def check(self) -> Job:
        """Return the job's record.  Raises Gone (ENODEV) when the version was removed."""
        job = self.job
        if not is_among(self.version, job.versions):
            raise Gone(f"version {self.version} of {self.id} was removed")
        return job
