"""Which objects each version consists of, learnt once: versions never change."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ..errors import CkptfsError, Corrupt
from ..ids import JobId, Version
from .copies_plan import Key, Needs, Piece
from .copy_volume import piece_path
from .versions import Versions


class NeedsBook:
    """The objects of the versions of one store."""

    def __init__(self, directory: Path, versions: Versions) -> None:
        self._directory, self._versions = directory, versions
        self._pieces: dict[Key, frozenset[Piece]] = {}
        self._owners: dict[Key, str] = {}
        self.unreadable: set[Piece] = set()  # heads to be fetched back

    def keys(self) -> list[Key]:
        """Return every committed version.  Trio thread."""
        jobs = self._versions.jobs()
        return [(job, version) for job in jobs for version in self._versions.versions(job)]

    def of(self, keys: Sequence[Key]) -> Needs:
        """Return the objects of each version that can be read.  Worker thread."""
        found: dict[Key, frozenset[Piece]] = {}
        for key in keys:
            if key not in self._pieces:
                with contextlib.suppress(CkptfsError):
                    self._pieces[key] = self._pieces_of(*key)
            if key in self._pieces:
                found[key] = self._pieces[key]
        for key in self._pieces.keys() - set(keys):
            self._pieces.pop(key, None)
            self._owners.pop(key, None)
        return found

    def owner(self, key: Key) -> str:
        """Return whose a version is, of those that `of` returned."""
        return self._owners.get(key, "")

    def owner_of(self, piece: Piece, needs: Needs) -> str:
        """Return whose versions need an object; of several owners, as of clones, the first."""
        owners = {self._owners.get(key, "") for key, pieces in needs.items() if piece in pieces}
        return min(owners, default="")

    def _pieces_of(self, job: JobId, version: Version) -> frozenset[Piece]:
        head_piece = Piece("heads", f"{job}@{version}")
        try:
            head = self._versions.load_head(job, version)
        except Corrupt:
            self.unreadable.add(head_piece)
            raise
        self._owners[job, version] = head.owner.user
        pieces = {head_piece}
        for manifest_id in {file.manifest.partition(":")[0] for file in head.files}:
            manifest = self._versions.load_manifest(manifest_id)
            pieces |= {Piece("manifests", manifest_id)}
            pieces |= {Piece("packs", pack) for pack in manifest.packs}
            if piece_path(self._directory, Piece("tables", manifest_id)).is_file():
                pieces.add(Piece("tables", manifest_id))
        return frozenset(pieces)
