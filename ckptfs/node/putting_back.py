"""A restart puts the job's files back as they were at the checkpoint.

CRIU restores an append-only file that has grown, exits 0, and the lines written
after the checkpoint come twice.  So the file gets its recorded content again,
through a descriptor whose inode was compared: cut, or put together from kept
tails (`tails`), or from the copy in the image (`rollback`).

Three rounds over all files: *check* touches nothing; *keep* saves beside what
will go, and gets the space that will be needed, and is undone when it fails;
*act* needs no new space.  Whoever is killed in between can be repeated.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointerFailed, Forbidden, NotAuthenticated, NotFound
from ..model import OpenFile
from . import rollback
from .credentials import Rights
from .files import one_per_inode
from .outputs import (
    copy_range,
    free_name,
    give_to,
    open_existing,
    reserve,
)
from .tails import KeptTails, Line, Mark, drop_tail, fill_tail, whole_file


class PutBack(Protocol):
    """How one file goes back."""

    item: OpenFile

    def check(self) -> None:
        """Raise NotFound, Forbidden, NotAuthenticated naming the file; touch nothing."""
        ...

    def is_needed(self) -> bool:
        """Whether `keep` or `act` will change anything.  After `check`."""
        ...

    def keep(self) -> None:
        """Save what will go beside the file; have the space that is needed.  Raises OSError."""
        ...

    def undo(self) -> None:
        """Take back what `keep` did, also when that failed half-way."""
        ...

    def act(self) -> list[str]:
        """Give the file its content; return the names that now keep the rest."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def put_back(
    files: Sequence[OpenFile],
    directory_fd: int,
    suffix: str,
    rights: Rights,
    *,
    same_boot: bool,
    settle: Callable[[], None] | None = None,
) -> tuple[str, ...]:
    """Put the files back as they were at the checkpoint; return the names that now keep the rest.

    Blocks; call it in a worker thread.  *same_boot*: device numbers may be
    compared.  *settle*: called before anything is changed, may raise or wait, and
    is not called when all files are as they were.  Raises NotFound, Forbidden,
    NotAuthenticated naming the file, CheckpointerFailed when there is no space;
    nothing has changed then.
    """
    plan = partial(_plan, one_per_inode(files), directory_fd, suffix, same_boot=same_boot)
    if settle is not None:
        with plan() as steps:
            _check(steps, rights)
            is_needed = any(step.is_needed() for step in steps)
        if is_needed:
            settle()  # afterwards all is looked at anew: it may have taken long
    with plan() as steps:
        return _in_rounds(steps, rights)


@contextmanager
def _plan(
    files: Sequence[OpenFile], directory_fd: int, suffix: str, *, same_boot: bool
) -> Generator[Sequence[PutBack]]:
    with ExitStack() as stack:
        copies = rollback.open_copies([item for item in files if item.copy], directory_fd)
        stack.callback(copies.close)
        steps: list[PutBack] = [
            rollback.CopyBack(item, copies, suffix)
            if item.copy
            else LineBack(item, suffix, same_boot=same_boot)
            for item in files
        ]
        for step in steps:
            stack.callback(step.close)
        yield steps


def _check(steps: Sequence[PutBack], rights: Rights) -> None:
    for step in steps:
        try:
            with rights.on(step.item.path):
                step.check()
        except OSError as bad:
            raise _failed(step, bad) from None


def _failed(step: PutBack | None, bad: OSError) -> CheckpointerFailed:
    path = bad.filename or (step.item.path if step else "a file of the job")
    return CheckpointerFailed(f"{path} could not be put back: {bad.strerror}")


def _in_rounds(steps: Sequence[PutBack], rights: Rights) -> tuple[str, ...]:
    names: list[str] = []
    step = None
    _check(steps, rights)
    try:
        _keep_all(steps, rights)
        for step in steps:
            with rights.on(step.item.path):
                names += step.act()
    except OSError as bad:
        raise _failed(step, bad) from None
    return tuple(names)


