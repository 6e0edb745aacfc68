"""What the default logs begin with that are not those which the image had open.

An image names its logs by path, and the checkpointer opens that path.  A clone
has logs of its own all the same: its holder mounts the clone's log directory
over that path, in the unit's mount namespace alone (`mounts`, `rundir.LogView`).
They begin as copies of what the logs held at the checkpoint.

An image of another store (`ckptfs recover`) had logs that were lost with it.  A
checkpointer wants a file as long as it was, so the job gets one: what was lost
is a hole, which takes no space, and ends with a line that says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..errors import CheckpointerFailed
from ..model import OpenFile
from . import rollback
from .files import one_per_inode
from .outputs import copy_range, free_name, give_to
from .putting_back import find_line, open_checked
from .rundir import LogView
from .tails import KeptTails, Line, drop_tail, fill_tail, whole_file

LOST = "\n[ckptfs: {} bytes that stood here were lost with the store]\n"


def fill_logs(
    logs: Sequence[OpenFile], view: LogView, source: Path, directory_fd: int, *, same_boot: bool
) -> None:
    """Give a clone's logs what those in *source* held at the checkpoint; those stay as they are.

    Blocks.  Runs with root's rights: both directories are root's.  Raises
    NotFound, Forbidden naming a file of *source*, CheckpointerFailed.
    """
    single = [
        replace(item, path=str(source / Path(item.path).name)) for item in one_per_inode(logs)
    ]
    with ExitStack() as stack:
        copies = rollback.open_copies([item for item in single if item.copy], directory_fd)
        stack.callback(copies.close)
        lines: list[Line] = []
        for item in single:
            if item.copy:
                lines.append(whole_file(copies.fds[item.copy]))
                continue
            fd = open_checked(item, os.O_RDONLY, same_boot=same_boot)
            stack.callback(os.close, fd)
            tails = KeptTails()
            stack.callback(tails.close)
            lines.append(find_line(item, whole_file(fd), tails))
        for item, line in zip(single, lines, strict=True):
            _write(view.own / Path(item.path).name, item, line)


def begin_logs(logs: Sequence[OpenFile], view: LogView, directory_fd: int, suffix: str) -> None:
    """Give a job of another store logs as long as they were, with what the image holds of them.

    Blocks.  Runs with root's rights, in root's directory.  What a log of that name
    holds is kept beside it, as ``<name>.<suffix>``.  Raises CheckpointerFailed.
    """
    single = one_per_inode(logs)
    with ExitStack() as stack:
        copies = rollback.open_copies([item for item in single if item.copy], directory_fd)
        stack.callback(copies.close)
        for item in single:
            path = view.own / Path(item.path).name
            _keep_beside(path, item, suffix)
            _write(path, item, whole_file(copies.fds[item.copy]) if item.copy else Line(()))


def _keep_beside(path: Path, item: OpenFile, suffix: str) -> None:
    """Keep what a log holds, so that versions which saw it can go back to it."""
    try:
        with open(path, "rb", opener=_opener) as log:
            present = whole_file(log.fileno())
            if not present.size_bytes:
                return
            name, tail = free_name(path, suffix, item.mode)
            try:
                give_to(tail, item.uid, item.gid)
                fill_tail(name, tail, present, 0)
            except BaseException:
                drop_tail(name)
                raise
            finally:
                os.close(tail)
    except FileNotFoundError:
        return
    except OSError as bad:
        raise CheckpointerFailed(
            f"what {path} holds cannot be kept beside it: {bad.strerror}"
        ) from None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _fill_up(fd: int, size_bytes: int, held_bytes: int) -> None:
    """Make a file that holds *held_bytes* as long as it was."""
    lost_bytes = size_bytes - held_bytes
    if lost_bytes <= 0:
        return
    os.ftruncate(fd, size_bytes)
    line = LOST.format(lost_bytes).encode()
    if len(line) <= lost_bytes:
        os.pwrite(fd, line, size_bytes - len(line))


def _write(path: Path, item: OpenFile, line: Line) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        try:
            give_to(fd, item.uid, item.gid)
            os.fchmod(fd, item.mode & 0o777)  # the checkpointer compares it
            at = 0
            for piece in line.pieces:
                copy_range(piece.fd, fd, piece.offset, piece.count, at)
                at += piece.count
            _fill_up(fd, item.size_bytes, at)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as bad:
        raise CheckpointerFailed(f"{path} could not be written: {bad.strerror}") from None
