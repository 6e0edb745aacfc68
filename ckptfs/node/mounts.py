"""What the mount namespace of a unit has that the host's has not, and the other way round.

Taken out: every ckptfs mount, not only that of our own daemon, because a mount
that a unit's namespace holds on to outlives its umount.  Put in: the unit's own
/proc, and the job's log directory at the path that its image names, where that is another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import syscalls

_TYPE = "fuse.ckptfs"
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountPlan:
    """*hidden*: mount points to take out; *bound*: (directory, path where it is to be seen)."""

    hidden: tuple[str, ...] = ()
    bound: tuple[tuple[str, str], ...] = ()


def find_ckptfs_mounts(mountinfo: str) -> list[str]:
    """Return the mount points of all ckptfs mounts in a mountinfo text, deepest first.  Pure."""
    found: list[str] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and right.split(" ")[0] == _TYPE:
            found.append(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
    return sorted(found, key=lambda path: -path.count("/"))


def _detach(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            syscalls.detach_mount(path)
        except OSError:
            continue  # not mounted (any more), or gone with the mount above it


def enter_mount_namespace(plan: MountPlan) -> None:
    """Make a mount namespace for the caller, PID 1 of a pid namespace, as *plan* says."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.make_mounts_slave()
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        _detach([*plan.hidden, *find_ckptfs_mounts(file.read())])
    for directory, path in plan.bound:
        syscalls.bind_mount(directory, path)
    syscalls.mount_proc()
