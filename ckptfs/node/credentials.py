"""Touch a job's files with its owner's rights, in a thread of our own process.

The file system ids are set for the calling thread alone and set back after,
so a symlink that a user puts in our way opens nothing the user could not open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..model import Owner
from .syscalls import set_thread_fs_ids


@contextmanager
def as_owner(owner: Owner) -> Iterator[None]:
    """Give the calling thread the owner's rights on files.  Use it in worker threads, around no await."""
    if owner.uid == os.getuid():
        yield
        return
    before = tuple(os.getgroups())
    set_thread_fs_ids(owner.uid, owner.gid, owner.groups)
    try:
        yield
    finally:
        set_thread_fs_ids(0, os.getgid(), before)
