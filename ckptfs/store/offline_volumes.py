"""The volumes of a store as `ckptfs check` and `ckptfs repair` see them.  Blocking.

No service is needed and none is disturbed: nothing on a volume is changed, and nothing that is
found out here is remembered.  A volume that hangs makes its caller wait, who can be interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CkptfsError, Corrupt, NotFound
from .attached import sentence_of
from .copies_plan import Piece
from .copies_record import FILE, FILE_MAX, PLAIN, VolumeRecord, decode_volumes
from .copy_volume import CopyVolume, Listing, piece_path, read_marker, split_head
from .keyring import KeyRing
from .manifest import decode_manifest
from .receiving import keep_document
from .sealed_volume import SealedVolume
from .superblock import Superblock
from .syscalls import Syscalls
from .versions import Versions


@dataclass(frozen=True, slots=True)
class Seen:
    """A volume that can be read, and what lies on it."""

    record: VolumeRecord
    volume: CopyVolume
    listing: Listing


def open_volumes(
    block: Superblock, calls: Syscalls, only: str = ""
) -> tuple[list[Seen], list[str]]:
    """Return the volumes that can be read, and a sentence for each that cannot.

    *only*: the name of one.  Raises NotFound (no volume is called so).
    """
    try:
        records = decode_volumes(calls.read_file(block.directory / FILE, FILE_MAX))
    except FileNotFoundError:
        records = []
    except (OSError, Corrupt) as error:
        return [], [f"{sentence_of(error)}: no volume is known"]
    if only and only not in {record.name for record in records}:
        raise NotFound(f"no volume is called {only!r}")
    seen: list[Seen] = []
    troubles: list[str] = []
    keys = KeyRing(block.directory, calls)
    for record in records:
        if only in {"", record.name}:
            try:
                seen.append(_open(record, block.store_id, calls, keys))
            except (CkptfsError, OSError) as error:
                reason = sentence_of(error)
                troubles.append(f"volume {record.name} cannot be read: {reason}")
    return seen, troubles


def _open(record: VolumeRecord, store_id: str, calls: Syscalls, keys: KeyRing) -> Seen:
    """Raises NotFound, CannotRun, Corrupt (another's, another one), OSError."""
    directory = Path(record.directory)
    owner, volume_id, seal = read_marker(directory, calls)
    if owner != store_id:
        raise Corrupt(f"{directory} belongs to another store")
    if (volume_id, seal) != (record.volume_id, record.seal):
        raise Corrupt(f"{directory} holds another volume than the one that was added")
    if seal == PLAIN:
        volume = CopyVolume(directory, calls, record.domain)
    else:
        volume = SealedVolume(directory, calls, record.domain, seal, keys)
    return Seen(record, volume, volume.listing())


class Fetcher:
    """Brings objects of the store back from volumes.  *said* is told of each."""

    def __init__(
        self, directory: Path, calls: Syscalls, *, versions: Versions, volumes: Iterable[Seen]
    ) -> None:
        self._directory, self._calls, self._versions = directory, calls, versions
        self._volumes = tuple(volumes)
        self.troubles: list[str] = []  # why a copy that lies there did not help

    def fetch(self, piece: Piece) -> str:
        """Put a proved copy in the place of a damaged or missing object; return from where.

        "" when no volume has a good one: then the object is as it was.  Raises OSError of the
        store's own disk.
        """
        for seen in self._volumes:
            if piece in seen.listing.held:
                try:
                    self._fetch(seen.volume, piece)
                except (CkptfsError, OSError) as error:
                    kind = piece.kind.removesuffix("s")
                    self.troubles.append(
                        f"{kind} {piece.name} on volume {seen.record.name}: {sentence_of(error)}"
                    )
                    continue
                return seen.record.name
        return ""

    def _fetch(self, volume: CopyVolume, piece: Piece) -> None:
        target = piece_path(self._directory, piece)
        self._calls.mkdir(target.parent)
        self._calls.fsync_directory(target.parent.parent)
        if piece.kind == "packs":
            volume.deliver(piece, target)
            return
        document = volume.fetch(piece)
        if piece.kind == "heads":
            self._versions.prove(document, *split_head(piece.name))
        elif piece.kind == "manifests":
            decode_manifest(piece.name, document)
        keep_document(self._calls, document, target)
