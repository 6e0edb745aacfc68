"""What the default logs of a clone begin with.

An image names its logs by path, and the checkpointer opens that path.  A clone
has logs of its own all the same: its holder mounts the clone's log directory
over that path, in the unit's mount namespace alone (`mounts`, `rundir.LogView`).
They begin as copies of what the logs held at the checkpoint.
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
from .outputs import copy_range, give_to
from .putting_back import find_line, open_checked
from .rundir import LogView
from .tails import KeptTails, Line, whole_file


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
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as bad:
        raise CheckpointerFailed(f"{path} could not be written: {bad.strerror}") from None
