"""A disk of known speed: ext4 on a loop device in memory, whose writes the kernel slows down.

The real disk of a virtual machine writes 0.3 GB/s in one hour and 3 in the next, and a file on it
would bring that along; memory holds the loop device's bytes, allocated at the start, and is always
faster than what is asked for.  The limit is the block layer's and so holds for whatever reaches
the device: written back out of the page cache, or past it with O_DIRECT.  It is set for the root
of cgroup v1's ``blkio``, where write-back is counted too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from . import machine

MIB = 1 << 20
NAME = "disk"  # the mount point, below the run's directory
NOTE = "disk-device"  # beside it: what a run that is killed leaves to be freed
THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
_SPARE_MIB = 1024


def why_not(memory_mib: int) -> str:
    """Return why this machine cannot have such a disk that needs *memory_mib* of it; "": it can."""
    if os.geteuid():
        return "it needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices here"
    if not THROTTLE.exists():
        return f"{THROTTLE} is not there: only the limits of cgroup v1 are supported"
    if (group := _group("blkio")) != "/":
        return f"the limit would not hold here: this is the blkio cgroup {group}, not the root"
    free_mib = _available_mib()
    if free_mib < memory_mib + _SPARE_MIB:
        return f"it needs {memory_mib + _SPARE_MIB} MiB of memory and {free_mib} are free"
    return ""


@contextlib.contextmanager
def limited_disk(base: Path, mebibytes: int, write_mb_s: int) -> Generator[Path]:
    """Make a disk below *base* that writes *write_mb_s* MB/s (1e6 bytes); yield its directory.

    It is gone at the end; that of a killed run when `free` is told its *base*.
    """
    device = _attach(base, mebibytes)
    try:
        machine.run("mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", device)
        (directory := base / NAME).mkdir()
        machine.run("mount", device, directory)
        directory.chmod(0o755)
        _limit(device, write_mb_s * 1_000_000)
        yield directory
    finally:
        free(base)


def free(base: Path) -> None:
    """Take the disk below *base* away, if there is one.  Raises nothing; may be repeated."""
    note = base / NOTE
    device = note.read_text() if note.exists() else ""
    if not device:
        return
    with contextlib.suppress(OSError):
        _limit(device, 0)
    _try("umount", "--lazy", "--", str(base / NAME))
    _try("losetup", "--detach", device)  # at once, or with the last file that is open there
    with contextlib.suppress(OSError):
        note.unlink()
        (base / NAME).rmdir()


def _attach(base: Path, mebibytes: int) -> str:
    """Return the name of a loop device of so many MiB, which holds the only reference to them."""
    memory = os.memfd_create("ckptfs-bench-disk")
    try:
        os.posix_fallocate(memory, 0, mebibytes * MIB)  # or the first write of each page pays
        argv = ["losetup", "--find", "--show", f"/proc/self/fd/{memory}"]
        done = subprocess.run(argv, pass_fds=[memory], capture_output=True, text=True, check=False)
    finally:
        os.close(memory)
    if done.returncode:
        sys.exit(f"bench: no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    (base / NOTE).write_text(device)
    return device


def _limit(device: str, bytes_s: int) -> None:
    """Limit what *device* writes; 0: no limit."""
    number = os.stat(device).st_rdev
    THROTTLE.write_text(f"{os.major(number)}:{os.minor(number)} {bytes_s}\n")


def _try(*argv: str) -> None:
    subprocess.run(argv, check=False, capture_output=True)


def _group(controller: str) -> str:
    """Return this process's cgroup of a controller of v1, "" when it has none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return ""


def _available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))
