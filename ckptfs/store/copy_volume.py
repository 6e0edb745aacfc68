"""A directory that takes copies of sealed objects: a volume beside the store.

``VOLUME`` in it says whose it is.  A pack received is written to a temporary file, synced, read
back past the page cache and proved; only then it gets its name.  So what a listing shows was
proved, and a crash leaves nothing that counts.  Everything here blocks, for as long as a slow disk
likes: worker threads with deadlines only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import Busy, CannotRun, Corrupt, Forbidden, NotADirectory, NotEmpty, NotFound
from ..ids import JobId, Version, parse_job_id
from . import layout
from .blocks import PackFiles
from .copies_plan import RANK, Piece, PieceKind
from .copies_record import ENCRYPT, PLAIN
from .counting import taken_bytes
from .manifest import decode_manifest
from .receiving import (
    DOCUMENT_MAX,
    Step,
    go_on,
    is_torn,
    prove_pack,
    read_past_cache,
    receive_document,
    receive_pack,
)
from .syscalls import Syscalls, write_durably
from .volume import LocalVolume

MARKER = "VOLUME"
MARKER_MAX = 1 << 12
FORMAT = 1  # of a plain volume
FORMAT_SEALED = 2  # so that nobody takes its objects for damaged plain ones
OBJECTS: Mapping[str, tuple[PieceKind, ...]] = {
    "packs": ("packs",),
    "manifests": ("manifests", "tables"),
    "heads": ("heads",),
}
QUARANTINE = "quarantine"  # damaged copies, until a good one of the same object is there


@dataclass(frozen=True, slots=True)
class Listing:
    """What a volume said of itself.  *strangers*: paths that do not belong there, left alone;
    *torn*: what a copy that was cut off has left; *aside*: damaged copies in quarantine.
    """

    held: frozenset[Piece]
    used_bytes: int
    free_bytes: int
    strangers: tuple[str, ...] = ()
    torn: tuple[Path, ...] = ()
    aside: frozenset[Piece] = frozenset()
    plain_bytes: int = 0  # of a sealed volume: what its objects have unsealed


def split_head(name: str) -> tuple[JobId, Version]:
    """Return the version that a head piece's name means.  Raises NotFound."""
    job, at, number = name.rpartition("@")
    version = layout.head_version(number)
    if not at or version is None:
        raise NotFound(f"no head is called {name!r}")
    return parse_job_id(job), version


def piece_path(directory: Path, piece: Piece) -> Path:
    """Return where a piece lies below a store or a volume.  Raises NotFound on a bad name."""
    if piece.kind == "heads":
        return directory / layout.head_path(*split_head(piece.name))
    return directory / layout.object_path(piece.kind, piece.name)


def _piece_of(kinds: tuple[PieceKind, ...], fan: str, name: str) -> Piece | None:
    """Return the object that is kept as *name* in the directory *fan*.  Pure."""
    for kind in kinds:
        if kind == "heads":
            piece = Piece("heads", f"{fan}@{name}")
            with contextlib.suppress(NotFound):
                split_head(piece.name)
                return piece
        elif (found := layout.object_name(kind, name)) and found[:2] == fan:
            return Piece(kind, found)
    return None


def read_marker(directory: Path, calls: Syscalls) -> tuple[str, str, str]:
    """Return (store, volume, how copies lie there) of the volume in a directory.

    Raises NotFound (no volume), CannotRun (a newer format), Corrupt, OSError.
    """
    try:
        raw = calls.read_file(directory / MARKER, MARKER_MAX)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{directory} holds no volume") from None
    try:
        row = cast("dict[str, Any]", json.loads(raw))
        number, owner, volume_id = int(row["format"]), str(row["store"]), str(row["volume"])
        seal = str(row.get("seal", PLAIN))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{directory}/{MARKER} does not parse") from error
    if number > FORMAT_SEALED:
        raise CannotRun(f"{directory} has format {number}, this ckptfs reads {FORMAT_SEALED}")
    return owner, volume_id, seal


