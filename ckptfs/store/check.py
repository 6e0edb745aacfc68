"""`ckptfs check`: proves head → manifest → pack → bytes of a whole store.  Blocking.

Changes nothing, takes no lock, may run beside a daemon.  What no head refers
to is garbage, not an error; a sealed pack must prove itself all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3

from ..errors import CkptfsError, Corrupt, NotFound
from ..ids import JobId, Version
from ..model import Head
from . import layout
from .blocks import BlockLoader, PackFiles
from .heads import HEAD_MAX
from .manifest import Manifest, make_known
from .pages import HASH_SIZE, PAGE, block_count, hash_pages, page_count
from .superblock import Superblock, open_superblock
from .syscalls import Syscalls
from .trash import Trash
from .verification import decode_sums, encode_sums, find_mismatches, make_sums
from .versions import SUMS, Versions
from .volume import Kind, LocalVolume


def _silent(_: float) -> None:
    """Show nothing."""


def check(store_dir: Path, progress: Callable[[float], None] = _silent) -> list[str]:
    """Return one sentence per thing that is wrong with the store; none: all of it is proved.

    *progress* is told the share that is done, 0 to 1.
    """
    calls = Syscalls()
    try:
        block = open_superblock(store_dir, calls, lock=False)
    except (CkptfsError, OSError) as error:
        return [str(error)]
    return list(StoreCheck(block, calls, progress).run())


def leftovers(store_dir: Path) -> list[str]:
    """Return what belongs to no version, one sentence per kind: garbage, but no damage."""
    calls = Syscalls()
    block = open_superblock(store_dir, calls, lock=False)
    volume = LocalVolume(block.directory, calls)
    used = _used(block, volume, calls)
    sentences: list[str] = []
    kinds: tuple[Kind, ...] = ("packs", "manifests", "tables")
    for kind in kinds:
        orphans = [name for name in volume.names(kind) if name not in used]
        size = 0
        for name in orphans:
            with contextlib.suppress(NotFound):
                size += volume.size(kind, name)
        if orphans:
            sentences.append(f"{len(orphans)} {kind} of no version, {size} bytes")
    return sentences


def _used(block: Superblock, volume: LocalVolume, calls: Syscalls) -> set[str]:
    """Return packs and manifests that versions refer to, as far as they can be read."""
    versions = Versions(block, volume, calls)
    used: set[str] = set()
    trash = Trash(block, calls, volume=volume, versions=versions)
    with contextlib.suppress(Corrupt, OSError):  # what can be brought back is not left over
        for entry in trash.entries():
            with contextlib.suppress(Corrupt, OSError):  # one that is damaged hides no other
                found = calls.read_file(entry.path, HEAD_MAX)
                used.update(_named_by(versions, versions.prove(found, entry.job, entry.version)))
    for job in versions.jobs():
        for version in versions.versions(job):
            with contextlib.suppress(Corrupt):
                used.update(_named_by(versions, versions.load_head(job, version)))
    return used


def _named_by(versions: Versions, head: Head) -> set[str]:
    manifest = versions.manifest(head)
    return {manifest.manifest_id, *manifest.packs} if manifest else set()


class StoreCheck:
    """One check of an opened store.  *damaged*: versions about which something was said."""

    def __init__(
        self, block: Superblock, calls: Syscalls, progress: Callable[[float], None]
    ) -> None:
        self._progress = progress
        self._volume = LocalVolume(block.directory, calls)
        self._versions = Versions(block, self._volume, calls)
        self._packs = PackFiles(self._volume, calls)
        self._loader = BlockLoader(self._packs)
        self._block = block
        self.damaged: set[tuple[JobId, Version]] = set()

    def run(self) -> Iterator[str]:
        """Yield one sentence per thing that is wrong."""
        packs = list(self._volume.names("packs"))
        every = [(j, v) for j in self._versions.jobs() for v in self._versions.versions(j)]
        steps = (len(packs) + len(every)) or 1
        for step, pack_id in enumerate(packs):
            self._progress(step / steps)
            found = list(self._pack(pack_id))
            if self._volume.has("packs", pack_id):  # else collected by a service that runs
                yield from found
        for step, (job, version) in enumerate(every, len(packs)):
            self._progress(step / steps)
            found = list(self._named(job, version))
            if found and self._versions.path(job, version).exists():  # else removed meanwhile
                self.damaged.add((job, version))
                yield from found
        yield from self._markers()

    def _named(self, job: JobId, version: Version) -> Iterator[str]:
        try:
            yield from self._version(self._versions.load_head(job, version))
        except Corrupt as error:
            yield f"{job} version {version}: {error}"

    def _pack(self, pack_id: str) -> Iterator[str]:
        try:
            pack = self._packs.get(pack_id)
            footer = pack.footer
            if footer.page_end > 1 and pack.bad_regions(0, footer.page_end - 1):
                yield f"pack {pack_id}: a region does not match its checksum"
        except Corrupt as error:
            yield f"pack {pack_id}: {error}"
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._volume.path("packs", pack_id)).st_mode & 0o777 != 0o400:
                yield f"pack {pack_id}: a sealed pack has mode 0400"

    def _version(self, head: Head) -> Iterator[str]:
        what = f"{head.job} version {head.version}"
        if head.logical_bytes != sum(entry.size_bytes for entry in head.files):
            yield f"{what}: the head's sizes do not add up"
        if not head.files:
            return
        manifest = self._versions.load_manifest(head.files[0].manifest.partition(":")[0])
        for damage in find_mismatches(head, manifest):
            yield f"{what}: {damage}"
        yield from self._files(what, manifest)
        yield from self._sums(what, head, manifest)
        yield from self._table(what, manifest)

    def _files(self, what: str, manifest: Manifest) -> Iterator[str]:
        for file in manifest.files:
            whole = blake3.blake3()
            place = layout.file_path(file.unit, file.name)
            for block in range(block_count(file.size_bytes)):
                try:
                    whole.update(self._loader.load(manifest, file, block))
                except Corrupt as error:
                    yield f"{what}: {place}, block {block}: {error}"
                    break
            else:
                if whole.digest() != file.blake3:
                    yield f"{what}: {place} does not match its hash"

    def _sums(self, what: str, head: Head, manifest: Manifest) -> Iterator[str]:
        """SHA256SUMS, where it was kept, must be of the bytes."""
        kept = self._versions.read_marker(head.job, head.version, SUMS)
        if kept is None:
            return
        if decode_sums(kept, head) is None:
            yield f"{what}: what was kept of SHA256SUMS is damaged; it will be computed again"
            return
        with contextlib.suppress(Corrupt):  # said above
            if kept != encode_sums(make_sums(head, manifest, self._loader)):
                yield f"{what}: SHA256SUMS is not of its bytes"

    def _table(self, what: str, manifest: Manifest) -> Iterator[str]:
        """A page table must name the pages that are really there: hits rely on it."""
        pages = sum(page_count(file.size_bytes) for file in manifest.files)
        try:
            table = self._volume.get("tables", manifest.manifest_id, pages * HASH_SIZE + 1)
            known = make_known(manifest, table, [True] * len(manifest.packs))
        except CkptfsError as error:
            yield f"{what}: {error}"
            return
        for file in manifest.files:
            with contextlib.suppress(Corrupt):  # said above
                if file.size_bytes:
                    block = bytes(self._loader.load(manifest, file, 0))
                    block = block.ljust(page_count(len(block)) * PAGE, b"\0")
                    rows = known.files[file.unit, file.name].hashes
                    if (
                        hash_pages(block, self._block.page_seed) != rows[: len(block) // PAGE]
                    ).any():
                        yield f"{what}: the page table of {file.name} is not of its pages"

    def _markers(self) -> Iterator[str]:
        for place in Syscalls().scan(self._block.directory / layout.HEADS):
            names = {entry.name for entry in Syscalls().scan(Path(place.path))}
            for name in sorted(names):
                if layout.head_version(name.partition(".")[0]) is None and name[:1] != ".":
                    yield f"heads/{place.name}/{name} does not belong there"
