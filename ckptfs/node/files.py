"""The regular files a unit has open for writing: recorded while frozen, put back at a restart.

CRIU restores an append-only file that has grown, exits 0, and the lines written
after the checkpoint come twice.  So whatever a file holds beyond the checkpoint
is moved to ``<file>.<suffix>`` and the file cut to its recorded size, through a
descriptor whose inode was compared.  All files are checked before one is touched.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CheckpointerFailed, Forbidden, NotAuthenticated, NotFound
from ..model import OpenFile
from . import procfs, rollback
from .credentials import Rights
from .outputs import copy_range, free_name, give_to, open_existing

_WRITABLE = (os.O_WRONLY, os.O_RDWR)


# -- while frozen --------------------------------------------------------------------------------


def record_open_files(pids: Sequence[int]) -> tuple[OpenFile, ...]:
    """Return every regular, named file that these processes have open for writing or mapped so.

    Sorted by path, then process.  Unlinked files are the checkpointer's business.
    """
    found: list[OpenFile] = []
    for status in procfs.read_statuses(pids):
        found += _from_descriptors(status)
        found += _from_mappings(status)
    return tuple(sorted(found, key=lambda item: (item.path, item.pid, item.fd)))


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
            there = os.stat(mapping.path, follow_symlinks=False)
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


# -- at a restart --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cut:
    """A file that has grown: checked, and open."""

    item: OpenFile
    fd: int
    size_bytes: int  # present


def put_back(
    files: Sequence[OpenFile], directory_fd: int, suffix: str, rights: Rights, *, same_boot: bool
) -> tuple[str, ...]:
    """Put the files back as they were at the checkpoint; return the names that now keep the rest.

    Blocks; call it in a worker thread.  *same_boot*: device numbers may be
    compared.  Raises NotFound, Forbidden, NotAuthenticated naming the file;
    nothing has been touched then.
    """
    single = one_per_inode(files)
    copied = [item for item in single if item.copy]
    cuts: list[_Cut] = []
    kept: list[str] = []
    copies = rollback.open_copies(copied, directory_fd)
    try:
        for item in single:
            with rights.on(item.path):
                if item.copy:
                    rollback.check(item)
                elif cut := _check(item, same_boot=same_boot):
                    cuts.append(cut)
        for cut in cuts:
            with rights.on(cut.item.path):
                kept.append(_cut(cut, suffix))
        for item in copied:
            with rights.on(item.path):
                kept += rollback.put_back(item, copies, suffix)
        return tuple(kept)
    except OSError as bad:
        raise CheckpointerFailed(f"{bad.filename or 'a file of the job'}: {bad.strerror}") from None
    finally:
        copies.close()
        for cut in cuts:
            os.close(cut.fd)


def _check(item: OpenFile, *, same_boot: bool) -> _Cut | None:
    """Compare a file with its record; return it open when it has grown.  Touches nothing."""
    try:
        fd = open_existing(item.path, os.O_RDWR)
    except FileNotFoundError:
        raise NotFound(f"a file that the job had open for writing is gone: {item.path}") from None
    except PermissionError:
        raise NotAuthenticated(
            f"the job's owner may not write the file any more: {item.path}"
        ) from None
    except OSError as bad:
        raise Forbidden(
            f"a file that the job had open cannot be used: {item.path}: {bad.strerror}"
        ) from None
    there = os.fstat(fd)
    why = _difference(item, there, same_boot=same_boot)
    if why or there.st_size == item.size_bytes:
        os.close(fd)
        if why:
            raise Forbidden(f"a file that the job had open for writing {why}: {item.path}")
        return None
    return _Cut(item, fd, there.st_size)


def _difference(item: OpenFile, there: os.stat_result, *, same_boot: bool) -> str:
    replaced = there.st_ino != item.inode or (same_boot and there.st_dev != item.device)
    if replaced or not stat.S_ISREG(there.st_mode):
        return "was replaced since the checkpoint"
    if there.st_size < item.size_bytes:
        return f"is shorter than at the checkpoint ({there.st_size} bytes, then {item.size_bytes})"
    return ""


def _cut(cut: _Cut, suffix: str) -> str:
    """Keep the tail beside the file, durably, then cut the file: in this order, for a crash."""
    name, tail = free_name(Path(cut.item.path), suffix, cut.item.mode)
    try:
        give_to(tail, cut.item.uid, cut.item.gid)
        copy_range(cut.fd, tail, cut.item.size_bytes, cut.size_bytes - cut.item.size_bytes)
        os.fsync(tail)
    finally:
        os.close(tail)
    os.ftruncate(cut.fd, cut.item.size_bytes)
    os.fsync(cut.fd)
    return name
