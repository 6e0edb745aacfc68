"""What `ckptfs check` says of the copies on one volume: head → manifest → pack → bytes.  Blocking.

Changes nothing.  Objects are proved against their own checksums, which needs no key; then every
version whose head lies there is read block by block, of a sealed volume as far as the store's keys
open it.  A service may run meanwhile: what has gone since it was listed is no damage.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ..errors import CkptfsError, Corrupt, KeyMissing
from ..model import Head
from . import layout
from .attached import sentence_of
from .blocks import BlockLoader
from .copies_plan import RANK, Key, Needs, Piece
from .copies_proof import prove_at
from .copy_volume import piece_path, split_head
from .gone import Gone
from .heads import HEAD_MAX
from .manifest import Manifest, decode_manifest
from .needs import NeedsBook
from .offline_volumes import Seen
from .pages import block_count
from .superblock import Superblock
from .syscalls import Syscalls
from .trash import Trash
from .verification import find_mismatches
from .versions import Versions, manifest_of
from .volume import LocalVolume

NAMED_MAX = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows: *needs* of its versions, *removed* into the trash, *gone* for good."""

    needs: Needs
    removed: Mapping[Key, frozenset[Piece]]
    gone: Collection[Key]


def learn(block: Superblock, calls: Syscalls, versions: Versions) -> Known:
    """Find out what the store knows; what of it cannot be read is said by its own check."""
    book = NeedsBook(block.directory, versions)
    volume = LocalVolume(block.directory, calls)
    trash = Trash(block, calls, volume=volume, versions=versions)
    removed: dict[Key, frozenset[Piece]] = {}
    with contextlib.suppress(CkptfsError, OSError):
        for entry in trash.entries():
            removed[entry.job, entry.version] = frozenset[Piece]()
            with contextlib.suppress(CkptfsError, OSError):
                head = versions.prove(
                    calls.read_file(entry.path, HEAD_MAX), entry.job, entry.version
                )
                removed[entry.job, entry.version] = pieces_of(head, versions)
    return Known(book.of(book.keys()), removed, Gone(block.directory, calls).versions)


def pieces_of(head: Head, versions: Versions) -> frozenset[Piece]:
    """Return everything that a version consists of.  Raises Corrupt (its manifest)."""
    found = {Piece("heads", f"{head.job}@{head.version}")}
    if manifest_id := manifest_of(head):
        found |= {Piece("manifests", manifest_id), Piece("tables", manifest_id)}
        found |= {Piece("packs", pack) for pack in versions.read_manifest(manifest_id).packs}
    return frozenset(found)


@dataclass(slots=True)
class Found:
    """What came of it.  *whole*: versions of which every object and every byte lies there."""

    wrong: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    whole: set[Key] = field(default_factory=set[Key])


