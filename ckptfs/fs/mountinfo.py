"""``/proc/self/mountinfo`` as records.  Pure.  Source: proc(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line.  *device* is ``major:minor``; *type* as ``fuse.ckptfs``."""

    device: str
    path: str
    type: str


def parse_mountinfo(text: str) -> list[MountPoint]:
    """Return all mounts in the order they were made."""
    found: list[MountPoint] = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 5 or not kind[0]:
            continue
        path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        found.append(MountPoint(fields[2], path, kind[0]))
    return found


def find_mount(mounts: Sequence[MountPoint], path: str) -> MountPoint | None:
    """Return the uppermost mount on *path*, an absolute path."""
    return next((mount for mount in reversed(mounts) if mount.path == path), None)
