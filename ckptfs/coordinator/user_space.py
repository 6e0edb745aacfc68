"""The space that a user provides for versions of a job, looked at when the job is submitted.

Versions lie in the store, so space can be provided on the store's disk alone; a *Path* says where
the user has it, and must be a directory of theirs on that disk.  The path is hostile: it may lead
to a file system that does not answer, so it is looked at in a thread with a deadline, and by few
threads at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import trio

from ..errors import NotAuthorised, StoreFull, TimedOut, Unsupported
from ..model import Owner, Policy
from .charging import Charging
from .parts import Parts

LOOK_S = 2.0
LOOKERS = 4  # threads that paths which do not answer can hold


@dataclass(frozen=True, slots=True)
class Place:
    """What was found at a path."""

    uid: int
    device: int


def look(path: str) -> Place | None:
    """Return whose directory *path* is, and on which disk; None when it is none.  Blocks."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(fd)
        return Place(found.st_uid, found.st_dev)
    finally:
        os.close(fd)


class UserSpace:
    """Checks what a submission says of space."""

    def __init__(self, parts: Parts, charging: Charging) -> None:
        self._parts, self._charging = parts, charging
        self._lookers = trio.CapacityLimiter(LOOKERS)

    async def check(self, policy: Policy, owner: Owner) -> None:
        """Refuse space that is not there or not the owner's; nothing said is fine.

        Raises QuotaExceeded (EDQUOT), StoreFull (ENOSPC), NotAuthorised (EPERM), Unsupported
        (another disk), TimedOut.
        """
        if not policy.keep_user_bytes:
            return
        self._charging.require_space(owner.uid, policy.keep_user_bytes)
        free_bytes = self._parts.store.usage().free_bytes
        if policy.keep_user_bytes > free_bytes:
            raise StoreFull(
                f"UserSpace/Bytes: {policy.keep_user_bytes} bytes are promised, the disk has"
                f" {free_bytes} left"
            )
        if policy.space_path:
            await self._check_path(policy.space_path, owner)

    async def _check_path(self, path: str, owner: Owner) -> None:
        place = None
        with trio.move_on_after(LOOK_S) as scope:
            place = await trio.to_thread.run_sync(
                look, path, abandon_on_cancel=True, limiter=self._lookers
            )
        if scope.cancelled_caught:
            raise TimedOut(f"UserSpace/Path: {path} does not answer")
        if place is None or place.uid != owner.uid:  # one sentence: a stranger learns nothing
            raise NotAuthorised(f"UserSpace/Path: {path} is no directory of {owner.user}")
        if place.device != self._parts.directory.device():
            raise Unsupported(
                f"UserSpace/Path: versions lie in the store, and {path} is on another disk: leave"
                " Path out, or name a directory on the store's disk"
            )
