"""A unit's cgroup v2 directory: stop, let go or kill every process in it at one moment.

Source: kernel Documentation/admin-guide/cgroup-v2.rst, ``cgroup.freeze``,
``cgroup.events`` and ``cgroup.kill``.  Measured: 1 to 4 ms from the write to ``frozen 1``.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import trio

from ..errors import NoSuchProcess, TimedOut

log = logging.getLogger(__name__)

_GONE = (errno.ENOENT, errno.ENODEV)  # the directory was removed, before or after the open
FREEZE_TIMEOUT_S = 10.0  # a task in an uninterruptible wait (dead NFS server) never freezes
_POLL_FIRST_S = 0.0005
_POLL_LAST_S = 0.02


def write_freeze(cgroup: Path, *, frozen: bool) -> None:
    """Order the freezer.  Raises NoSuchProcess when the cgroup is gone, OSError."""
    try:
        (cgroup / "cgroup.freeze").write_text("1" if frozen else "0")
    except OSError as error:
        raise _ended_or(error) from None


def read_events(cgroup: Path) -> dict[str, int]:
    """Return ``cgroup.events``: ``populated`` and ``frozen``, 0 or 1.

    Raises NoSuchProcess when the cgroup is gone, OSError.
    """
    try:
        text = (cgroup / "cgroup.events").read_text()
    except OSError as error:
        raise _ended_or(error) from None
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def member_pids(cgroup: Path) -> tuple[int, ...]:
    """Return the pids in the cgroup as the caller sees them, sorted; () when it is gone.

    Raises OSError: a cgroup that cannot be read is none that has ended.
    """
    try:
        text = (cgroup / "cgroup.procs").read_text()
    except OSError as error:
        if error.errno in _GONE:
            return ()
        raise
    return tuple(sorted(int(line) for line in text.split()))


def kill_members(cgroup: Path) -> None:
    """SIGKILL every process in it, frozen or not.  Repeating is harmless.  Raises nothing."""
    try:
        (cgroup / "cgroup.kill").write_text("1")
    except OSError as error:
        if error.errno not in _GONE:
            log.error("%s/cgroup.kill: %s; its processes are killed one by one", cgroup, error)
            _kill_each(cgroup)


def _kill_each(cgroup: Path) -> None:
    try:
        pids = member_pids(cgroup)
    except OSError as error:
        log.error("the processes in %s cannot be killed: %s", cgroup, error)
        return
    for pid in pids:
        if pid:  # 0: in a namespace that we do not see
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _ended_or(error: OSError) -> Exception:
    return NoSuchProcess("the unit has ended") if error.errno in _GONE else error


async def _wait(cgroup: Path, *, frozen: bool, timeout_s: float) -> None:
    pause = _POLL_FIRST_S
    with trio.move_on_after(timeout_s) as scope:
        while read_events(cgroup)["frozen"] != int(frozen):
            await trio.sleep(pause)
            pause = min(pause * 2, _POLL_LAST_S)
    if scope.cancelled_caught:
        word = "stop" if frozen else "go on"
        raise TimedOut(
            f"the unit did not {word} within {timeout_s:g} s: a process waits in the kernel"
        )


async def freeze(cgroup: Path, *, timeout_s: float = FREEZE_TIMEOUT_S) -> None:
    """Freeze and wait until every process stands still.

    Raises TimedOut (then it is thawed again), NoSuchProcess when nothing is left in it.
    """
    write_freeze(cgroup, frozen=True)
    try:
        await _wait(cgroup, frozen=True, timeout_s=timeout_s)
    except BaseException:
        write_freeze(cgroup, frozen=False)
        raise
    if not read_events(cgroup)["populated"]:
        raise NoSuchProcess("the unit has ended")


async def thaw(cgroup: Path) -> None:
    """Let every process go on; return when the kernel says so.  Repeating is harmless."""
    write_freeze(cgroup, frozen=False)
    await _wait(cgroup, frozen=False, timeout_s=FREEZE_TIMEOUT_S)
