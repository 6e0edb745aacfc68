"""The cgroup v2 directory that holds exactly one unit's processes.

It is found through /proc/self/mountinfo (on hybrid machines v2 is at
``/sys/fs/cgroup/unified``) and made below ``ckptfs/<store id>/``.  No
controller is switched on, so it does not matter that parents hold processes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..errors import CannotRun
from ..translib.freezer import kill_members, member_pids

_EMPTY_TIMEOUT_S = 10.0
_POLL_S = 0.002


def find_mount(mountinfo: str) -> Path | None:
    """Return where cgroup v2 is mounted according to the text of /proc/self/mountinfo.  Pure."""
    for line in mountinfo.splitlines():
        fields = line.split()
        if "-" in fields and fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4].replace("\\040", " "))
    return None


def cgroup_root() -> Path:
    """Return the mount point of cgroup v2.  Raises CannotRun with the advice to give."""
    found = find_mount(Path("/proc/self/mountinfo").read_text())
    if found is None:
        raise CannotRun("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    return found


def unit_cgroup(store_id: str, job: str, unit: str) -> Path:
    """Return the path of a unit's cgroup, which need not exist.  Raises CannotRun."""
    return cgroup_root() / "ckptfs" / store_id / f"{job}.{unit}"


def make_cgroup(path: Path) -> None:
    """Make a unit's cgroup, empty.  Raises CannotRun, also when an old one is still populated."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        freezer = path / "cgroup.freeze"
        if member_pids(path):
            raise CannotRun(f"processes of an earlier incarnation are still in {path}")
        freezer.write_text("0")
    except OSError as bad:
        raise CannotRun(
            f"no cgroup can be made at {path}: {bad.strerror}; is cgroup v2 writable?"
        ) from None


def remove_cgroup(path: Path) -> bool:
    """Kill what is in it, wait until it is empty, remove it and its empty parents.  Blocks.

    Returns False when a process would not go within 10 s (uninterruptible).
    """
    kill_members(path)
    deadline = time.monotonic() + _EMPTY_TIMEOUT_S
    while path.exists():
        try:
            os.rmdir(path)
        except FileNotFoundError:
            break
        except OSError:  # EBUSY: dying processes are still in it
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
    for parent in (path.parent, path.parent.parent):
        try:
            os.rmdir(parent)
        except OSError:
            break  # other units are there
    return True
