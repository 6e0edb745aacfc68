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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import Busy, CannotRun, Corrupt, Forbidden, NotADirectory, NotEmpty, NotFound
from ..ids import JobId, Version, parse_job_id
from . import layout
from .blocks import PackFiles
from .copies_plan import Piece
from .heads import HEAD_MAX
from .manifest import MANIFEST_MAX, decode_manifest
from .pack_format import REGION, TRAILER_SIZE, Footer, decode_footer, decode_trailer
from .pages import region_checksum
from .syscalls import Syscalls, write_durably
from .volume import LocalVolume

MARKER = "VOLUME"
MARKER_MAX = 1 << 12
FORMAT = 1
DOCUMENT_MAX = max(HEAD_MAX, MANIFEST_MAX)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a volume said of itself."""

    held: frozenset[Piece]
    used_bytes: int
    free_bytes: int


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


def prove_pack(calls: Syscalls, path: Path, name: str) -> Footer:
    """Read a whole pack from the disk and prove it.  Raises Corrupt, NotFound, OSError."""
    try:
        fd = calls.open_read(path)
    except FileNotFoundError:
        raise NotFound(f"pack {name} is missing") from None
    try:
        size = path.stat().st_size
        calls.forget_cache(fd, 0, size)
        trailer = _read(calls, fd, max(0, size - TRAILER_SIZE), min(size, TRAILER_SIZE))
        at, length, digest = decode_trailer(trailer, size)
        footer = decode_footer(_read(calls, fd, at, length), digest, name)
        for number, checksum in enumerate(footer.regions):
            start = number * REGION
            part = _read(calls, fd, start, min(REGION, footer.data_end - start))
            if region_checksum(part) != checksum:
                raise Corrupt(f"region {number} of pack {name} does not match its checksum")
        return footer
    finally:
        calls.close(fd)


def _read(calls: Syscalls, fd: int, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    if calls.pread_into(fd, memoryview(buffer), offset) != size:
        raise Corrupt("a pack is shorter than it says")
    return bytes(buffer)


def receive_pack(calls: Syscalls, source: Path, target: Path, name: str) -> int:
    """Copy a pack durably, whole and proved, or not at all; return its bytes.

    Raises Corrupt (what arrived is not what the name says), NotFound, OSError.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    calls.unlink(temporary)
    try:
        size = _copy(calls, source, temporary)
        prove_pack(calls, temporary, name)
        calls.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            calls.unlink(temporary)
        raise
    calls.fsync_directory(target.parent)
    return size


def _copy(calls: Syscalls, source: Path, target: Path) -> int:
    try:
        from_fd = calls.open_read(source)
    except FileNotFoundError:
        raise NotFound(f"{source.name} is missing") from None
    try:
        to_fd = calls.create(target, mode=0o400)
        try:
            buffer, at = memoryview(bytearray(REGION)), 0
            while got := calls.pread_into(from_fd, buffer, at):
                calls.pwrite(to_fd, buffer[:got], at)
                at += got
            calls.fsync(to_fd)
            return at
        finally:
            calls.close(to_fd)
    finally:
        calls.close(from_fd)


