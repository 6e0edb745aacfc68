"""The one thin layer between the store and the kernel.

Everything that changes the disk, and every read whose failure matters, goes
through an object of this class, so that tests can record the calls, cut them
short and make them fail.  Paths are absolute; nothing here decides anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Corrupt, InvalidInput, QuotaExceeded, StoreFull

Buffer = bytes | bytearray | memoryview


def is_full(error: OSError) -> bool:
    """Whether *error* says that the disk, or a quota on it, is full."""
    return error.errno in {StoreFull.errno, QuotaExceeded.errno}


class Syscalls:
    """The real calls.  Every method raises OSError as the kernel reports it."""

    def create(self, path: Path, *, direct: bool = False, mode: int = 0o600) -> int:
        """Create a new file for writing and reading back; return its descriptor.

        *direct*: with O_DIRECT where the file system knows it (old tmpfs does not).
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if direct:
            try:
                return os.open(path, flags | os.O_DIRECT, mode)
            except OSError as error:
                if error.errno != InvalidInput.errno:
                    raise
                with contextlib.suppress(FileNotFoundError):  # some kernels leave the file behind
                    path.unlink()
        return os.open(path, flags, mode)

    def open_read(self, path: Path) -> int:
        """Open for reading; return the descriptor."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, data: Buffer, offset: int) -> None:
        """Write all of *data* at *offset*; short writes are continued."""
        view = memoryview(data)
        while view:
            done = self.write_some(fd, view, offset)
            if done == 0:
                raise OSError(Corrupt.errno, "the disk takes no more bytes and does not say why")
            view = view[done:]
            offset += done

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Fill *buffer* from *offset*; return how many bytes there were, less only at the end."""
        got = 0
        while got < len(buffer):
            done = self.read_some(fd, buffer[got:], offset + got)
            if done == 0:
                break
            got += done
        return got

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        """Write what the kernel takes at once; return how many bytes that was."""
        return os.pwrite(fd, data, offset)

    def read_some(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Read what the kernel gives at once; return how many bytes that was, 0 at the end."""
        return os.preadv(fd, [buffer], offset)

    def forget_cache(self, fd: int, offset: int, size: int) -> None:
        """Ask the kernel to drop cached pages, so that the next read asks the disk."""
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)

    def want_cached(self, fd: int, offset: int, size: int) -> None:
        """Ask the kernel to begin to read, without waiting for it."""
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)

    def is_cached(self, fd: int, offset: int) -> bool:
        """Whether the byte at *offset* can be read without waiting for the disk."""
        try:
            return bool(os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT))
        except OSError:  # EAGAIN: not cached; else a file system that cannot say
            return False

    def fsync(self, fd: int) -> None:
        """Make a file durable."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Make a file's bytes and size durable."""
        os.fdatasync(fd)

    def chmod(self, path: Path, mode: int) -> None:
        """Set permission bits."""
        path.chmod(mode)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing *new*."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a file; a missing one is fine."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path) -> None:
        """Make a directory (0700) unless it is there."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory; a missing one is fine."""
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()

    def fsync_directory(self, path: Path) -> None:
        """Make the entries of a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def read_file(self, path: Path, limit: int) -> bytes:
        """Return a whole file, at most *limit* bytes of it."""
        with path.open("rb") as file:
            return file.read(limit)

    def scan(self, path: Path) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a directory; none when it is missing."""
        try:
            with os.scandir(path) as entries:
                yield from entries
        except FileNotFoundError:
            return

    def free_and_total(self, path: Path) -> tuple[int, int]:
        """Return bytes free to us and bytes in all of the file system below *path*."""
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize


def write_durably(calls: Syscalls, path: Path, *pieces: Buffer, mode: int = 0o400) -> None:
    """Write a small file so that it is there whole or not at all: temp, fsync, rename, fsync dir.

    May be repeated.  Raises OSError; the temporary file is gone then.
    """
    write_pieces_durably(calls, path, pieces, mode=mode)


def write_pieces_durably(
    calls: Syscalls, path: Path, pieces: Iterable[Buffer], *, mode: int = 0o400
) -> None:
    """Write a file as `write_durably` does, one piece after the other as they are made.

    May be repeated.  Raises OSError; the temporary file is gone then.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    calls.unlink(temporary)
    fd = calls.create(temporary, mode=mode)
    try:
        try:
            done = 0
            for piece in pieces:
                calls.pwrite(fd, piece, done)
                done += len(piece)
            calls.fsync(fd)
        finally:
            calls.close(fd)
        calls.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            calls.unlink(temporary)
        raise
    calls.fsync_directory(path.parent)
