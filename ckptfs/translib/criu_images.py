"""What is read out of CRIU's image files: are they all there, and whose processes are they.

Format (CRIU images/*.proto): two 32-bit magics, then entries of a 32-bit size
and a protobuf message.  Only the few fields below are looked at.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence

from ..errors import CheckpointerFailed, Corrupt

_CORE = re.compile(r"core-([0-9]+)\.img\Z")
_CORE_THREAD = 5  # core_entry.thread_core
_THREAD_CREDS = 10  # thread_core_entry.creds
_CREDS_UIDS = (1, 3, 5, 7)  # creds_entry: uid, euid, suid, fsuid
_CORE_MAX = 4 << 20  # bytes; real ones are below 4 KiB


def require_images(directory_fd: int, pids: Sequence[int]) -> None:
    """Check that the images every restart needs are there and not empty.

    *pids* are the unit's processes as its own namespace numbers them.  Raises
    CheckpointerFailed naming the first one missing.
    """
    names = ("inventory.img", "pstree.img", "files.img", *(f"core-{pid}.img" for pid in pids))
    for name in names:
        try:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise CheckpointerFailed(f"the checkpointer did not write {name}") from None
        if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
            raise CheckpointerFailed(f"the checkpointer left {name} empty")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of one protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("message cut short")
        yield number, data[at : at + size]
        at += size


def _inside(data: bytes, number: int) -> bytes | None:
    for found, value in _fields(data):
        if found == number and isinstance(value, bytes):
            return value
    return None


def core_uids(image: bytes) -> frozenset[int]:
    """Return the real, effective, saved and file system uids in the bytes of one ``core-*.img``.

    None for a zombie.  Raises Corrupt.
    """
    try:
        (size,) = struct.unpack_from("<I", image, 8)
        entry = image[12 : 12 + size]
        thread = _inside(entry, _CORE_THREAD)
        creds = _inside(thread, _THREAD_CREDS) if thread is not None else None
        if len(entry) != size:
            raise ValueError("cut short")
        if creds is None:  # a zombie: it has none, and gets none
            return frozenset()
        found = dict(_fields(creds))
        uids = [value for n in _CREDS_UIDS if isinstance(value := found.get(n), int)]
        if len(uids) != len(_CREDS_UIDS):
            raise ValueError("no uids in it")
        return frozenset(uids)
    except (ValueError, IndexError, struct.error) as bad:
        raise Corrupt(f"a process image does not parse: {bad}") from None


def image_uids(directory_fd: int) -> frozenset[int]:
    """Return every uid that a process or thread in the image would be given.  Raises Corrupt."""
    found: set[int] = set()
    for name in os.listdir(directory_fd):
        if not _CORE.match(name):
            continue
        image = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd)
        try:
            found |= core_uids(os.read(image, _CORE_MAX))
        finally:
            os.close(image)
    if not found:
        raise Corrupt("the image holds no process")
    return frozenset(found)
