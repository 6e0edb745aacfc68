"""Opening, naming and copying beside a job's files.  The caller has taken on the owner's rights."""

from __future__ import annotations

import os
from pathlib import Path

_PIECE = 8 << 20
_NAMES_MAX = 10_000


def open_existing(path: str, flags: int) -> int:
    """Open a regular file; do not follow a symlink at its end, do not wait for a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def free_name(path: Path, suffix: str, mode: int) -> tuple[str, int]:
    """Make ``<path>.<suffix>``, ``<path>.<suffix>.2`` ... when taken; return name and descriptor.

    Nothing is ever overwritten.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in range(1, _NAMES_MAX):
        name = f"{path}.{suffix}" if number == 1 else f"{path}.{suffix}.{number}"
        try:
            return name, os.open(name, flags, mode & 0o777)
        except FileExistsError:
            continue
    raise FileExistsError(17, "too many files of that name", f"{path}.{suffix}")


def give_to(fd: int, uid: int, gid: int) -> None:
    """Give a file that root has just made to the owner of the file it stands beside."""
    there = os.fstat(fd)
    if (there.st_uid, there.st_gid) != (uid, gid) and os.geteuid() == there.st_uid:
        os.fchown(fd, uid, gid)


def copy_range(source: int, target: int, offset: int, count: int, at: int = 0) -> None:
    """Copy *count* bytes of *source* from *offset* to *target* from *at*; no position moves."""
    while count:
        data = os.pread(source, min(count, _PIECE), offset)
        if not data:
            raise OSError(5, "the file became shorter while it was copied")
        offset += len(data)
        count -= len(data)
        view = memoryview(data)
        while view:
            written = os.pwrite(target, view, at)
            at += written
            view = view[written:]


def same_content(first: int, second: int) -> bool:
    """Whether two open files hold the same bytes."""
    size = os.fstat(first).st_size
    if size != os.fstat(second).st_size:
        return False
    return all(
        os.pread(first, _PIECE, offset) == os.pread(second, _PIECE, offset)
        for offset in range(0, size, _PIECE)
    )


def reserve(fd: int, present: int, size: int) -> None:
    """Have blocks for *size* bytes allocated beyond the *present* end.  Raises OSError: no space.

    The file is as long as before when it fails.
    """
    if size <= present:
        return
    try:
        os.posix_fallocate(fd, present, size - present)
    except OSError:
        os.ftruncate(fd, present)
        raise


def sync_directory_of(path: str) -> None:
    """Make the names in the directory of *path* durable."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
