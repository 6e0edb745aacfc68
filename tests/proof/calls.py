"""The store's system calls, recorded for `disk.Disk`, or failing at a chosen one."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ckptfs.store.syscalls import Syscalls

from .disk import SECTOR, Op

# what a call does to the disk; a call of the thin layer in none of these is a failed test
CHANGING = frozenset(
    {
        *("create", "pwrite", "fsync", "fdatasync", "chmod", "rename"),
        *("unlink", "mkdir", "rmdir", "fsync_directory"),
    }
)
UNNAMED = frozenset({"open_unnamed", "park"})  # files that a crash leaves nothing of
READING = frozenset({"open_read", "pread_into", "read_file", "scan", "free_and_total"})
NEUTRAL = frozenset({"close", "forget_cache", "want_cached", "is_cached"})
PARTS = frozenset({"write_some", "read_some"})  # what pwrite and pread_into are made of


def strangers() -> set[str]:
    """Return the calls of the thin layer that the model does not know."""
    known = CHANGING | UNNAMED | READING | NEUTRAL | PARTS
    return {name for name in vars(Syscalls) if not name.startswith("_")} - known


Plan = Callable[[int, str, str], OSError | None]  # number, call, what → its failure


def no_fault(_number: int, _call: str, _what: str) -> OSError | None:
    """Let everything pass."""
    return None


class Short(OSError):
    """No failure: the kernel takes or gives only half of what was asked for, and no word of it."""


class ProofCalls(Syscalls):
    """Real calls below *top*, recorded in order; *plan* says which fail, *half*: a write half done.

    A call is counted when it begins and recorded when it is done.  Thread safe.
    """

    def __init__(self, top: Path, *, plan: Plan = no_fault, half: bool = False) -> None:
        self.log: list[Op] = []
        self.plan, self.half = plan, half
        self.changes = self.reads = 0
        self.changing: list[str] = []  # the calls by their numbers
        self.reading: list[str] = []
        self._is_short = threading.local()
        self._top = top
        self._turn = threading.RLock()
        self._inodes: dict[int, int] = {}  # descriptor → inode of the model
        self._next = 1_000_000

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._top)) if path != self._top else ""

    def _step(self, call: str, what: str) -> OSError | None:
        """Count a call; return its failure."""
        if call in READING:
            number, self.reads = self.reads, self.reads + 1
            self.reading.append(call)
        else:
            number, self.changes = self.changes, self.changes + 1
            self.changing.append(call)
        return self.plan(number, call, what)

    def _fail(self, call: str, path: Path | str) -> None:
        error = self._step(call, str(path))
        if error is not None and not isinstance(error, Short):
            raise error

    # -- calls that change the disk ---------------------------------------------

    def create(self, path: Path, *, direct: bool = False, mode: int = 0o600) -> int:
        with self._turn:
            self._fail("create", path)
            descriptor = super().create(path, direct=direct, mode=mode)
            self._next += 1
            self._inodes[descriptor] = self._next
            self.log.append(("create", (self._name(path), self._next, mode)))
            return descriptor

    def close(self, fd: int) -> None:
        with self._turn:
            self._inodes.pop(fd, None)
            super().close(fd)

    def pwrite(self, fd, data, offset: int) -> None:
        with self._turn:
            error = self._step("pwrite", f"{offset}+{len(data)}")
            self._is_short.now = isinstance(error, Short)
            if error is not None and not self._is_short.now:
                if self.half:
                    super().pwrite(fd, first_half(memoryview(data)), offset)
                raise error
            super().pwrite(fd, data, offset)

    def write_some(self, fd: int, data: memoryview, offset: int) -> int:
        if self._is_short.now:
            self._is_short.now, data = False, first_half(data) or data
        done = super().write_some(fd, data, offset)
        self.log.append(("pwrite", (self._inodes[fd], offset, bytes(data[:done]))))
        return done

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd, super().fsync)

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd, super().fdatasync)

    def _sync(self, call: str, fd: int, sync: Callable[[int], None]) -> None:
        with self._turn:
            self._fail(call, "")
            sync(fd)
            self.log.append(("sync", (self._inodes[fd],)))

    def chmod(self, path: Path, mode: int) -> None:
        with self._turn:
            self._fail("chmod", path)
            super().chmod(path, mode)
            self.log.append(("chmod", (self._name(path), mode)))

    def rename(self, old: Path, new: Path) -> None:
        with self._turn:
            self._fail("rename", new)
            super().rename(old, new)
            self.log.append(("rename", (self._name(old), self._name(new))))

    def unlink(self, path: Path) -> None:
        with self._turn:
            self._fail("unlink", path)
            there = os.path.lexists(path)
            super().unlink(path)
            if there:
                self.log.append(("unlink", (self._name(path),)))

    def mkdir(self, path: Path) -> None:
        with self._turn:
            self._fail("mkdir", path)
            there = os.path.lexists(path)
            super().mkdir(path)
            if not there:
                self.log.append(("mkdir", (self._name(path),)))

    def rmdir(self, path: Path) -> None:
        with self._turn:
            self._fail("rmdir", path)
            there = os.path.lexists(path)
            super().rmdir(path)
            if there:
                self.log.append(("rmdir", (self._name(path),)))

    def fsync_directory(self, path: Path) -> None:
        with self._turn:
            self._fail("fsync_directory", path)
            Syscalls().fsync_directory(path)
            with contextlib.suppress(ValueError):  # above the top: nothing of ours
                self.log.append(("sync_directory", (self._name(path),)))

    def open_unnamed(self, directory: Path) -> int:
        self._fail("open_unnamed", directory)
        return super().open_unnamed(directory)

    def park(self, fd: int, data, offset: int) -> None:
        self._fail("park", f"{offset}+{len(data)}")
        super().park(fd, data, offset)

    # -- calls that read --------------------------------------------------------

    def open_read(self, path: Path) -> int:
        self._fail("open_read", path)
        return super().open_read(path)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        error = self._step("pread_into", str(offset))
        self._is_short.now = isinstance(error, Short)
        if error is not None and not self._is_short.now:
            raise error
        return super().pread_into(fd, buffer, offset)

    def read_some(self, fd: int, buffer: memoryview, offset: int) -> int:
        if self._is_short.now:
            self._is_short.now, buffer = False, first_half(buffer) or buffer
        return super().read_some(fd, buffer, offset)

    def read_file(self, path: Path, limit: int) -> bytes:
        self._fail("read_file", path)
        return super().read_file(path, limit)

    def scan(self, path: Path):
        self._fail("scan", path)
        return super().scan(path)

    def free_and_total(self, path: Path) -> tuple[int, int]:
        self._fail("free_and_total", path)
        return super().free_and_total(path)


def first_half(data: memoryview) -> memoryview:
    """Return half of it, in whole sectors: what a disk takes of a write that it cuts short."""
    return data[: len(data) // 2 // SECTOR * SECTOR]


def failure(number: int) -> OSError:
    """Return what the kernel would say, new each time: tracebacks stick to exceptions.

    0: it says nothing, and does half.
    """
    return OSError(number, os.strerror(number)) if number else Short()


def nth(wanted: int, number: int, *, reading: bool = False) -> Plan:
    """Return the plan: the *wanted*-th changing, or *reading*, call fails with errno *number*."""

    def plan(at: int, call: str, _what: str) -> OSError | None:
        hit = at == wanted and (call in READING) == reading
        return failure(number) if hit else None

    return plan
