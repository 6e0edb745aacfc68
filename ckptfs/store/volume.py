"""A place for sealed objects with one failure domain.

The store writes to one local volume; copies on others are the business of
replication, which will need no more than this Protocol.  A volume keeps
*packs* and *manifests* under ids that their contents prove, and beside each
manifest the *table* of its page hashes.  An object is
there whole and durable, or not at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from ..errors import Corrupt, NotFound
from . import layout
from .counting import ObjectCount
from .pack_format import Footer, read_footer
from .syscalls import Buffer, Syscalls, write_pieces_durably

Kind = Literal["packs", "manifests", "tables"]


class Volume(Protocol):
    """What the contract suite `tests/contract/volume_suite.py` holds every volume to."""

    domain: str

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """Store an object durably.  May be repeated.  Raises OSError, NotFound on a bad name."""
        ...

    def get(self, kind: Kind, name: str, limit: int) -> bytes:
        """Return an object, at most *limit* bytes.  Raises NotFound."""
        ...

    def has(self, kind: Kind, name: str) -> bool:
        """Whether an object is there.  Raises NotFound on a bad name, as everything here does."""
        ...

    def size(self, kind: Kind, name: str) -> int:
        """Return the bytes of an object.  Raises NotFound."""
        ...

    def names(self, kind: Kind) -> Iterator[str]:
        """Yield the ids of all objects of a kind, each once, in no order."""
        ...

    def delete(self, kind: Kind, name: str) -> None:
        """Remove an object; a missing one is fine."""
        ...

    def free_and_total(self) -> tuple[int, int]:
        """Return (bytes free to us, bytes in all)."""
        ...


class LocalVolume:
    """A volume in a directory, with what only the local one can do: adopt and open files."""

    def __init__(self, directory: Path, calls: Syscalls, domain: str = "local") -> None:
        self.directory = directory
        self.domain = domain
        self._calls = calls
        self._durable: set[Path] = set()  # directories known to be on the disk
        self.counted = ObjectCount(directory, calls)

    def path(self, kind: Kind, name: str) -> Path:
        """Return where an object lies or would lie.  Raises NotFound on a bad name."""
        return self.directory / layout.object_path(kind, name)

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """See Volume."""
        self.put_pieces(kind, name, [data])

    def put_pieces(self, kind: Kind, name: str, pieces: Iterable[Buffer]) -> None:
        """Store an object that lies in several pieces, as `put` does."""
        path = self.path(kind, name)
        self.make_room(path)
        write_pieces_durably(self._calls, path, pieces)

    def adopt(self, source: Path, name: str) -> None:
        """Take over *source*, a pack already synced, under its id; durable when this returns."""
        path = self.path("packs", name)
        self.make_room(path)
        self._calls.rename(source, path)
        self._calls.fsync_directory(path.parent)

    def make_room(self, path: Path) -> None:
        """Make the directory of *path*, durably; the one above it must be there."""
        if path.parent not in self._durable:
            self._calls.mkdir(path.parent)
            self._calls.fsync_directory(path.parent.parent)
            self._durable.add(path.parent)

    def get(self, kind: Kind, name: str, limit: int) -> bytes:
        """See Volume."""
        try:
            return self._calls.read_file(self.path(kind, name), limit)
        except FileNotFoundError:
            raise NotFound(f"{name} is not among the {kind}") from None

    def has(self, kind: Kind, name: str) -> bool:
        """See Volume."""
        return self.path(kind, name).is_file()

    def size(self, kind: Kind, name: str) -> int:
        """See Volume."""
        try:
            return self.path(kind, name).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"{name} is not among the {kind}") from None

    def names(self, kind: Kind) -> Iterator[str]:
        """See Volume."""
        for fan in self._calls.scan(self.directory / layout.object_directory(kind)):
            if len(fan.name) == 2 and fan.is_dir(follow_symlinks=False):
                for entry in self._calls.scan(Path(fan.path)):
                    if name := layout.object_name(kind, entry.name):
                        yield name

    def documents_bytes(self, manifest: str) -> int:
        """Return the bytes of a manifest and its page table; a missing one, or no name, is 0."""
        size = 0
        for kind in ("manifests", "tables") if manifest else ():
            with contextlib.suppress(NotFound):
                size += self.size(kind, manifest)
        return size

    def delete(self, kind: Kind, name: str) -> None:
        """See Volume."""
        self._calls.unlink(self.path(kind, name))

    def free_and_total(self) -> tuple[int, int]:
        """See Volume."""
        return self._calls.free_and_total(self.directory)

    def open_pack(self, name: str) -> tuple[int, Footer]:
        """Open a sealed pack for reading; return (descriptor, footer).

        Raises NotFound, Corrupt when it is torn or not what its name says.
        """
        try:
            path = self.path("packs", name)
            fd = self._calls.open_read(path)
        except FileNotFoundError:
            raise NotFound(f"pack {name} is missing") from None
        except OSError as error:
            raise Corrupt(f"pack {name} cannot be opened: {error.strerror}") from error
        try:
            # of the descriptor: the collector may have put a sparse pack in its place since
            return fd, self._footer(fd, os.fstat(fd).st_size, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self._calls.close(fd)
            raise

    def _footer(self, fd: int, size: int, name: str) -> Footer:
        try:
            return read_footer(partial(self._read, fd), size, name)
        except OSError as error:
            raise Corrupt(f"pack {name} cannot be read: {error.strerror}") from error

    def _read(self, fd: int, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        got = self._calls.pread_into(fd, memoryview(buffer), offset)
        return bytes(buffer[:got])
