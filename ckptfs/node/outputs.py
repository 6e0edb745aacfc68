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


def copy_range(source: int, target: int, offset: int, count: int) -> None:
    """Append *count* bytes of *source* from *offset* to *target*; *source* keeps its position."""
    while count:
        data = os.pread(source, min(count, _PIECE), offset)
        if not data:
            raise OSError(5, "the file became shorter while it was copied")
        offset += len(data)
        count -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
