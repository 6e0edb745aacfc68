"""Removed versions that can still be brought back.

    trash/<expiry>/<job>@<version>     the head; <expiry> in seconds since the epoch
    trash/<expiry>.<job>@<version>     the same, where the disk had no room for a directory
    trash/gone.<job>@<version>         gone for good, and not everybody knows: see `dropped`

Everything such a head refers to stays until the head itself is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import Corrupt, Exists, NotFound, TryAgain
from ..ids import JobId, Version, parse_job_id, parse_version
from ..model import Head
from . import layout
from .copies_plan import PieceKind
from .dropped import dropped_path, dropped_versions, forget_names, is_dropped
from .heads import HEAD_MAX
from .manifest import Manifest
from .packs import failure_of
from .superblock import Superblock
from .syscalls import Syscalls, is_full
from .versions import Versions
from .volume import LocalVolume


@dataclass(frozen=True, slots=True)
class Trashed:
    """One removed version.  *expires_s*: seconds since the epoch."""

    job: JobId
    version: Version
    expires_s: int
    path: Path


class Trash:
    """The heads in trash/.  Trio thread only."""

    def __init__(
        self, block: Superblock, calls: Syscalls, *, volume: LocalVolume, versions: Versions
    ) -> None:
        self._store, self._directory = block.directory, block.directory / layout.TRASH
        # whether the catalog still names a version; set by who has one
        self.is_named: Callable[[JobId, Version], bool] = lambda _job, _version: False
        self._calls, self._volume, self._versions = calls, volume, versions

    def entries(self) -> Iterator[Trashed]:
        """Yield every removed version.  Raises Corrupt on what does not belong there."""
        if not self._directory.is_dir():
            raise Corrupt("trash/ is missing")
        for entry in self._calls.scan(self._directory):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                for inner in self._calls.scan(path):
                    yield _parse(entry.name, inner.name, Path(inner.path))
            elif not is_dropped(entry.name):
                expiry, _, name = entry.name.partition(".")
                yield _parse(expiry, name, path)

    def of(self, job: JobId) -> list[Trashed]:
        """Return the removed versions of a job.  Raises Corrupt, Degraded (unreadable)."""
        try:
            found = [entry for entry in self.entries() if entry.job == job]
        except OSError as error:
            raise failure_of(error) from error
        return sorted(found, key=lambda entry: entry.version)

    def drop(self, entry: Trashed, *, keep_name: bool = False) -> bool:
        """Forget a removed version for good, durably; False: it stays.  Any thread.

        *keep_name*: until everybody knows of it.  It stays when there is no room for that.
        Its directory stays, for `tidy`: somebody may be about to remove a version into it.
        Raises OSError.
        """
        if keep_name:
            try:
                self._calls.rename(
                    entry.path, dropped_path(self._store, (entry.job, entry.version))
                )
            except OSError as error:
                if not is_full(error):
                    raise
                return False
            self._calls.fsync_directory(self._directory)
        else:
            self._calls.unlink(entry.path)
        self._calls.fsync_directory(entry.path.parent)
        return True

    def dropped(self) -> list[tuple[JobId, Version]]:
        """Return the versions that went for good and whose names are kept.  Raises OSError."""
        return sorted(dropped_versions(self._store, self._calls))

    def forget_names(self) -> None:
        """Let the names go that the catalog does not know any more.  Raises OSError."""
        known = [key for key in self.dropped() if not self.is_named(*key)]
        forget_names(self._store, self._calls, known)

    def tidy(self) -> None:
        """Remove directories that are empty by now.  Raises OSError."""
        for entry in list(self._calls.scan(self._directory)):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and not any(self._calls.scan(path)):
                self._calls.rmdir(path)

    def head(self, job: JobId, version: Version) -> Head:
        """Return the proved head of a removed version.  Raises NotFound, Corrupt, Degraded."""
        for entry in self.of(job):
            if entry.version == version:
                try:
                    document = self._calls.read_file(entry.path, HEAD_MAX)
                except OSError as error:
                    raise failure_of(error) from error
                return self._versions.prove(document, job, version)
        raise NotFound(f"version {version} of {job} is not in the trash")

    def bring_back(self, job: JobId, version: Version) -> None:
        """Make a removed version visible again, durably.

        Raises NotFound (not in the trash), Exists, Corrupt (something of it is missing), TryAgain
        (a volume holds what is missing, and is asked for it), StoreFull, Degraded.
        """
        found = [entry for entry in self.of(job) if entry.version == version]
        if not found:
            raise NotFound(f"version {version} of {job} is not in the trash")
        if version in self._versions.versions(job):
            raise Exists(f"{job} has a version {version}")
        entry = found[0]
        try:
            head = self._versions.prove(self._calls.read_file(entry.path, HEAD_MAX), job, version)
            for manifest_id in {file.manifest.partition(":")[0] for file in head.files}:
                for pack in self._manifest(manifest_id).packs:
                    if not self._volume.has("packs", pack):
                        self._ask_for("packs", pack)
                        raise Corrupt(f"pack {pack} of version {version} of {job} is missing")
            self._move_back(entry.path, self._versions.path(job, version))
        except OSError as error:
            raise failure_of(error) from error
        self._versions.add(head)

    def _manifest(self, manifest_id: str) -> Manifest:
        try:
            return self._versions.read_manifest(manifest_id)
        except Corrupt:
            self._ask_for("manifests", manifest_id)
            raise

    def _ask_for(self, kind: PieceKind, name: str) -> None:
        """Raise TryAgain when a volume holds an object that is damaged or missing here."""
        if self._versions.missed(kind, name):
            what = f"{kind.removesuffix('s')} {name}"
            raise TryAgain(f"{what} is being fetched back from a volume: ask again in a moment")

    def _move_back(self, source: Path, path: Path) -> None:
        """Rename a head, durably.  Raises OSError; it lies in the trash then, if anywhere."""
        self._calls.mkdir(path.parent)
        self._calls.fsync_directory(path.parent.parent)  # before the head is in there alone
        self._calls.rename(source, path)
        try:
            self._calls.fsync_directory(path.parent)
            self._calls.fsync_directory(source.parent)
        except OSError:
            with contextlib.suppress(OSError):
                self._calls.rename(path, source)
            raise


def _parse(expiry: str, name: str, path: Path) -> Trashed:
    job, at, version = name.rpartition("@")
    try:
        if at and expiry.isdecimal():
            return Trashed(parse_job_id(job), parse_version(version), int(expiry), path)
    except NotFound:
        pass
    raise Corrupt(f"trash/{expiry}, {name!r}: this does not belong there")
