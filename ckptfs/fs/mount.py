"""Mount, serve, unmount.

One mount per process: pyfuse3 keeps its session in module variables.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from ..coordinator.api import Service
from ..errors import Busy, CannotRun, NotADirectory, NotEmpty, NotFound
from .boundary import is_dead_mount
from .mountinfo import MountPoint, find_mount, parse_mountinfo
from .operations import CkptfsOperations
from .parts import build_parts

log = logging.getLogger(__name__)
TYPE = "ckptfs"
READ_AHEAD_KB = 4096  # four requests under way: 1.5 GB/s; with one 1.2, with eight 1.1
PYFUSE3_MIN = (3, 5)  # first with poll
SWEEP_EVERY_S = 300.0  # of the spool
MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a user may choose at mount."""

    hide_jobs: bool = False  # list other users' jobs to root alone
    allow_other: bool = True  # everybody may enter; mode bits decide the rest


def check_machine() -> None:
    """Raise CannotRun with one sentence when this machine cannot mount."""
    version = tuple(int(part) for part in pyfuse3.__version__.split(".")[:2])
    if version < PYFUSE3_MIN:
        raise CannotRun(
            f"pyfuse3 {pyfuse3.__version__} has no poll(2): install pyfuse3 3.5 or newer"
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise CannotRun("/dev/fuse cannot be opened: load the fuse module and run this as root")


async def serve(
    service: Service,
    mountpoint: Path,
    *,
    options: MountOptions = MountOptions(),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount *service* on *mountpoint* and serve until it is unmounted or this is cancelled.

    Started when the mount answers.  Always unmounts (lazily where it is in
    use).  Raises CannotRun and what `make_room` raises.
    """
    check_machine()
    await trio.to_thread.run_sync(make_room, mountpoint)
    parts = build_parts(
        service,
        clock_ns=time.time_ns,
        load=lambda: os.getloadavg()[0],
        invalidate=_invalidate,
        hide_jobs=options.hide_jobs,
    )
    flags = {f"fsname={TYPE}", f"subtype={TYPE}", "default_permissions"}
    if options.allow_other:
        flags.add("allow_other")
    try:
        pyfuse3.init(CkptfsOperations(parts), str(mountpoint), flags)
    except RuntimeError as error:
        raise CannotRun(f"{mountpoint} could not be mounted: {error}") from error
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_settle, mountpoint, task_status)
            nursery.start_soon(_sweep_forever, parts.spool.sweep)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()
    finally:
        parts.notifier.close()
        pyfuse3.close(unmount=True)


def _invalidate(parent: int, name: bytes, removed: int) -> None:
    """Have the kernel drop an entry, in pyfuse3's own thread: the call may wait for a handler."""
    pyfuse3.invalidate_entry_async(
        pyfuse3.InodeT(parent), name, pyfuse3.InodeT(removed), ignore_enoent=True
    )


def make_room(mountpoint: Path) -> None:
    """Take a dead mount away; refuse what cannot be mounted on.  Blocks; may be repeated.

    Raises NotFound, NotADirectory, Busy, NotEmpty (the mount would hide what is there).
    """
    path = str(mountpoint)
    if is_dead_mount(path):
        log.warning("%s is a mount whose service has gone: taking it away", path)
        subprocess.run(["umount", "--lazy", "--", path], check=False, capture_output=True)
    present = find_mount(parse_mountinfo(MOUNTINFO.read_text()), os.path.abspath(path))
    if present is not None and present.type.endswith(f".{TYPE}"):
        raise Busy(f"{path} is mounted already")
    try:
        hidden = sorted(os.listdir(path))
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist") from error
    except NotADirectoryError as error:
        raise NotADirectory(f"{path} is not a directory") from error
    if hidden:
        raise NotEmpty(
            f"{path} is not empty: a mount would hide {hidden[0]!r}; choose an empty directory"
        )


async def _settle(mountpoint: Path, task_status: trio.TaskStatus[None]) -> None:
    """Report started once the kernel's handshake is over, and then raise the read-ahead.

    The kernel sets the read-ahead from the handshake, so it cannot be set before.
    """
    await trio.to_thread.run_sync(os.statvfs, str(mountpoint), abandon_on_cancel=True)
    await trio.to_thread.run_sync(_set_read_ahead, mountpoint)
    task_status.started()


def _set_read_ahead(mountpoint: Path) -> None:
    found: MountPoint | None = find_mount(
        parse_mountinfo(MOUNTINFO.read_text()), os.path.abspath(mountpoint)
    )
    if found is None:
        return
    try:
        Path(f"/sys/class/bdi/{found.device}/read_ahead_kb").write_text(f"{READ_AHEAD_KB}\n")
    except OSError as error:  # /sys is read-only in many containers: reads are slower, not wrong
        log.info("read-ahead stays as it is: %s", error)


async def _sweep_forever(sweep: Callable[[int], object]) -> None:
    while True:
        await trio.sleep(SWEEP_EVERY_S)
        sweep(time.time_ns())