class VolumeCheck:
    """The check of one volume.  *progress* is told of each object and version, once."""

    def __init__(
        self, seen: Seen, versions: Versions, known: Known, progress: Callable[[], None]
    ) -> None:
        self._seen, self._versions, self._known = seen, versions, known
        self._progress = progress
        self._volume, self._held = seen.volume, seen.listing.held
        self._loader = BlockLoader(seen.volume.pack_files())
        self._bad: set[Piece] = set()
        self._shut: list[Key] = []  # versions that the keys at hand do not open
        self._extra: set[Piece] = set(seen.listing.held)
        self._found = Found()

    @property
    def steps(self) -> int:
        """How often *progress* will be told."""
        return len(self._held) + len(self._heads())

    def run(self) -> Found:
        """Check everything.  Raises nothing for what is wrong on the volume."""
        for piece in sorted(self._held, key=lambda piece: (RANK[piece.kind], piece.name)):
            self._progress()
            self._object(piece)
        for pieces in (*self._known.needs.values(), *self._known.removed.values()):
            self._extra -= pieces
        for key in self._heads():
            self._progress()
            self._version(key)
        self._left_over()
        return self._found

    def _heads(self) -> list[Key]:
        return sorted(split_head(piece.name) for piece in self._held if piece.kind == "heads")

    def _say(self, sentence: str) -> None:
        self._found.wrong.append(f"volume {self._seen.record.name}: {sentence}")

    def _note(self, sentence: str) -> None:
        self._found.notes.append(f"volume {self._seen.record.name}: {sentence}")

    def _is_there(self, piece: Piece) -> bool:
        return piece_path(self._volume.directory, piece).exists()

    # -- objects -----------------------------------------------------------------

    def _object(self, piece: Piece) -> None:
        try:
            prove_at(self._volume, piece, self._versions)
        except KeyMissing:
            pass  # its sealed bytes prove themselves
        except (CkptfsError, OSError) as error:
            if self._is_there(piece):  # else removed meanwhile
                self._bad.add(piece)
                self._say(f"{piece.kind.removesuffix('s')} {piece.name}: {sentence_of(error)}")

    # -- versions ----------------------------------------------------------------

    def _version(self, key: Key) -> None:
        head_piece = Piece("heads", f"{key[0]}@{key[1]}")
        if head_piece in self._bad:
            return
        try:
            wrong = list(self._relations(key, head_piece))
        except KeyMissing:
            self._shut.append(key)
            self._extra -= self._known.needs.get(key, frozenset())
            wrong = self._lacking(self._known.needs.get(key, frozenset[Piece]()))
        except (CkptfsError, OSError) as error:
            wrong = [sentence_of(error)]
        if not self._is_there(head_piece):
            return
        for sentence in wrong:
            self._say(f"version {key[1]} of {key[0]}: {sentence}")
        if not wrong:
            self._found.whole.add(key)

    def _relations(self, key: Key, head_piece: Piece) -> Iterator[str]:
        """Yield what is wrong with a version.  Raises KeyMissing, Corrupt, NotFound, OSError."""
        head = self._versions.prove(self._volume.fetch(head_piece), *key)
        manifest_id = manifest_of(head)
        if not manifest_id:
            return
        pieces = {head_piece, Piece("manifests", manifest_id)}
        if missing := self._lacking(pieces):
            yield from missing
            return
        body = self._volume.fetch(Piece("manifests", manifest_id))
        manifest = decode_manifest(manifest_id, body)
        pieces |= {Piece("packs", pack) for pack in manifest.packs}
        self._extra -= pieces | {Piece("tables", manifest_id)}
        yield from map(str, find_mismatches(head, manifest))
        missing = self._lacking(pieces)
        yield from missing
        if not missing and self._bad.isdisjoint(pieces):
            yield from self._blocks(manifest)
        elif not missing:
            yield "it needs what is damaged there"

    def _lacking(self, pieces: AbstractSet[Piece]) -> list[str]:
        missing = sorted(piece for piece in pieces - self._held if piece.kind != "tables")
        return [
            f"{piece.kind.removesuffix('s')} {piece.name} is missing there" for piece in missing
        ]

    def _blocks(self, manifest: Manifest) -> Iterator[str]:
        for file in manifest.files:
            for block in range(block_count(file.size_bytes)):
                try:
                    self._loader.load(manifest, file, block)
                except Corrupt as error:
                    yield f"{layout.file_path(file.unit, file.name)}, block {block}: {error}"
                    break

    # -- what is too much --------------------------------------------------------

    def _left_over(self) -> None:
        listing, known = self._seen.listing, self._known
        strange = {*self._heads()} - known.needs.keys() - known.removed.keys()
        gone = strange.intersection(known.gone)
        self._count(sorted(gone), "removed versions, which go with a collection")
        self._count(sorted(strange - gone), "versions that this store neither has nor removed")
        self._count(self._shut, "versions are sealed with keys that the store has not")
        kinds = Counter(piece.kind for piece in self._extra if piece.kind != "heads")
        for kind, count in sorted(kinds.items()):
            self._note(f"{count} {kind} of no version")
        if listing.aside:
            self._note(f"{len(listing.aside)} damaged copies were set aside")
        if listing.torn:
            self._note(f"{len(listing.torn)} torn files of copies that were cut off")
        for path in listing.strangers:
            self._note(f"{path} does not belong there")

    def _count(self, keys: list[Key], what: str) -> None:
        if keys:
            named = " ".join(f"{job}/{version}" for job, version in keys[:NAMED_MAX])
            more = f" and {len(keys) - NAMED_MAX} more" if len(keys) > NAMED_MAX else ""
            self._note(f"{len(keys)} {what}: {named}{more}")
