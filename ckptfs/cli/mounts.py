"""Which ckptfs mount a command means.

The kernel's own table (``/proc/self/mountinfo``, proc(5)) is the only source:
no state file of ours can be stale then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CannotRun, InvalidInput

FILESYSTEM_TYPE = "fuse.ckptfs"
MOUNTINFO = Path("/proc/self/mountinfo")
VARIABLE = "CKPTFS_MOUNT"

_OCTAL = re.compile(r"\\([0-7]{3})")


def parse_mountinfo(text: str) -> list[str]:
    """Return the mount points of type fuse.ckptfs in *text*, oldest first.  Pure.

    Blanks and line ends in a path come as octal escapes (proc_pid_mountinfo(5)).
    """
    points: list[str] = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and after.split(" ")[0] == FILESYSTEM_TYPE and len(fields) > 4:
            points.append(_OCTAL.sub(lambda m: chr(int(m[1], 8)), fields[4]))
    return points


def choose_mount(wanted: str, environment: Mapping[str, str], mounted: Sequence[str]) -> str:
    """Return the mount point to use: ``--mount``, then $CKPTFS_MOUNT, then the only one.  Pure.

    Raises CannotRun when there is none, InvalidInput when it is not clear which.
    """
    named = wanted or environment.get(VARIABLE, "")
    if named:
        return named
    points = list(dict.fromkeys(mounted))
    if not points:
        raise CannotRun("no ckptfs is mounted here; mount one with: ckptfs mount /ckpt")
    if len(points) > 1:
        raise InvalidInput(
            f"{len(points)} ckptfs are mounted ({', '.join(points)}): "
            f"say which with --mount or {VARIABLE}"
        )
    return points[0]


def mounted_points() -> list[str]:
    """Return the ckptfs mount points this process sees."""
    return parse_mountinfo(MOUNTINFO.read_text(errors="surrogateescape"))
