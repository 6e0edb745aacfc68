"""Receiving an object: temporary file, sync, read back past the page cache, proved, then named.

What has its name was proved; a crash leaves a temporary file that counts for nothing.  Everything
here blocks: worker threads only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import Corrupt, NotFound
from .heads import HEAD_MAX
from .manifest import MANIFEST_MAX
from .pack_format import REGION, Footer, read_footer
from .pages import PAGE, filled_runs, region_checksum
from .syscalls import Syscalls

DOCUMENT_MAX = max(HEAD_MAX, MANIFEST_MAX)
SYNC_EVERY = 16 << 20  # bytes: what is left for one fsync at the end of a pack

# Told the bytes of each MiB that is about to be read; may wait, or raise to give up.
Step = Callable[[int], None]


def go_on(_: int) -> None:
    """Neither wait nor give up: the Step of who is in no hurry and in nobody's way."""


def is_torn(name: str) -> bool:
    """Whether *name* is that of a copy under way, or of one that was cut off.  Pure."""
    return name.startswith(".") and name.endswith(".tmp")


def prove_pack(calls: Syscalls, path: Path, name: str, step: Step = go_on) -> Footer:
    """Read a whole pack from the disk and prove it.  Raises Corrupt, NotFound, OSError."""
    try:
        fd = calls.open_read(path)
    except FileNotFoundError:
        raise NotFound(f"pack {name} is missing") from None
    try:
        size = os.fstat(fd).st_size  # of the descriptor: the path may be another file's by now
        calls.forget_cache(fd, 0, size)
        return prove_pack_bytes(partial(read_part, calls, fd), size, name, step)
    finally:
        calls.close(fd)


def prove_pack_bytes(
    read: Callable[[int, int], bytes], size: int, name: str, step: Step = go_on
) -> Footer:
    """Prove a pack of *size* bytes; *read*: offset, size → bytes.  Raises Corrupt, OSError."""
    footer = read_footer(read, size, name)
    for number, checksum in enumerate(footer.regions):
        start = number * REGION
        step(REGION)
        part = read(start, min(REGION, footer.data_end - start))
        if region_checksum(part) != checksum:
            raise Corrupt(f"region {number} of pack {name} does not match its checksum")
    return footer


def read_part(calls: Syscalls, fd: int, offset: int, size: int) -> bytes:
    """Return exactly these bytes of a file.  Raises Corrupt, OSError."""
    buffer = bytearray(size)
    if calls.pread_into(fd, memoryview(buffer), offset) != size:
        raise Corrupt("a pack is shorter than it says")
    return bytes(buffer)


def land(
    calls: Syscalls, target: Path, write: Callable[[int], int], prove: Callable[[Path], object]
) -> int:
    """Make a file durably, whole and proved, or not at all; return its bytes.

    *write* fills a descriptor and returns how many bytes, *prove* reads them back from the path it
    is given.  Raises OSError and what the two raise.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    calls.unlink(temporary)
    try:
        fd = calls.create(temporary, mode=0o400)
        try:
            size = write(fd)
            calls.fsync(fd)
        finally:
            calls.close(fd)
        prove(temporary)
        calls.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            calls.unlink(temporary)
        raise
    calls.fsync_directory(target.parent)
    return size


def receive_pack(calls: Syscalls, source: Path, target: Path, name: str, step: Step = go_on) -> int:
    """Copy a pack durably, whole and proved, or not at all; return its bytes.

    Raises Corrupt (what arrived is not what the name says), NotFound, OSError, and what *step*
    raises.
    """

    def write(fd: int) -> int:
        return _copy(calls, source, fd, step)

    return land(calls, target, write, lambda path: prove_pack(calls, path, name, step))


def _copy(calls: Syscalls, source: Path, to_fd: int, step: Step) -> int:
    try:
        from_fd = calls.open_read(source)
    except FileNotFoundError:
        raise NotFound(f"{source.name} is missing") from None
    try:
        buffer, at = memoryview(bytearray(REGION)), 0
        while got := calls.pread_into(from_fd, buffer, at):
            step(got)
            write_filled(calls, to_fd, buffer[:got], at)
            at += got
            if at % SYNC_EVERY == 0:
                calls.fdatasync(to_fd)
        return at
    finally:
        calls.close(from_fd)


def write_filled(calls: Syscalls, fd: int, data: memoryview, offset: int) -> None:
    """Write all of *data* but pages of zeros into a new file: the holes of a sparse pack stay.

    Raises OSError.
    """
    runs = [(0, len(data))] if len(data) % PAGE else filled_runs(data)
    for at, size in runs:
        calls.pwrite(fd, data[at : at + size], offset + at)


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

    def write(fd: int) -> int:
        calls.pwrite(fd, data, 0)
        return len(data)

    def prove(path: Path) -> None:
        if read_past_cache(calls, path, len(data) + 1) != data:
            raise Corrupt(f"{target} reads back other bytes than were written")

    return land(calls, target, write, prove)


def read_past_cache(calls: Syscalls, path: Path, limit: int) -> bytes:
    """Return a whole file from the disk, at most *limit* bytes.  Raises NotFound, OSError."""
    try:
        fd = calls.open_read(path)
    except FileNotFoundError:
        raise NotFound(f"{path.name} is missing") from None
    try:
        size = min(path.stat().st_size, limit)
        calls.forget_cache(fd, 0, size)
        return read_part(calls, fd, 0, size)
    finally:
        calls.close(fd)
