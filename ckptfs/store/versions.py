"""The committed versions of a store: heads, manifests, and the markers beside heads.

Holds the list of versions in memory, small caches of what was proved, and
nothing that cannot be read again from the directory.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import Corrupt, InvalidInput, NotFound
from ..ids import JobId, Version, is_among, parse_job_id
from ..model import Head
from . import layout
from .accounts import Accounts
from .copies_plan import PieceKind
from .dedup import sort_places
from .dropped import dropped_versions
from .head_index import HeadIndex
from .heads import HEAD_MAX, decode_head
from .index import PACK_PAGES
from .manifest import MANIFEST_MAX, Manifest, decode_manifest
from .pages import U32
from .superblock import Superblock
from .syscalls import Syscalls, is_full, write_durably
from .volume import LocalVolume

HEADS_CACHED = 1024
MANIFESTS_CACHED = 8
MANIFESTS_BYTES = 4 << 20  # of places, 4 bytes per page; the last one is kept whatever its size
PIN, SUMS, VERIFIED, DAMAGE = ".pin", ".sums", ".verified", ".damage"
MARKERS = (PIN, SUMS, VERIFIED, DAMAGE)
SIDECAR_MAX = 64 << 20  # bytes


def _places_bytes(manifest: Manifest) -> int:
    return sum(file.places.nbytes for file in manifest.files)


class Versions:
    """Committed versions.  Trio thread only, but for what loads heads and manifests."""

    def __init__(self, block: Superblock, volume: LocalVolume, calls: Syscalls) -> None:
        self._directory, self._calls, self._volume = block.directory, calls, volume
        self._key = block.signing_key.public_key()
        self._versions: dict[JobId, list[Version]] = {}
        self._markers: set[tuple[JobId, Version, str]] = set()
        self.changes = 0  # versions that came and went since the store was opened
        self.arrivals = 0  # those that came
        self._heads: OrderedDict[tuple[JobId, Version], Head] = OrderedDict()
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self.accounts = Accounts(self.load_head)
        self.rescue: Callable[[str], Manifest | None] | None = None
        self.rescue_head: Callable[[JobId, Version], Head | None] = lambda _job, _version: None
        # told of a bad object (kind, name); whether a volume holds it, to be fetched back soon
        self.missed: Callable[[PieceKind, str], bool] = _no_volumes
        self.lost: set[tuple[JobId, Version]] = set()  # see `expect`
        self._scan()
        self._index = HeadIndex(block, calls)
        known = self._index.load(self._versions)
        self.accounts.preload({key: known[key] for key in known if self.is_present(key)})

    def _scan(self) -> None:
        for place in self._calls.scan(self._directory / layout.HEADS):
            with contextlib.suppress(NotFound):
                job = parse_job_id(place.name)
                found: list[Version] = []
                for entry in self._calls.scan(Path(place.path)):
                    self._note(job, entry.name, found)
                if found:
                    self._versions[job] = sorted(found)

    def _note(self, job: JobId, name: str, found: list[Version]) -> None:
        stem, dot, suffix = name.partition(".")
        version = layout.head_version(stem)
        if version is None:
            return
        if dot:
            self._markers.add((job, version, dot + suffix))
        else:
            found.append(version)

    # -- the list -------------------------------------------------------------

    def jobs(self) -> Sequence[JobId]:
        """See Store."""
        return sorted(self._versions)

    def versions(self, job: JobId) -> Sequence[Version]:
        """See Store."""
        return tuple(self._versions.get(job, ()))

    def expect(self, keys: Iterable[tuple[JobId, Version]]) -> None:
        """Be told of versions that are neither here nor in the trash: their heads are lost.

        But for those known to have gone for good (`dropped`).  Until each is back nothing is
        collected: what it refers to is not known.  Raises OSError.
        """
        gone = set(dropped_versions(self._directory, self._calls))
        self.lost |= {key for key in keys if not self.is_present(key)} - gone

    def check_none_lost(self) -> None:
        """Raise Corrupt while a head is lost."""
        if self.lost:
            job, version = min(self.lost)
            raise Corrupt(f"the head of version {version} of {job} is missing")

    def miss_heads(self, keys: Iterable[tuple[JobId, Version]]) -> None:
        """Have heads that cannot be read, or vanished meanwhile, fetched back if possible."""
        for job, version in keys:
            self.missed("heads", f"{job}@{version}")

    def take_back(self, job: JobId, version: Version) -> None:
        """Take in a lost version whose head was fetched back.  Raises Corrupt."""
        if (job, version) in self.lost:
            self.add(self.load_head(job, version))

    def add(self, head: Head) -> None:
        """Take in a version just committed, or back."""
        self.lost.discard((head.job, head.version))
        numbers = self._versions.setdefault(head.job, [])
        if head.version not in numbers:
            numbers.append(head.version)
            numbers.sort()
        self._heads[head.job, head.version] = head
        self.accounts.note(head)
        self.changes += 1
        self.arrivals += 1

    def remove(self, job: JobId, version: Version, *, expiry_ns: int) -> None:
        """Move a head to the trash, durably, and its markers away.  Raises OSError.

        A disk without a block for another directory still takes the head, in trash itself:
        removing works when nothing else does.
        """
        path = self.path(job, version)
        target = self._move_to_trash(path, f"{job}@{version}", str(expiry_ns // 10**9))
        try:
            self._calls.fsync_directory(target.parent)
            self._calls.fsync_directory(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                self._calls.rename(target, path)  # not removed, so it is where it was
            raise
        self._drop(job, version)

    def _move_to_trash(self, path: Path, name: str, expiry: str) -> Path:
        """Rename a head; return where it lies now.  Raises OSError, and it is where it was."""
        trash = self._directory / layout.TRASH
        target = trash / expiry / name
        try:
            self._calls.mkdir(target.parent)
            self._calls.fsync_directory(trash)  # before the head is in there and nowhere else
            self._calls.rename(path, target)
        except OSError as error:
            if not is_full(error):
                raise
            target = trash / f"{expiry}.{name}"
            self._calls.rename(path, target)
        return target

    def _drop(self, job: JobId, version: Version) -> None:
        self._versions[job].remove(version)
        if not self._versions[job]:
            del self._versions[job]
        self._heads.pop((job, version), None)
        self.accounts.drop((job, version))
        self.changes += 1
        for suffix in MARKERS:
            with contextlib.suppress(OSError):  # beside no head a marker means nothing
                self.unmark(job, version, suffix)
            self._markers.discard((job, version, suffix))

    def keys(self) -> list[tuple[JobId, Version]]:
        """Return every committed version."""
        return [(job, version) for job, numbers in self._versions.items() for version in numbers]

    def count(self) -> int:
        """Return how many versions there are."""
        return sum(map(len, self._versions.values()))

    def is_present(self, key: tuple[JobId, Version]) -> bool:
        """Whether a version is committed."""
        return is_among(key[1], self._versions.get(key[0], ()))

    def around(self, key: tuple[JobId, Version]) -> tuple[Version | None, Version | None]:
        """Return the nearest older and newer version of the job."""
        numbers = self._versions.get(key[0], [])
        at, after = bisect_left(numbers, key[1]), bisect_right(numbers, key[1])
        return numbers[at - 1] if at else None, numbers[after] if after < len(numbers) else None

    def check_present(self, job: JobId, version: Version) -> None:
        """Raise NotFound unless the version is committed."""
        if not self.is_present((job, version)):
            raise NotFound(f"{job} has no version {version}")

    # -- heads and manifests --------------------------------------------------

    def path(self, job: JobId, version: Version, suffix: str = "") -> Path:
        """Return where the head, or a marker beside it, lies."""
        return self._directory / layout.head_path(job, version, suffix)

    def head(self, job: JobId, version: Version) -> Head:
        """See Store."""
        self.check_present(job, version)
        if (head := self._heads.get((job, version))) is None:
            try:
                head = self.load_head(job, version)
            except Corrupt:
                self.miss_heads([(job, version)])
                raise
            self._heads[job, version] = head
        self._heads.move_to_end((job, version))
        while len(self._heads) > HEADS_CACHED:
            self._heads.popitem(last=False)
        return head

    def load_head_or_copy(self, job: JobId, version: Version) -> Head:
        """Read and prove a head, or a copy of it on a volume.  Worker threads.  Raises Corrupt."""
        try:
            return self.load_head(job, version)
        except Corrupt:
            rescued = self.rescue_head(job, version)
            if rescued is None:
                raise
            return rescued

    def keep_head(self, head: Head) -> None:
        """Keep a proved head at hand.  Raises NotFound when its version was removed meanwhile."""
        self.check_present(head.job, head.version)
        self._heads[head.job, head.version] = head

    def load_head(self, job: JobId, version: Version) -> Head:
        """Read and prove a head, past the cache.  Any thread.  Raises Corrupt."""
        try:
            document = self._calls.read_file(self.path(job, version), HEAD_MAX)
        except OSError as error:
            raise Corrupt(
                f"the head of version {version} of {job} cannot be read: {error.strerror}"
            ) from error
        return self.prove(document, job, version)

    def prove(self, document: bytes, job: JobId, version: Version) -> Head:
        """Return the head in *document*.  Any thread.  Raises Corrupt."""
        return decode_head(document, self._key, job, version)

    def manifest(self, head: Head) -> Manifest | None:
        """Return the manifest of a version, None when it has no files.  Raises Corrupt.

        Waits for no volume: see `manifest_wanted`.
        """
        manifest_id = manifest_of(head)
        if not manifest_id:
            return None
        try:
            manifest = self._manifests.get(manifest_id) or self.read_manifest(manifest_id)
        except Corrupt:
            self.missed("manifests", manifest_id)
            raise
        self.take_in(manifest)
        return manifest

    def manifest_wanted(self, head: Head) -> str:
        """Return the id of the manifest that has to be loaded before `manifest`, else nothing.

        In another thread, by `load_manifest`, which also asks the volumes; then `take_in`.
        """
        manifest_id = manifest_of(head)
        return "" if manifest_id in self._manifests else manifest_id

    def take_in(self, manifest: Manifest) -> None:
        """Keep a manifest at hand."""
        self._manifests[manifest.manifest_id] = manifest
        self._manifests.move_to_end(manifest.manifest_id)
        while len(self._manifests) > MANIFESTS_CACHED or (
            len(self._manifests) > 1
            and sum(map(_places_bytes, self._manifests.values())) > MANIFESTS_BYTES
        ):
            self._manifests.popitem(last=False)

    def load_manifest(self, manifest_id: str) -> Manifest:
        """Read and prove a manifest, past the cache, or a copy of it.  Any thread.

        Raises Corrupt.
        """
        try:
            return self.read_manifest(manifest_id)
        except Corrupt:
            rescued = self.rescue(manifest_id) if self.rescue else None
            if rescued is None:
                raise
            return rescued

    def read_manifest(self, manifest_id: str) -> Manifest:
        """Read and prove a manifest of this store itself.  Any thread.  Raises Corrupt."""
        try:
            return decode_manifest(
                manifest_id, self._volume.get("manifests", manifest_id, MANIFEST_MAX)
            )
        except NotFound as error:
            raise Corrupt(f"manifest {manifest_id} is missing") from error
        except OSError as error:
            raise Corrupt(f"manifest {manifest_id} cannot be read: {error.strerror}") from error

    def index_keeper(self) -> Callable[[], None]:
        """Return what keeps, in any thread, in short what is known of the heads by now."""
        accounts = self.accounts.proved()
        return lambda: self._index.save(accounts)

    # -- markers --------------------------------------------------------------

    def marked(self, job: JobId, version: Version, suffix: str) -> bool:
        """Whether a marker lies beside the head."""
        return (job, version, suffix) in self._markers

    def all_marked(self, suffix: str) -> list[tuple[JobId, Version]]:
        """Return the committed versions that have such a marker."""
        marked = [(job, version) for job, version, kind in self._markers if kind == suffix]
        return sorted(key for key in marked if key[1] in self._versions.get(key[0], ()))

    def mark(self, job: JobId, version: Version, suffix: str, content: bytes = b"") -> None:
        """Put a marker beside the head, durably.  Raises OSError."""
        write_durably(self._calls, self.path(job, version, suffix), content)
        self._markers.add((job, version, suffix))

    def unmark(self, job: JobId, version: Version, suffix: str) -> None:
        """Take a marker away, durably.  May be repeated.  Raises OSError."""
        if (job, version, suffix) in self._markers:
            path = self.path(job, version, suffix)
            self._calls.unlink(path)
            self._calls.fsync_directory(path.parent)
            self._markers.discard((job, version, suffix))

    def read_marker(self, job: JobId, version: Version, suffix: str) -> bytes | None:
        """Return what a marker holds, None when there is none that can be read."""
        if (job, version, suffix) not in self._markers:
            return None
        with contextlib.suppress(OSError):
            return self._calls.read_file(self.path(job, version, suffix), SIDECAR_MAX)
        return None


def _no_volumes(_kind: PieceKind, _name: str) -> bool:
    """Without volumes nothing can be fetched back."""
    return False


def manifest_of(head: Head) -> str:
    """Return the id of a version's manifest, nothing when it has no files.  Pure."""
    return head.files[0].manifest.partition(":")[0] if head.files else ""


def pages_by_pack(manifest: Manifest) -> dict[str, U32]:
    """Return, per pack, the sorted page numbers that a version refers to.  Pure."""
    files = [file.places for file in manifest.files]
    places = sort_places(np.concatenate(files)) if files else np.empty(0, dtype=np.uint32)
    numbers = places // PACK_PAGES
    firsts = np.flatnonzero(np.diff(numbers)) + 1
    return {
        manifest.packs[int(part[0]) // PACK_PAGES]: part % PACK_PAGES
        for part in np.split(places, firsts)
        if len(part)
    }


def find_file(head: Head, unit: str, name: str) -> int:
    """Return the index of a file in its manifest.  Raises NotFound, InvalidInput.  Pure."""
    for entry in head.files:
        if entry.unit == unit and entry.name == name:
            text = entry.manifest.partition(":")[2]
            if not text.isdecimal():
                raise InvalidInput(f"the head names no place for {name}")
            return int(text)
    raise NotFound(f"version {head.version} of {head.job} has no {unit}/{name}")
