"""``ckptfs umount``: unmount cleanly; the jobs go on."""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ...errors import Busy, CannotRun, CkptfsError, NotFound, TimedOut
from ..client import KernelFiles, Mount
from ..entry import warn
from ..mounts import mounted_points
from ..naming import list_jobs
from ..outcomes import parse_state

EXAMPLES = """\
sudo ckptfs umount /ckpt
"""

ENDED_TIMEOUT_S = 60.0  # the daemon seals what it was writing and syncs
USERS_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("--lazy", action="store_true", help="also when it is in use")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running service: a descriptor of its process, and its store."""

    pidfd: int
    store: str


def store_served(command: list[str], mountpoint: str) -> str:
    """Return the store in the argv of the service at *mountpoint*, "" for any other argv.  Pure."""
    if "ckptfs.daemon" not in command[1:5] or command[-1] != mountpoint:
        return ""
    return dict(pairwise(command)).get("--store", "")


def processes() -> Iterator[Path]:
    """Yield the directories of the processes in /proc."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def find_daemons(mountpoint: str) -> list[Daemon]:
    """Return the processes that serve *mountpoint*: one, unless mounts lie over each other."""
    found: list[Daemon] = []
    for process in processes():
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if store := store_served(command, mountpoint):
                found.append(Daemon(os.pidfd_open(int(process.name)), store))
        except OSError:
            continue  # it has ended, or is none of ours
    return found


def find_users(mountpoint: str) -> list[str]:
    """Return who stands in the mount or has a file of it open: ``bash (4711)``."""
    found: list[str] = []
    for process in processes():
        if process.name == str(os.getpid()):
            continue  # started from within: the shell that did is named
        links = [process / "cwd", process / "root"]
        try:
            links += (process / "fd").iterdir()
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        if any(_is_below(link, mountpoint) for link in links):
            found.append(f"{name} ({process.name})")
    return found


def _is_below(link: Path, mountpoint: str) -> bool:
    try:
        return f"{os.readlink(link)}/".startswith(f"{mountpoint}/")
    except OSError:
        return False


def count_running(mountpoint: str) -> int:
    """Return how many jobs of the mount have not ended, as far as this user may see."""
    mount, count = Mount(Path(mountpoint), KernelFiles()), 0
    try:
        for job in list_jobs(mount):
            count += not parse_state(mount.read(f"{job}/ctl/state")).has_ended
    except CkptfsError:
        pass  # the service has ended already: nothing to count
    return count


def find_loading(mountpoint: str) -> list[str]:
    """Return the jobs whose memory is still being read from the mount, after a lazy restart."""
    mount, found = Mount(Path(mountpoint), KernelFiles()), list[str]()
    with suppress(CkptfsError):
        found += [
            job for job in list_jobs(mount) if "state=loading" in mount.read(f"{job}/ctl/units")
        ]
    return found


def unmount(mountpoint: str, *, lazy: bool) -> None:
    """Unmount by the system's own command.  Raises Busy naming who uses it, CannotRun."""
    program = shutil.which("umount" if os.geteuid() == 0 else "fusermount3")
    if program is None:
        raise CannotRun("fusermount3 is missing: install the package fuse3")
    options = (["-l"] if lazy else []) if os.geteuid() == 0 else ["-u"] + ["-z"] * lazy
    result = subprocess.run(
        [program, *options, "--", mountpoint], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    if loading := find_loading(mountpoint):
        raise Busy(
            f"{mountpoint}: the memory of {', '.join(loading)} is still being read from it after a "
            "lazy restart; wait until ctl/units says state=running, or add --lazy"
        )
    users = find_users(mountpoint)
    if users:
        more = " and others" if len(users) > USERS_NAMED else ""
        raise Busy(
            f"{mountpoint} is in use by {', '.join(users[:USERS_NAMED])}{more}: "
            "let them leave it, or add --lazy"
        )
    raise CannotRun((result.stderr.strip().splitlines() or ["umount failed"])[-1])


def run(args: argparse.Namespace) -> int:
    """Unmount, wait until the service has ended, and say what goes on."""
    mountpoint = os.path.realpath(args.mountpoint)
    if mountpoint not in mounted_points():
        raise NotFound(f"no ckptfs is mounted at {mountpoint}")
    running = count_running(mountpoint)
    daemons = find_daemons(mountpoint)
    unmount(mountpoint, lazy=args.lazy)
    if args.lazy:
        return 0  # whoever still stands in it is served until he leaves
    for daemon in daemons:
        end_daemon(daemon, mountpoint)
    if running:
        jobs = "1 job goes on" if running == 1 else f"{running} jobs go on"
        store = "".join(f"--store {daemon.store} " for daemon in daemons[:1])
        warn(f"{jobs}; mount again to see to them: ckptfs mount {store}{mountpoint}")
    return 0


def end_daemon(daemon: Daemon, mountpoint: str) -> None:
    """Return when the process is gone: only then may its store be mounted again.

    The kernel ends it with its last mount, but a mount namespace made by
    somebody else (a container, say) may hold a copy of it that nobody here can
    reach: so it is told as well.  A daemon that is ending already does not mind.
    """
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(daemon.pidfd, signal.SIGTERM)
    poller = select.poll()
    poller.register(daemon.pidfd, select.POLLIN)
    if not poller.poll(ENDED_TIMEOUT_S * 1000):
        raise TimedOut(f"{mountpoint} is unmounted, but its service has not ended yet")
    os.close(daemon.pidfd)
