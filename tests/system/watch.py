"""What the kernel shows of a unit from outside: its cgroup, its supervisor, the criu at work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOOK_S = 0.0005  # between two looks; the phases to hit last from 5 ms up
OVER_EVERY = 100  # looks
ATTEMPTS = 20  # for a moment that passes between two looks; on an idle machine the first will do


def cgroup_top() -> Path:
    """Return where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise AssertionError("cgroup v2 is not mounted")


def cgroup_of(pid: int) -> Path:
    """Return the cgroup v2 directory of a process."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return cgroup_top() / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")


def parent_of(pid: int) -> int:
    """Return the parent's pid, 0 when the process has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def task_states(pid: int) -> set[str]:
    """Return the state letters of all threads of a process."""
    states = set()
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        states.add(status.read_text().rpartition(")")[2].split()[0])
    return states


def processes() -> Iterator[tuple[int, str]]:
    """Return (pid, command line) of every process."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            yield int(entry), words.replace(b"\0", b" ").decode(errors="replace")


def descends_from(pid: int, ancestor: int) -> bool:
    """Return whether *ancestor* is above *pid*."""
    while pid > 1:
        pid = parent_of(pid)
        if pid == ancestor:
            return True
    return False


@dataclass
class UnitWatch:
    """One unit, found through its root process while that runs."""

    root: int
    cgroup: Path
    supervisor: int

    @classmethod
    def of(cls, root: int) -> UnitWatch:
        """Find all from the root process: its parent is the holder, above is the supervisor."""
        return cls(root, cgroup_of(root), parent_of(parent_of(root)))

    def is_frozen(self) -> bool:
        """Return what the kernel says about the whole cgroup."""
        try:
            return "frozen 1" in (self.cgroup / "cgroup.events").read_text()
        except OSError:
            return False

    def members(self) -> list[int]:
        """Return the pids in the cgroup, none when it is gone."""
        try:
            return [int(word) for word in (self.cgroup / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def criu(self, verb: str) -> list[int]:
        """Return the pids of ``criu <verb>`` below the unit's supervisor, the eldest first."""
        found = [
            pid
            for pid, words in processes()
            if f"criu {verb}" in words and not words.startswith(("nsenter", "setpriv", "/bin/sh"))
        ]
        return sorted(pid for pid in found if descends_from(pid, self.supervisor))


def catch(
    moment: Callable[[], object], over: Callable[[], object], timeout_s: float = 30.0
) -> bool:
    """Look until *moment* holds (True), or what it belongs to is *over* (False)."""
    deadline = time.monotonic() + timeout_s
    looks = 0
    while not moment():
        looks += 1
        # asked seldom: it goes through the daemon, and shorter moments would pass meanwhile
        if looks % OVER_EVERY == 0 and over():
            return bool(moment())
        assert time.monotonic() < deadline, "neither came"
        time.sleep(LOOK_S)
    return True


def catch_one(begin: Callable[[], T], caught: Callable[[], bool]) -> T:
    """Begin until the moment is *caught*; return what the last *begin* returned.

    A moment of a few milliseconds passes unseen when the machine gives this process no turn.
    """
    for _ in range(ATTEMPTS):
        begun = begin()
        if caught():
            return begun
    raise AssertionError(f"the moment was never seen in {ATTEMPTS} attempts")


def end_process(pid: int) -> None:
    """SIGKILL one process that may have gone meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
