"""Touch a job's files with its owner's rights, in a thread of our own process.

The file system ids are set for the calling thread alone and set back after,
so a symlink that a user puts in our way opens nothing the user could not open.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..model import Owner
from .syscalls import set_thread_fs_ids


@contextmanager
def as_owner(owner: Owner) -> Generator[None]:
    """Give the calling thread the owner's rights on files.

    For worker threads, around no await; threads started inside inherit them.
    """
    if owner.uid == os.getuid():
        yield
        return
    before = tuple(os.getgroups())
    set_thread_fs_ids(owner.uid, owner.gid, owner.groups)
    try:
        yield
    finally:
        set_thread_fs_ids(0, os.getgid(), before)


@dataclass(frozen=True, slots=True)
class Rights:
    """With whose rights the files are touched: the owner's, but ours in our own log directory.

    The log directory is root's, so that no user can put a symlink into it.
    """

    owner: Owner
    log_directory: Path

    def on(self, path: str) -> AbstractContextManager[None]:
        """Take on the rights for one file."""
        try:
            # A program may also write into the logs of another job of its owner: root's as well.
            ours = os.path.samefile(Path(path).parent.parent, self.log_directory.parent)
        except OSError:
            ours = False
        return nullcontext() if ours else as_owner(self.owner)
