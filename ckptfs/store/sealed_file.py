"""Sealed objects on a disk: written frame by frame, read by ranges, proved without keys.

Everything here blocks: worker threads only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import blake3

from ..errors import Corrupt, NotFound
from . import sealing
from .receiving import Step, go_on
from .sealing import COMPRESSED, ENCRYPTED, HEADER_SIZE, NO_KEY, TRAILER_SIZE, Frames, Header
from .syscalls import Syscalls

PIECE = 1 << 20  # bytes read at a time when only the checksum is wanted

Read = Callable[[int, int], bytes]  # offset, size → plain bytes
Write = Callable[[bytes, int], None]  # stored bytes, offset
KeyOf = Callable[[str], bytes]  # id of a key → the key; raises KeyMissing


def new_header(
    kind: str, name: str, size: int, read: Read, *, key_id: str = "", compress: bool = True
) -> Header:
    """Return the header of an object to be written: probed, with a salt of its own."""
    flags = ENCRYPTED if key_id else 0
    if compress and sealing.worth_compressing(
        [read(at, min(sealing.PROBE_SIZE, size - at)) for at in sealing.probe_offsets(size)]
    ):
        flags |= COMPRESSED
    return Header(
        flags,
        size,
        bytes.fromhex(key_id) if key_id else NO_KEY,
        os.urandom(sealing.SALT_SIZE),
        sealing.place_digest(kind, name),
    )


def write_sealed(
    write: Write, read: Read, header: Header, key: bytes | None, step: Step = go_on
) -> int:
    """Write a sealed object; return its bytes.  Raises what *write*, *read* and *step* raise."""
    hasher, at = blake3.blake3(), 0

    def put(data: bytes) -> None:
        nonlocal at
        hasher.update(data)
        write(data, at)
        at += len(data)

    frames, entries = Frames(header, key), list[int]()
    put(sealing.encode_header(header))
    for number in range(header.frames):
        length = header.frame_length(number)
        step(length)
        stored, entry = frames.seal(number, read(number * header.frame_size, length))
        entries.append(entry)
        put(stored)
    index_at = at
    put(sealing.encode_index(entries))
    put(sealing.encode_trailer(index_at))
    write(hasher.digest(), at)
    return at + sealing.DIGEST_SIZE


class SealedFile:
    """An open sealed object.  Thread safe.  Whoever made it closes *fd*."""

    def __init__(self, calls: Syscalls, fd: int, size: int, kind: str, name: str) -> None:
        """Raises Corrupt (torn, foreign, renamed), OSError."""
        self._calls, self._fd, self._what = calls, fd, f"the copy of {name}"
        self.header = sealing.decode_header(self._read(0, min(size, HEADER_SIZE)), self._what)
        if self.header.place != sealing.place_digest(kind, name):
            raise Corrupt(f"{self._what} is another object, renamed")
        trailer = self._read(max(0, size - TRAILER_SIZE), min(size, TRAILER_SIZE))
        self.index_at, self.checksum = sealing.decode_trailer(
            trailer, size, self.header, self._what
        )
        index = self._read(self.index_at, 4 * self.header.frames)
        self._places = sealing.decode_index(index, self.index_at, self._what)
        self._frames: Frames | None = None

    def unlock(self, key_of: KeyOf) -> None:
        """Get ready to read plain bytes.  Raises KeyMissing, OSError."""
        header = self.header
        key = key_of(header.key_id.hex()) if header.is_encrypted else None
        self._frames = Frames(header, key)

    def frame(self, number: int, *, fresh: bool = False) -> bytes:
        """Return the plain bytes of a frame; *fresh*: past the page cache.

        Raises Corrupt, OSError.  `unlock` comes first.
        """
        if self._frames is None:
            raise Corrupt(f"{self._what} is locked")
        offset, length, is_compressed = self._places[number]
        if fresh:
            self._calls.forget_cache(self._fd, offset, length)
        stored = self._read(offset, length)
        try:
            return self._frames.open(number, stored, is_compressed=is_compressed)
        except Corrupt as error:
            raise Corrupt(f"{self._what}: {error}") from None

    def read(self, offset: int, size: int) -> bytes:
        """Return plain bytes, fewer only at the end.  Raises Corrupt, OSError."""
        end, step = min(offset + size, self.header.plain_size), self.header.frame_size
        if not self.header.plain_size:
            return self.frame(0)  # nothing, but proved to be nothing
        parts: list[bytes] = []
        while offset < end:
            number, start = divmod(offset, step)
            parts.append(self.frame(number)[start : start + end - offset])
            offset += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, offset: int, size: int) -> bytes:
        buffer = bytearray(size)
        if self._calls.pread_into(self._fd, memoryview(buffer), offset) != size:
            raise Corrupt(f"{self._what} is shorter than it says")
        return bytes(buffer)


def open_sealed(calls: Syscalls, path: Path, kind: str, name: str) -> tuple[int, SealedFile]:
    """Open a sealed object; return (descriptor, file).  Raises NotFound, Corrupt, OSError."""
    try:
        fd = calls.open_read(path)
    except FileNotFoundError:
        raise NotFound(f"{name} is not among the {kind}") from None
    try:
        return fd, SealedFile(calls, fd, path.stat().st_size, kind, name)
    except BaseException:
        calls.close(fd)
        raise


def prove_sealed(calls: Syscalls, path: Path, kind: str, name: str, step: Step = go_on) -> Header:
    """Read an object from the disk and hold it against its checksum; needs no key.

    Raises Corrupt (altered, torn, or another object), NotFound, OSError, and what *step* raises.
    """
    fd, file = open_sealed(calls, path, kind, name)
    try:
        end = path.stat().st_size - sealing.DIGEST_SIZE
        calls.forget_cache(fd, 0, end)
        hasher, buffer = blake3.blake3(), memoryview(bytearray(PIECE))
        for at in range(0, end, PIECE):
            part = buffer[: min(PIECE, end - at)]
            step(len(part))
            if calls.pread_into(fd, part, at) != len(part):
                raise Corrupt(f"the copy of {name} is shorter than it says")
            hasher.update(part)
        if hasher.digest() != file.checksum:
            raise Corrupt(f"the copy of {name} does not match its checksum")
        return file.header
    finally:
        calls.close(fd)