class CopyVolume(LocalVolume):
    """See the top of this file; a Volume as any other, and heads beside."""

    def __init__(self, directory: Path, calls: Syscalls, domain: str) -> None:
        super().__init__(directory, calls, domain)
        self._copy_calls = calls

    def claim(self, store_id: str) -> str:
        """Make the directory a volume of this store, or recognise it as one; return its id.

        Raises NotADirectory, Forbidden (others may write there), NotEmpty (something else lies
        there), Busy (another store's), CannotRun (newer format), OSError.
        """
        if not self.directory.is_dir():
            raise NotADirectory(f"{self.directory} is not a directory")
        status = self.directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Forbidden(f"others may write in {self.directory}: chown it to root, chmod go-w")
        with contextlib.suppress(NotFound):
            return self.check(store_id)
        strangers = {entry.name for entry in self._copy_calls.scan(self.directory)}
        strangers -= {"lost+found", "packs", "manifests", "heads", f".{MARKER}.tmp"}
        if strangers:
            raise NotEmpty(f"{self.directory} is not empty: it holds {min(strangers)!r}")
        for name in ("packs", "manifests", "heads"):
            self._copy_calls.mkdir(self.directory / name)
        volume_id = secrets.token_hex(16)
        document = {"format": FORMAT, "store": store_id, "volume": volume_id}
        write_durably(
            self._copy_calls, self.directory / MARKER, json.dumps(document).encode() + b"\n"
        )
        return volume_id

    def check(self, store_id: str) -> str:
        """Return the volume's id.  Raises NotFound (not there), Busy (another store's),
        CannotRun (a newer format), Corrupt, OSError.
        """
        try:
            raw = self._copy_calls.read_file(self.directory / MARKER, MARKER_MAX)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self.directory} holds no volume") from None
        try:
            row = cast("dict[str, Any]", json.loads(raw))
            number, owner, volume_id = int(row["format"]), str(row["store"]), str(row["volume"])
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{self.directory}/{MARKER} does not parse") from error
        if number > FORMAT:
            raise CannotRun(f"{self.directory} has format {number}, this ckptfs reads {FORMAT}")
        if owner != store_id:
            raise Busy(f"{self.directory} belongs to another store")
        return volume_id

    def listing(self) -> Listing:
        """Return everything that is there.  Raises OSError."""
        held: set[Piece] = set()
        for kind in ("packs", "manifests", "tables"):
            held.update(Piece(kind, name) for name in self.names(kind))
        for job in self._copy_calls.scan(self.directory / layout.HEADS):
            for entry in self._copy_calls.scan(Path(job.path)):
                if layout.head_version(entry.name) is not None:
                    held.add(Piece("heads", f"{job.name}@{entry.name}"))
        _, used = self.count_objects()
        free, _ = self.free_and_total()
        return Listing(frozenset(held), used, free)

    def receive(self, source: Path, piece: Piece) -> int:
        """Take a copy of the object at *source*, proved; return its bytes.

        Raises Corrupt (what was read back is not what was sent), NotFound (no source), OSError.
        """
        target = piece_path(self.directory, piece)
        self.make_room(target)
        if piece.kind == "packs":
            return receive_pack(self._copy_calls, source, target, piece.name)
        return receive_document(self._copy_calls, source, target)

    def prove(self, piece: Piece) -> None:
        """Read a copy from the disk and hold it against its own checksums; needs no keys.

        Heads and page tables of a plain volume bear none: that they can be read is all this says.
        Raises Corrupt, NotFound, OSError.
        """
        path = piece_path(self.directory, piece)
        if piece.kind == "packs":
            prove_pack(self._copy_calls, path, piece.name)
            return
        document = read_past_cache(self._copy_calls, path, DOCUMENT_MAX)
        if piece.kind == "manifests":
            decode_manifest(piece.name, document)

    def deliver(self, piece: Piece, target: Path) -> int:
        """Bring a pack from here to *target*, durably, whole and proved; return its bytes.

        Raises Corrupt, NotFound, OSError.
        """
        source = piece_path(self.directory, piece)
        return receive_pack(self._copy_calls, source, target, piece.name)

    def pack_files(self) -> PackFiles:
        """Return what reads blocks out of the packs here."""
        return PackFiles(self, self._copy_calls)

    def fetch(self, piece: Piece) -> bytes:
        """Return a document: unproved.  Raises NotFound, OSError."""
        try:
            return self._copy_calls.read_file(piece_path(self.directory, piece), DOCUMENT_MAX)
        except FileNotFoundError:
            raise NotFound(f"{piece.name} is not among the {piece.kind}") from None


def receive_document(calls: Syscalls, source: Path, target: Path) -> int:
    """Copy a small object durably and compare what is on the disk; return its bytes.

    Raises Corrupt, NotFound, OSError.
    """
    try:
        data = calls.read_file(source, DOCUMENT_MAX)
    except FileNotFoundError:
        raise NotFound(f"{source.name} is missing") from None
    return keep_document(calls, data, target)


def keep_document(calls: Syscalls, data: bytes, target: Path) -> int:
    """Write a small object durably and compare what is on the disk; return its bytes.

    Raises Corrupt, OSError.
    """
    write_durably(calls, target, data)
    if read_past_cache(calls, target, len(data) + 1) != data:
        calls.unlink(target)
        raise Corrupt(f"{target} reads back other bytes than were written")
    return len(data)


def read_past_cache(calls: Syscalls, path: Path, limit: int) -> bytes:
    """Return a whole file from the disk, at most *limit* bytes.  Raises NotFound, OSError."""
    try:
        fd = calls.open_read(path)
    except FileNotFoundError:
        raise NotFound(f"{path.name} is missing") from None
    try:
        size = min(path.stat().st_size, limit)
        calls.forget_cache(fd, 0, size)
        return _read(calls, fd, 0, size)
    finally:
        calls.close(fd)
