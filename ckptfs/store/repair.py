"""`ckptfs repair`: fixes what can be fixed without loss, says what is lost.  Blocking.

Only with the store's lock held, so never beside a service.  Nothing that may
hold bytes of a version is removed: torn temporary files never counted, and a
damaged version leaves only with *discard*, into the trash, unless it is pinned.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import CkptfsError, Corrupt, NotFound
from ..ids import JobId, UnitName, Version
from ..model import Head
from . import layout
from .api import TRASH_S, Damage
from .blocks import BlockLoader, PackFiles
from .copies_plan import Key, Piece
from .damage import DamageBook, encode_damage
from .manifest import Manifest, make_known
from .offline_volumes import Fetcher, open_volumes
from .pages import HASH_SIZE, PAGE, block_count, hash_pages, page_count
from .repair_volumes import VolumeRepair
from .sessions import sweep_sessions
from .superblock import Superblock
from .syscalls import Syscalls
from .verification import decode_sums, verify_files
from .verified import Verified
from .versions import DAMAGE, PIN, SUMS, Versions, manifest_of
from .volume import LocalVolume

SEALED_MODE = 0o400
Say = Callable[[str], None]


class StoreRepair:
    """One repair of an opened, locked store.

    *fixed* and *lost* are told one sentence each, *progress* the share from 0 to 1.
    """

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        *,
        fixed: Say,
        lost: Say,
        progress: Callable[[float], None],
        now_ns: int,
    ) -> None:
        self._block, self._calls = block, calls
        self._fixed, self._lost, self._progress, self._now_ns = fixed, lost, progress, now_ns
        self._make_directories()
        self._volume = LocalVolume(block.directory, calls)
        self.versions = Versions(block, self._volume, calls)
        self._packs = PackFiles(self._volume, calls)
        self._loader = BlockLoader(self._packs)
        self._damage = DamageBook(block.directory, calls)
        self.volumes, self._unread = open_volumes(block, calls)
        self._fetcher = Fetcher(
            block.directory, calls, versions=self.versions, volumes=self.volumes
        )
        self._is_lost = False  # whether anything is

    def fetch_heads(self, keys: Iterable[Key]) -> list[Key]:
        """Bring heads that vanished back from volumes; return those that are back."""
        back: list[Key] = []
        for job, version in keys:
            self.versions.expect([(job, version)])
            if self._fetch(Piece("heads", f"{job}@{version}"), "was missing"):
                self.versions.take_back(job, version)
                back.append((job, version))
            else:
                self._is_lost = True
        return back

    def _fetch(self, piece: Piece, what: str) -> bool:
        """Replace a bad object by a proved copy from a volume; whether there was one."""
        volume = self._fetcher.fetch(piece)
        if not volume:
            return False
        if piece.kind == "packs":
            self._packs.drop(piece.name)
            self._damage.release(piece.name)
        kind = piece.kind.removesuffix("s")
        self._fixed(f"{kind} {piece.name} {what}, and was fetched back from volume {volume}")
        return True

    def run(self, *, discard: bool) -> None:
        """Repair everything.  Raises OSError when the disk takes no changes."""
        self._remove_torn()
        removed = sweep_sessions(self._block.directory, self._calls)
        if removed:
            self._fixed(f"removed {removed} packs of writers that are gone")
        self._prove_packs()
        every = [(j, v) for j in self.versions.jobs() for v in self.versions.versions(j)]
        for number, (job, version) in enumerate(every):
            self._progress(number / len(every))
            self._version(job, version, discard=discard)
        self._packs.clear()

    def mend_volumes(self, only: str) -> None:
        """Set damaged copies aside, on all volumes or *only* one; call after `run`.

        Raises NotFound (no volume is called so).
        """
        chosen = [seen for seen in self.volumes if only in {"", seen.record.name}]
        if only and not chosen:
            raise NotFound(f"no volume is called {only!r}, or it cannot be read")
        work = VolumeRepair(
            self._block, self._calls, versions=self.versions, fixed=self._fixed, lost=self._lost
        )
        for seen in chosen:
            work.run(seen, self._progress)

    def tell_unread(self) -> None:
        """Say, when something is lost, which volumes might have had it."""
        for trouble in (*self._unread, *self._fetcher.troubles) if self._is_lost else ():
            self._lost(f"{trouble}; what lies there did not help")

    def _make_directories(self) -> None:
        for name in layout.DIRECTORIES:
            path = self._block.directory / name
            if not path.is_dir():
                self._calls.mkdir(path)
                self._calls.fsync_directory(path.parent)
                self._fixed(f"made {name}/, which was missing")

    def _remove_torn(self) -> None:
        """Remove what a writer that was cut off left under a temporary name."""
        found = [path for place in layout.DIRECTORIES for path in self._torn_below(place)]
        for path in found:
            self._calls.unlink(path)
        if found:
            self._fixed(f"removed {len(found)} torn temporary files")

    def _torn_below(self, place: str) -> Iterator[Path]:
        root = self._block.directory / place.partition("/")[0]
        for directory, _, names in os.walk(root):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):
                    path = Path(directory, name)
                    if path.is_file() and not path.is_symlink():
                        yield path

    def _prove_packs(self) -> None:
        for pack_id in self._volume.names("packs"):
            path = self._volume.path("packs", pack_id)
            if path.stat().st_mode & 0o777 != SEALED_MODE:
                self._calls.chmod(path, SEALED_MODE)
                self._fixed(f"pack {pack_id}: made read-only again")
            if not self._is_bad(pack_id) or self._fetch(Piece("packs", pack_id), "was damaged"):
                continue
            if self._damage.is_sound(pack_id):
                self._damage.quarantine(pack_id)
                self._fixed(f"pack {pack_id} is damaged: nothing new will rely on it")

    def _is_bad(self, pack_id: str) -> bool:
        try:
            pack = self._packs.get(pack_id)
            return pack.footer.page_end > 1 and pack.bad_regions(0, pack.footer.page_end - 1)
        except Corrupt:
            return True

    # -- versions -------------------------------------------------------------

    def _version(self, job: JobId, version: Version, *, discard: bool) -> None:
        manifest: Manifest | None = None
        head: Head | None = None
        try:
            head = self._head(job, version)
            if manifest_id := manifest_of(head):
                manifest = self._manifest(manifest_id)
                for pack_id in manifest.packs:
                    if not self._volume.has("packs", pack_id):
                        self._fetch(Piece("packs", pack_id), "was missing")
            found = self._prove(head, manifest)
        except Corrupt as error:
            found = [Damage(job, version, UnitName(""), "COMMIT", -1, str(error))]
        if found or head is None:
            self._note_damaged(job, version, found, discard=discard)
        else:
            self._note_whole(head, manifest)

    def _head(self, job: JobId, version: Version) -> Head:
        try:
            return self.versions.load_head(job, version)
        except Corrupt:
            if not self._fetch(Piece("heads", f"{job}@{version}"), "was damaged"):
                raise
        return self.versions.load_head(job, version)

    def _manifest(self, manifest_id: str) -> Manifest:
        try:
            return self.versions.read_manifest(manifest_id)
        except Corrupt:
            if not self._fetch(Piece("manifests", manifest_id), "was damaged"):
                raise
        return self.versions.read_manifest(manifest_id)

    def _note_whole(self, head: Head, manifest: Manifest | None) -> None:
        """Remember that a version was proved, and mend what lies beside it."""
        job, version = head.job, head.version
        with contextlib.suppress(FileNotFoundError):
            if self.versions.marked(job, version, DAMAGE):
                self.versions.unmark(job, version, DAMAGE)
                self._fixed(f"version {version} of {job} was noted as damaged, and is whole")
        Verified(self.versions).mark(job, version, self._now_ns)
        self._mend_sums(head)
        if manifest is not None:
            self._mend_table(job, version, manifest)

    def _prove(self, head: Head, manifest: Manifest | None) -> list[Damage]:
        if manifest is None:
            return []
        return verify_files(
            head,
            manifest,
            self._loader,
            progress=_forget,
            suspect=self._damage.quarantine,
            wait=_forget,
        )

    def _note_damaged(
        self, job: JobId, version: Version, found: list[Damage], *, discard: bool
    ) -> None:
        self._is_lost = True
        more = f" and {len(found) - 1} more places" if len(found) > 1 else ""
        what = f"version {version} of {job} is damaged: {found[0]}{more}"
        if discard and not self.versions.marked(job, version, PIN):
            self.versions.remove(job, version, expiry_ns=self._now_ns + TRASH_S * 10**9)
            self._lost(f"{what}; moved to the trash")
            return
        self.versions.mark(job, version, DAMAGE, encode_damage(found))
        kept = "pinned, so it stays" if discard else "it stays; --discard moves it to the trash"
        self._lost(f"{what}; {kept}")

    def _mend_sums(self, head: Head) -> None:
        """Forget a damaged SHA256SUMS: it is computed again when somebody asks."""
        kept = self.versions.read_marker(head.job, head.version, SUMS)
        if kept is not None and decode_sums(kept, head) is None:
            self.versions.unmark(head.job, head.version, SUMS)
            self._fixed(f"version {head.version} of {head.job}: SHA256SUMS will be computed again")

    def _mend_table(self, job: JobId, version: Version, manifest: Manifest) -> None:
        """Make a missing or wrong page table again, out of the pages: its digest proves it."""
        try:
            pages = sum(page_count(file.size_bytes) for file in manifest.files)
            table = self._volume.get("tables", manifest.manifest_id, pages * HASH_SIZE + 1)
            make_known(manifest, table, [True] * len(manifest.packs))
        except (NotFound, Corrupt, ValueError):
            fresh = b"".join(self._hashes(manifest))
        else:
            return
        try:
            make_known(manifest, fresh, [True] * len(manifest.packs))
        except CkptfsError:
            self._lost(
                f"the page table of version {version} of {job} cannot be made again; "
                "the next version is written whole"
            )
            return
        self._volume.delete("tables", manifest.manifest_id)
        self._volume.put("tables", manifest.manifest_id, fresh)
        self._fixed(f"made the page table of version {version} of {job} again")

    def _hashes(self, manifest: Manifest) -> Iterator[bytes]:
        for file in manifest.files:
            for block in range(block_count(file.size_bytes)):
                data = bytes(self._loader.load(manifest, file, block))
                whole = data.ljust(page_count(len(data)) * PAGE, b"\0")
                yield np.ascontiguousarray(hash_pages(whole, self._block.page_seed)).tobytes()


def _forget(_: float) -> None:
    """Take note of nothing."""
