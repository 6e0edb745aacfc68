"""The regular files a unit has open for writing, recorded while it is frozen.

Of a file that is written at its end, the hash of its last bytes is recorded
too: it tells later whether the file still holds what it held (`tails`).
`putting_back` is the other half.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..model import OpenFile
from . import procfs, rollback
from .credentials import Rights
from .tails import Mark, whole_file

_WRITABLE = (os.O_WRONLY, os.O_RDWR)


def record_open_files(pids: Sequence[int]) -> tuple[OpenFile, ...]:
    """Return every regular, named file that these processes have open for writing or mapped so.

    Sorted by path, then process.  Unlinked files are the checkpointer's business.
    """
    found: list[OpenFile] = []
    marks: dict[tuple[int, int], Mark | None] = {}
    for status in procfs.read_statuses(pids):
        for item in _from_descriptors(status):
            found.append(item)
            if _is_written_at_its_end(item) and (item.device, item.inode) not in marks:
                marks[item.device, item.inode] = _mark(status.pid, item)
        found += _from_mappings(status)
    marked = (_with_mark(item, marks.get((item.device, item.inode))) for item in found)
    return tuple(sorted(marked, key=lambda item: (item.path, item.pid, item.fd)))


def _is_written_at_its_end(item: OpenFile) -> bool:
    """Whether what is before the end stays as it is, as far as one can see."""
    return bool(item.flags & os.O_APPEND) or item.position == item.size_bytes


def _mark(pid: int, item: OpenFile) -> Mark | None:
    """Return the mark of a file as it is now, None when it cannot be read."""
    try:
        fd = os.open(f"/proc/{pid}/fd/{item.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return whole_file(fd).mark_at(item.size_bytes)
    except OSError:
        return None
    finally:
        os.close(fd)


def _with_mark(item: OpenFile, mark: Mark | None) -> OpenFile:
    if mark is None or mark.size_bytes != item.size_bytes:
        return item
    return replace(item, tail_bytes=mark.window, tail_hash=mark.digest)


def _from_descriptors(status: procfs.Status) -> Iterator[OpenFile]:
    for descriptor in procfs.read_descriptors(status.pid):
        if descriptor.flags & os.O_ACCMODE not in _WRITABLE or descriptor.flags & os.O_PATH:
            continue
        try:
            there = os.stat(f"/proc/{status.pid}/fd/{descriptor.fd}")
        except OSError:
            continue
        if stat.S_ISREG(there.st_mode) and there.st_nlink:
            yield _open_file(status, descriptor.target, there, descriptor)


def _from_mappings(status: procfs.Status) -> Iterator[OpenFile]:
    seen: set[str] = set()
    for mapping in procfs.read_maps(status.pid):
        writable = mapping.permissions[1] == "w" and mapping.permissions[3] == "s"
        if not writable or not mapping.path.startswith("/") or mapping.path in seen:
            continue
        seen.add(mapping.path)
        try:
            # As the process sees it: the logs of a clone have other names outside.
            there = os.stat(f"/proc/{status.pid}/root{mapping.path}", follow_symlinks=False)
        except OSError:
            continue
        # The maps file shows another device number than stat(2) on some file systems (btrfs).
        if stat.S_ISREG(there.st_mode) and there.st_ino == mapping.inode:
            yield _open_file(status, mapping.path, there, None)


def _open_file(
    status: procfs.Status, path: str, there: os.stat_result, descriptor: procfs.Descriptor | None
) -> OpenFile:
    return OpenFile(
        path=path,
        device=there.st_dev,
        inode=there.st_ino,
        size_bytes=there.st_size,
        position=descriptor.position if descriptor else 0,
        flags=descriptor.flags if descriptor else os.O_RDWR,
        mode=stat.S_IMODE(there.st_mode),
        uid=there.st_uid,
        gid=there.st_gid,
        pid=status.inner_pid,
        fd=descriptor.fd if descriptor else -1,
    )


def save_copies(
    files: Sequence[OpenFile], directory_fd: int, rights: Rights
) -> tuple[OpenFile, ...]:
    """Save small files whole below ``files/`` of the image; return all with `copy` set where saved.

    For ``rollback=copy``.  Raises CheckpointerFailed when one cannot be read.
    """
    names = rollback.save(one_per_inode(files), directory_fd, rights)
    return tuple(replace(item, copy=names.get((item.device, item.inode), "")) for item in files)


def one_per_inode(files: Sequence[OpenFile]) -> tuple[OpenFile, ...]:
    """Return one entry for each file, however often it is open."""
    return tuple({(item.device, item.inode): item for item in files}.values())