class CopyVolume(LocalVolume):
    """See the top of this file; a Volume as any other, and heads beside."""

    def __init__(self, directory: Path, calls: Syscalls, domain: str, seal: str = PLAIN) -> None:
        super().__init__(directory, calls, domain)
        self._copy_calls = calls
        self.seal = seal
        self._copy_sizes: dict[Piece, int] = {}

    def claim(self, store_id: str, taken: Collection[str] = ()) -> str:
        """Make the directory a volume of this store, or recognise it as one; return its id.

        One that was let go empty may be claimed to keep copies another way, unless it was
        encrypted, and is another volume then; *taken*: ids of volumes that were not let go.

        Raises NotADirectory, Forbidden (others may write there), NotEmpty (something else lies
        there), Busy (another store's; or copies kept another way), CannotRun (newer format),
        OSError.
        """
        if not self.directory.is_dir():
            raise NotADirectory(f"{self.directory} is not a directory")
        status = self.directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Forbidden(f"others may write in {self.directory}: chown it to root, chmod go-w")
        own = {"lost+found", "packs", "manifests", "heads", "keys", f".{MARKER}.tmp"}
        with contextlib.suppress(NotFound):
            owner, volume_id, seal = read_marker(self.directory, self._copy_calls)
            is_open = owner == store_id and volume_id not in taken
            if not is_open or seal in {self.seal, ENCRYPT} or self._has_copies():
                return self.check(store_id)
            own |= {MARKER, QUARANTINE}
        strangers = {entry.name for entry in self._copy_calls.scan(self.directory)} - own
        if strangers:
            raise NotEmpty(f"{self.directory} is not empty: it holds {min(strangers)!r}")
        for name in ("packs", "manifests", "heads", "keys")[: 3 + (self.seal == ENCRYPT)]:
            self._copy_calls.mkdir(self.directory / name)
        volume_id = secrets.token_hex(16)
        document = {"format": FORMAT, "store": store_id, "volume": volume_id}
        if self.seal != PLAIN:
            document |= {"format": FORMAT_SEALED, "seal": self.seal}
        write_durably(
            self._copy_calls, self.directory / MARKER, json.dumps(document).encode() + b"\n"
        )
        return volume_id

    def check(self, store_id: str) -> str:
        """Return the volume's id.  Raises NotFound (not there), Busy (another store's),
        CannotRun (a newer format), Corrupt, OSError.
        """
        owner, volume_id, seal = read_marker(self.directory, self._copy_calls)
        if owner != store_id:
            raise Busy(f"{self.directory} belongs to another store")
        if seal != self.seal:
            how = (
                "an encrypted volume stays one, so take another directory"
                if seal == ENCRYPT
                else "to change that, drain it, let it go when it is empty, and add it again"
            )
            kept = f"the copies in {self.directory} are kept {seal}, not {self.seal}"
            raise Busy(f"{kept}; {how}")
        return volume_id

    def _has_copies(self) -> bool:
        """Whether anything lies here that is, or may be, of a copy.  Raises OSError."""
        return any(True for _ in self._walk()) or bool(self.aside())

    def listing(self) -> Listing:
        """Return everything that is there.  Raises OSError.

        An empty file is torn: a disk that lost power after it had lied about a sync leaves such.
        """
        held: dict[Piece, int] = {}
        strangers: list[str] = []
        torn: list[Path] = []
        for path, piece in self._walk():
            if piece is not None and (size := self._size(piece, path)):
                held[piece] = size
            elif piece is not None or is_torn(path.name):
                torn.append(path)
            else:
                strangers.append(str(path.relative_to(self.directory)))
        self._copy_sizes = held
        free, _ = self.free_and_total()
        return Listing(
            frozenset(held),
            sum(held.values()),
            free,
            tuple(sorted(strangers)),
            tuple(torn),
            frozenset(self.aside()),
        )

    def _size(self, piece: Piece, path: Path) -> int:
        """Return the bytes of an object; they never change."""
        if (size := self._copy_sizes.get(piece)) is None:
            with contextlib.suppress(FileNotFoundError):
                return taken_bytes(path.stat())
        return size or 0

    def _walk(self) -> Iterator[tuple[Path, Piece | None]]:
        """Yield every file below the three directories and what it is, None: nothing known."""
        for place, kinds in OBJECTS.items():
            for fan in self._copy_calls.scan(self.directory / place):
                if not fan.is_dir(follow_symlinks=False):
                    yield Path(fan.path), None
                    continue
                for entry in self._copy_calls.scan(Path(fan.path)):
                    yield Path(entry.path), _piece_of(kinds, fan.name, entry.name)

    def is_readonly(self) -> bool:
        """Whether the file system takes no changes now.  Raises OSError."""
        return bool(os.statvfs(self.directory).f_flag & os.ST_RDONLY)

    def receive(self, source: Path, piece: Piece, step: Step = go_on, owner: str = "") -> int:
        """Take a copy of the object at *source*, proved; return the bytes it takes here.

        *owner*: whose versions need it, for a volume that seals with their keys.
        *step* is told each MiB before it is written or read back, and may wait.
        Raises Corrupt (what was read back is not what was sent), NotFound (no source), OSError,
        and what *step* raises.
        """
        target = piece_path(self.directory, piece)
        self.make_room(target)
        if piece.kind == "packs":
            return receive_pack(self._copy_calls, source, target, piece.name, step)
        return receive_document(self._copy_calls, source, target)

    def discard(self, piece: Piece) -> None:
        """Remove a copy; a missing one is fine.  Not synced: after a crash it is found again.

        Raises OSError.
        """
        self._copy_calls.unlink(piece_path(self.directory, piece))
        self._copy_sizes.pop(piece, None)

    def discard_torn(self, torn: Iterable[Path]) -> None:
        """Remove what copies that were cut off have left; no copy may be under way here.

        Raises OSError.
        """
        for path in torn:
            self._copy_calls.unlink(path)

    def set_aside(self, piece: Piece) -> None:
        """Move a damaged copy where it counts no more.  Raises OSError."""
        place = self.directory / QUARANTINE
        self._copy_calls.mkdir(place)
        path = piece_path(self.directory, piece)
        with contextlib.suppress(FileNotFoundError):
            self._copy_calls.rename(path, place / f"{piece.kind}.{piece.name}")
        self._copy_sizes.pop(piece, None)

    def aside(self) -> set[Piece]:
        """Return the damaged copies that were set aside.  Raises OSError."""
        found: set[Piece] = set()
        for entry in self._copy_calls.scan(self.directory / QUARANTINE):
            kind, _, name = entry.name.partition(".")
            if kind in RANK:
                found.add(Piece(cast("PieceKind", kind), name))
        return found

    def drop_aside(self, piece: Piece) -> None:
        """Remove a damaged copy for good: a good one of the same object is there.

        Raises OSError.
        """
        self._copy_calls.unlink(self.directory / QUARANTINE / f"{piece.kind}.{piece.name}")

    def prove(self, piece: Piece, step: Step = go_on) -> None:
        """Read a copy from the disk and hold it against its own checksums; needs no keys.

        Heads and page tables of a plain volume bear none: that they can be read is all this says.
        Raises Corrupt, NotFound, OSError.
        """
        path = piece_path(self.directory, piece)
        if piece.kind == "packs":
            prove_pack(self._copy_calls, path, piece.name, step)
            return
        document = read_past_cache(self._copy_calls, path, DOCUMENT_MAX)
        if piece.kind == "manifests":
            decode_manifest(piece.name, document)

    def deliver(self, piece: Piece, target: Path, step: Step = go_on) -> int:
        """Bring a pack from here to *target*, durably, whole and proved; return its bytes.

        Raises Corrupt, NotFound, OSError, and what *step* raises.
        """
        source = piece_path(self.directory, piece)
        return receive_pack(self._copy_calls, source, target, piece.name, step)

    def pack_files(self) -> PackFiles:
        """Return what reads blocks out of the packs here."""
        return PackFiles(self, self._copy_calls)

    def fetch(self, piece: Piece) -> bytes:
        """Return a document: unproved.  Raises NotFound, OSError."""
        try:
            return self._copy_calls.read_file(piece_path(self.directory, piece), DOCUMENT_MAX)
        except FileNotFoundError:
            raise NotFound(f"{piece.name} is not among the {piece.kind}") from None
