"""``.staging``: where checkpointers write their images, seen by root alone.  Pure.

A view of `Service.staging`: nothing is kept here but a serial number per
file, so that its inode number survives a rename.  When the version has been
committed or given up its session is no longer in the service's mapping, and
whoever still holds a descriptor gets ENODEV.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..coordinator.api import Service
from ..errors import CkptfsError, Exists, Gone, NotEmpty, NotFound
from ..ids import JobId, UnitName, Version
from ..store.ingest_api import Ingest, IngestFile

SAVED = "files"  # directory for output files kept with the version


def session_key(job: JobId, version: Version) -> str:
    """Return the name of the directory of a version in work."""
    return f"{job}.{version}"


@dataclass(slots=True)
class Staged:
    """One file in work."""

    serial: int
    service: Service
    ingest: Ingest
    unit: UnitName
    name: str
    file: IngestFile

    def check_live(self) -> None:
        """Raise Gone when the version has been committed or given up."""
        if (
            self.service.staging.get(session_key(self.ingest.job, self.ingest.version))
            is not self.ingest
        ):
            raise Gone("the version is not being written any more")


class Staging:
    """Files of the versions in work, by name and by serial."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._by_serial: dict[int, Staged] = {}
        self._by_name: dict[tuple[str, UnitName, str], Staged] = {}
        self._saved: set[tuple[str, UnitName]] = set()  # units whose files/ has been made
        self._known: dict[str, Ingest] = {}  # sessions that files are kept of
        self._serials = itertools.count(1)

    def forget_ended(self, *_changed: object) -> None:
        """Let go of versions no longer in work: what was to be written weighs 8 MB each.

        Called after each change of the service, so it looks at the sessions, not at the files.
        """
        live = self._service.staging
        if any(live.get(key) is not ingest for key, ingest in self._known.items()):
            self._prune()

    def sessions(self) -> list[tuple[str, Ingest]]:
        """Return the versions in work, sorted by name; forget what has ended."""
        self.forget_ended()
        return sorted(self._service.staging.items())

    def session(self, job: JobId, version: Version) -> Ingest:
        """Return a version in work.  Raises NotFound."""
        try:
            return self._service.staging[session_key(job, version)]
        except KeyError:
            raise NotFound(f"version {version} of {job} is not being written") from None

    def find_session(self, name: str) -> Ingest:
        """Return the version in work whose directory is called *name*.  Raises NotFound."""
        try:
            return self._service.staging[name]
        except KeyError:
            raise NotFound(f"no version in work is called {name!r}") from None

    def units(self, ingest: Ingest) -> list[UnitName]:
        """Return the units that may be written: those of the job."""
        try:
            return sorted(self._service.job(ingest.job).units)
        except CkptfsError:
            return []

    def names(self, job: JobId, version: Version, unit: UnitName) -> list[str]:
        """Return the names of the files of a unit, those below ``files/`` included, sorted."""
        return sorted(self.session(job, version).files(unit))

    def find(self, job: JobId, version: Version, unit: UnitName, name: str) -> Staged:
        """Return one file.  Raises NotFound."""
        ingest = self.session(job, version)
        try:
            file = ingest.files(unit)[name]
        except KeyError:
            raise NotFound(f"no file {name!r} in {unit}") from None
        return self._entry(ingest, unit, name, file)

    def by_serial(self, serial: int) -> Staged:
        """Return a file that the kernel still knows.  Raises Gone."""
        try:
            staged = self._by_serial[serial]
        except KeyError:
            raise Gone("the file is not being written any more") from None
        staged.check_live()
        return staged

    def create(self, job: JobId, version: Version, unit: UnitName, name: str) -> Staged:
        """Create or truncate a file.  Raises InvalidInput, NotFound, StoreFull, Degraded."""
        ingest = self.session(job, version)
        return self._entry(ingest, unit, name, ingest.create(unit, name))

    def unlink(self, job: JobId, version: Version, unit: UnitName, name: str) -> None:
        """Remove a file.  Raises NotFound."""
        staged = self.find(job, version, unit, name)
        staged.ingest.unlink(unit, name)
        self._forget(staged)

    def rename(self, job: JobId, version: Version, unit: UnitName, old: str, new: str) -> None:
        """Rename within a unit, replacing what is there.  Raises NotFound, InvalidInput."""
        staged = self.find(job, version, unit, old)
        if old == new:
            return
        staged.ingest.rename(unit, old, new)
        key = session_key(job, version)
        replaced = self._by_name.pop((key, unit, new), None)
        if replaced is not None:
            self._by_serial.pop(replaced.serial, None)
        self._by_name.pop((key, unit, old), None)
        staged.name = new
        self._by_name[key, unit, new] = staged

    def has_saved(self, job: JobId, version: Version, unit: UnitName) -> bool:
        """Return whether ``files/`` exists: made, or filled."""
        key = session_key(job, version)
        prefix = SAVED + "/"
        return (key, unit) in self._saved or any(
            name.startswith(prefix) for name in self.names(job, version, unit)
        )

    def make_saved(self, job: JobId, version: Version, unit: UnitName) -> None:
        """Make ``files/``.  Raises Exists."""
        if self.has_saved(job, version, unit):
            raise Exists(f"{unit}/{SAVED} is there already")
        self._saved.add((session_key(job, version), unit))

    def remove_saved(self, job: JobId, version: Version, unit: UnitName) -> None:
        """Remove an empty ``files/``.  Raises NotFound, NotEmpty."""
        if not self.has_saved(job, version, unit):
            raise NotFound(f"no {unit}/{SAVED}")
        if any(name.startswith(SAVED + "/") for name in self.names(job, version, unit)):
            raise NotEmpty(f"{unit}/{SAVED} holds files")
        self._saved.discard((session_key(job, version), unit))

    def _entry(self, ingest: Ingest, unit: UnitName, name: str, file: IngestFile) -> Staged:
        key = session_key(ingest.job, ingest.version)
        known = self._by_name.get((key, unit, name))
        if known is not None and known.ingest is ingest:
            known.file = file  # create() over an existing name may return another object
            return known
        staged = Staged(next(self._serials), self._service, ingest, unit, name, file)
        self._by_name[key, unit, name] = self._by_serial[staged.serial] = staged
        self._known[key] = ingest
        return staged

    def _forget(self, staged: Staged) -> None:
        key = session_key(staged.ingest.job, staged.ingest.version)
        self._by_name.pop((key, staged.unit, staged.name), None)
        self._by_serial.pop(staged.serial, None)

    def _prune(self) -> None:
        live = self._service.staging
        ended = [
            staged
            for staged in self._by_serial.values()
            if live.get(session_key(staged.ingest.job, staged.ingest.version)) is not staged.ingest
        ]
        for staged in ended:
            self._forget(staged)
        self._saved = {(key, unit) for key, unit in self._saved if key in live}
        self._known = {key: known for key, known in self._known.items() if live.get(key) is known}
