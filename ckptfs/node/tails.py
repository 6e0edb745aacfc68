"""Several runs of a job wrote one file in turn: find the bytes that the checkpoint saw.

A restart cuts a file at byte N, keeps the rest beside as ``<file>.after-<v>``,
and the job writes on from N: from there on the file tells another story.  To
come back to a version of the first story, its bytes are put together again:
the file up to N, then the kept tail.  That may take several tails, one cut out
of the other.  Every joint is checked by a hash of the bytes before it, so a
wrong guess is a refusal, never a file that mixes two runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from .outputs import copy_range, open_existing, sync_directory_of

# A line of output is far shorter; read and hashed in 0.1 ms while the job stands still.
WINDOW_BYTES = 64 << 10
_WINDOW_MAX = 1 << 20  # of a record that another ckptfs may have made
_TAILS_MAX = 200  # the newest; each one looked at is an open file and a step of recursion
_ATTRIBUTE = "user.ckptfs.fork"
_SIDECAR = ".fork"  # where the file system has no extended attributes
_KEPT = re.compile(r"\.after-\d{1,9}(\.\d{1,5})?")
_FORK = re.compile(rb"(\d{1,18}) (\d{1,7}) ([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a file held at one moment: its size, and the hash of the last *window* bytes."""

    size_bytes: int
    window: int
    digest: str


@dataclass(frozen=True, slots=True)
class Piece:
    """*count* bytes of the open file *fd* from *offset*."""

    fd: int
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Line:
    """One story of a file, from its first byte: pieces one after the other."""

    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return sum(piece.count for piece in self.pieces)

    def part(self, begin: int, end: int) -> Iterator[Piece]:
        """Yield what makes up the bytes from *begin* to *end*."""
        start = 0
        for piece in self.pieces:
            low, high = max(begin, start), min(end, start + piece.count)
            if low < high:
                yield Piece(piece.fd, piece.offset + low - start, high - low)
            start += piece.count

    def up_to(self, size_bytes: int) -> Line:
        """Return its beginning."""
        return Line(tuple(self.part(0, size_bytes)))

    def mark_at(self, size_bytes: int, window: int = WINDOW_BYTES) -> Mark:
        """Return the mark of its first *size_bytes*.  Raises OSError."""
        window = min(window, size_bytes)
        digest = blake2b(digest_size=16)
        for piece in self.part(size_bytes - window, size_bytes):
            digest.update(os.pread(piece.fd, piece.count, piece.offset))
        return Mark(size_bytes, window, digest.hexdigest())

    def holds(self, mark: Mark) -> bool:
        """Whether it is that long and its bytes there are those of *mark*."""
        return (
            self.size_bytes >= mark.size_bytes
            and mark.window <= _WINDOW_MAX
            and self.mark_at(mark.size_bytes, mark.window) == mark
        )


def whole_file(fd: int) -> Line:
    """Return an open file as it is now."""
    return Line((Piece(fd, 0, os.fstat(fd).st_size),))


# -- kept tails ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tail:
    """A kept tail: its bytes followed those of *fork* once."""

    fd: int
    size_bytes: int
    fork: Mark


def note_fork(name: str, fd: int, fork: Mark) -> None:
    """Note on a kept tail, which is complete, where it was cut off.  Raises OSError."""
    text = f"{fork.size_bytes} {fork.window} {fork.digest}".encode("ascii")
    try:
        os.setxattr(fd, _ATTRIBUTE, text)
    except OSError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        sidecar = os.open(name + _SIDECAR, flags, 0o600)
        try:
            os.write(sidecar, text)
            os.fsync(sidecar)
        finally:
            os.close(sidecar)


def fill_tail(name: str, tail: int, present: Line, fork: int) -> None:
    """Give a new file what follows byte *fork* of *present*, durably.  Raises OSError."""
    at = 0
    for piece in present.part(fork, present.size_bytes):
        copy_range(piece.fd, tail, piece.offset, piece.count, at)
        at += piece.count
    # The note last: a tail without it is not complete.
    note_fork(name, tail, present.mark_at(fork))
    os.fsync(tail)
    sync_directory_of(name)


def drop_tail(name: str) -> None:
    """Remove a tail that could not be kept after all."""
    for path in (Path(name + _SIDECAR), Path(name)):
        path.unlink(missing_ok=True)


def _read_fork(name: str, fd: int) -> Mark | None:
    """Return where a kept tail was cut off, None when nothing (we wrote) says so."""
    try:
        text = os.getxattr(fd, _ATTRIBUTE)
    except OSError:
        try:
            sidecar = open_existing(name + _SIDECAR, os.O_RDONLY)
        except OSError:
            return None
        try:
            text = os.read(sidecar, 100)
        finally:
            os.close(sidecar)
    found = _FORK.fullmatch(text)
    return Mark(int(found[1]), int(found[2]), found[3].decode("ascii")) if found else None


def _kept_names(path: Path) -> list[str]:
    """Return the kept tails of a file, the newest first."""
    names: list[tuple[int, str]] = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            beside = entry.name.startswith(path.name)
            if beside and _KEPT.fullmatch(entry.name[len(path.name) :]):
                names.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    return [name for _, name in sorted(names, reverse=True)[:_TAILS_MAX]]


@dataclass(slots=True)
class KeptTails:
    """The kept tails of one file, open; made with the owner's rights."""

    tails: list[Tail] = field(default_factory=list[Tail])
    _found: dict[Mark, Line | None] = field(default_factory=dict[Mark, Line | None])

    def open(self, path: Path) -> None:
        """Open those of *path*.  One that cannot be read is passed over."""
        for name in _kept_names(path):
            try:
                fd = open_existing(name, os.O_RDONLY)
            except OSError:
                continue
            there = os.fstat(fd)
            fork = _read_fork(name, fd) if stat.S_ISREG(there.st_mode) else None
            if fork is None:
                os.close(fd)
            else:
                self.tails.append(Tail(fd, there.st_size, fork))

    def close(self) -> None:
        """Close them."""
        for tail in self.tails:
            os.close(tail.fd)
        self.tails.clear()

    def find(self, present: Line, mark: Mark) -> Line | None:
        """Return the line that holds *mark*, exactly that long; None when there is none.

        Each step goes to a smaller offset, so it ends.
        """
        if mark not in self._found:
            self._found[mark] = None
            if present.holds(mark):
                self._found[mark] = present.up_to(mark.size_bytes)
            else:
                self._found[mark] = self._joined(present, mark)
        return self._found[mark]

    def _joined(self, present: Line, mark: Mark) -> Line | None:
        for tail in self.tails:
            if not tail.fork.size_bytes < mark.size_bytes <= tail.fork.size_bytes + tail.size_bytes:
                continue
            before = self.find(present, tail.fork)
            if before is None:
                continue
            line = Line((*before.pieces, Piece(tail.fd, 0, tail.size_bytes)))
            if line.holds(mark):
                return line.up_to(mark.size_bytes)
        return None
