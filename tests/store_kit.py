"""What the store's tests share: a small way to write versions, and faults in the system calls."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

from ckptfs.errors import StoreFull
from ckptfs.ids import JobId, UnitName, Version
from ckptfs.model import Head, Initiator, Owner, Protocol, Purpose
from ckptfs.store.store import LocalStore
from ckptfs.store.syscalls import Syscalls

JOB = JobId("solver.1")
UNIT = UnitName("JobUnit_1")
PAGE = 4096
MIB = 1 << 20

Files = Mapping[str, bytes]


def draft(job: JobId = JOB, version: int = 1) -> Head:
    """A head as the coordinator hands it in."""
    return Head(
        job,
        Version(version),
        Owner(1000, 1000, (1000,), "alice"),
        0,
        Purpose.USER,
        Initiator.USER,
        Protocol.COORDINATED,
        (),
        0,
        0,
        0,
    )


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def dirtied(data: bytes, pages: int, seed: int) -> bytes:
    """*data* with the start of some pages changed."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for page in rng.sample(range(len(data) // PAGE), pages):
        changed[page * PAGE : page * PAGE + 8] = rng.randbytes(8)
    return bytes(changed)


async def write_file(ingest, unit: UnitName, name: str, data: bytes, piece: int = MIB) -> None:
    file = ingest.create(unit, name)
    for at in range(0, len(data), piece):
        await file.wait_writable()
        file.write(at, data[at : at + piece])


async def save(
    store: LocalStore,
    files: Files,
    *,
    version: int = 1,
    job: JobId = JOB,
    piece: int = MIB,
    family=(),
) -> Head:
    """Write and commit a version of one unit; abort when that fails."""
    size = sum(map(len, files.values()))
    ingest = store.begin(job, Version(version), expect_bytes=size, family=family)
    try:
        for name, data in files.items():
            await write_file(ingest, UNIT, name, data, piece)
        return await ingest.commit(draft(job, version))
    finally:
        await ingest.abort()


async def load(store: LocalStore, name: str, *, version: int = 1, job: JobId = JOB) -> bytes:
    """Read a file of a committed version whole."""
    await store.ready(job, Version(version))
    reader = store.open(job, Version(version), UNIT, name)
    try:
        parts = []
        while part := await reader.read(sum(map(len, parts)), MIB):
            parts.append(part)
        return b"".join(parts)
    finally:
        reader.close()


class Cut(BaseException):
    """The machine lost power here.  Not an Exception: nothing may catch it and go on."""


class FaultyCalls(Syscalls):
    """Real calls: recorded, failing at the n-th, or cut off with unsynced bytes lost."""

    CHANGING = ("create", "pwrite", "fsync", "fdatasync", "chmod", "rename", "unlink", "mkdir")

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fail_at: dict[int, OSError] = {}  # number of the call, from 0
        self.fail_when = lambda name, what: None  # → OSError or None
        self.cut_at = -1
        self.was_cut = False
        self._unsynced: dict[int, tuple[Path, int]] = {}  # fd → path, durable size
        self._paths: dict[int, Path] = {}

    def _step(self, name: str, what: object) -> None:
        if self.was_cut:
            raise Cut
        number = len(self.log)
        self.log.append(f"{name} {what}")
        if number == self.cut_at:
            self.was_cut = True
            self._lose()
            raise Cut
        error = self.fail_at.get(number) or self.fail_when(name, str(what))
        if error is not None:
            raise error

    def _lose(self) -> None:
        """Drop what was written and never synced, as a disk that loses power may."""
        for path, kept in self._unsynced.values():
            if path.exists():
                os.truncate(path, kept)

    def create(self, path, *, direct=False, mode=0o600):
        self._step("create", path.name)
        fd = super().create(path, direct=direct, mode=mode)
        self._paths[fd] = path
        self._unsynced[fd] = (path, 0)
        return fd

    def close(self, fd):
        super().close(fd)

    def pwrite(self, fd, data, offset):
        self._step("pwrite", f"{self._paths[fd].name} {offset}+{len(data)}")
        super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self._step("fsync", fd if fd not in self._paths else self._paths[fd].name)
        super().fsync(fd)
        self._unsynced.pop(fd, None)

    def fdatasync(self, fd):
        self._step("fdatasync", self._paths[fd].name)
        super().fdatasync(fd)
        self._unsynced.pop(fd, None)

    def chmod(self, path, mode):
        self._step("chmod", path.name)
        super().chmod(path, mode)

    def rename(self, old, new):
        self._step("rename", f"{old.name} {new.name}")
        super().rename(old, new)

    def unlink(self, path):
        self._step("unlink", path.name)
        super().unlink(path)

    def mkdir(self, path):
        self._step("mkdir", path.name)
        super().mkdir(path)

    def rmdir(self, path):
        self._step("rmdir", path.name)
        super().rmdir(path)


def full() -> OSError:
    return OSError(StoreFull.errno, "No space left on device")


def broken() -> OSError:
    return OSError(5, "Input/output error")