def _keep_all(steps: Sequence[PutBack], rights: Rights) -> None:
    for step in steps:
        try:
            with rights.on(step.item.path):
                step.keep()
        except OSError as bad:
            for begun in steps:
                with rights.on(begun.item.path):
                    begun.undo()
            raise CheckpointerFailed(
                f"what {step.item.path} holds beyond the checkpoint cannot be kept beside it: "
                f"{bad.strerror}"
            ) from None


def mark_of(item: OpenFile) -> Mark:
    """Return what the file held at the checkpoint."""
    return Mark(item.size_bytes, item.tail_bytes, item.tail_hash)


def open_checked(item: OpenFile, flags: int, *, same_boot: bool) -> int:
    """Open the very file of the record.  Raises NotFound, Forbidden, NotAuthenticated naming it."""
    try:
        fd = open_existing(item.path, flags)
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
    replaced = there.st_ino != item.inode or (same_boot and there.st_dev != item.device)
    if replaced or not stat.S_ISREG(there.st_mode):
        os.close(fd)
        raise Forbidden(
            f"a file that the job had open for writing was replaced since the checkpoint: "
            f"{item.path}"
        )
    return fd


def find_line(item: OpenFile, present: Line, tails: KeptTails) -> Line:
    """Return where the content of the checkpoint is now.  Raises Forbidden naming the file.

    Without a hash in the record only the size can be compared.
    """
    if not item.tail_hash and present.size_bytes >= item.size_bytes:
        return present.up_to(item.size_bytes)
    if item.tail_hash:
        tails.open(Path(item.path))
        line = tails.find(present, mark_of(item))
        if line is not None:
            return line
    if present.size_bytes < item.size_bytes:
        difference = (
            f"is shorter than at the checkpoint ({present.size_bytes} bytes, "
            f"then {item.size_bytes})"
        )
    else:
        difference = f"holds other bytes before byte {item.size_bytes} than at the checkpoint"
    raise Forbidden(
        f"a file that the job had open for writing {difference}, and what was kept beside it "
        f"does not hold them either: {item.path}"
    )


class LineBack:
    """A file that is cut, and perhaps gets kept bytes again."""

    def __init__(self, item: OpenFile, suffix: str, *, same_boot: bool) -> None:
        self.item = item
        self._suffix, self._same_boot = suffix, same_boot
        self._fd = -1
        self._present, self._line = Line(()), Line(())
        self._fork = 0  # up to here the file stays as it is
        self._tails = KeptTails()
        self._kept: list[str] = []

    def check(self) -> None:
        """Find the content of the checkpoint in the file and the tails beside it."""
        self._fd = open_checked(self.item, os.O_RDWR, same_boot=self._same_boot)
        self._present = whole_file(self._fd)
        self._line = find_line(self.item, self._present, self._tails)
        first = self._line.pieces[:1]
        self._fork = first[0].count if first and first[0].fd == self._fd else 0

    def is_needed(self) -> bool:
        """Whether the file is longer, shorter or of another run."""
        return not self._present.size_bytes == self._fork == self.item.size_bytes

    def keep(self) -> None:
        """Keep the tail beside the file, durably."""
        present = self._present.size_bytes
        reserve(self._fd, present, self.item.size_bytes)
        if present > self._fork:
            name, tail = free_name(Path(self.item.path), self._suffix, self.item.mode)
            self._kept.append(name)
            try:
                give_to(tail, self.item.uid, self.item.gid)
                fill_tail(name, tail, self._present, self._fork)
            finally:
                os.close(tail)

    def undo(self) -> None:
        """Drop the tail; give back what was reserved."""
        for name in self._kept:
            drop_tail(name)
        self._kept.clear()
        if self._present.size_bytes < self.item.size_bytes:
            os.ftruncate(self._fd, self._present.size_bytes)

    def act(self) -> list[str]:
        """Overwrite in place from the fork on, then cut."""
        at = self._fork
        if not self.is_needed():
            return []
        for piece in self._line.part(self._fork, self.item.size_bytes):
            copy_range(piece.fd, self._fd, piece.offset, piece.count, at)
            at += piece.count
        os.ftruncate(self._fd, self.item.size_bytes)
        os.fsync(self._fd)
        return self._kept

    def close(self) -> None:
        """Close file and tails."""
        self._tails.close()
        if self._fd >= 0:
            os.close(self._fd)
