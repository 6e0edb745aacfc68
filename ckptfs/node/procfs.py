"""What /proc says of a unit's processes.  Reads only; a process that ends meanwhile is left out.

``root`` is a parameter so that tests can put a made-up /proc in its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .api import Process

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Status:
    """The lines of /proc/<pid>/status that are used, and the process's name."""

    pid: int
    inner_pid: int
    parent: int
    name: str
    state: str
    tracer: int
    uids: tuple[int, ...]  # real, effective, saved, file system
    memory_bytes: int  # anonymous, shared and swapped pages: what an image holds of it


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One open descriptor: the link's text, and the lines of fdinfo."""

    fd: int
    target: str
    info: str

    @property
    def flags(self) -> int:
        """Flags of open(2)."""
        found = re.search(r"^flags:\s*([0-7]+)", self.info, re.MULTILINE)
        return int(found[1], 8) if found else 0

    @property
    def position(self) -> int:
        """Position in bytes."""
        found = re.search(r"^pos:\s*(\d+)", self.info, re.MULTILINE)
        return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/<pid>/maps."""

    permissions: str
    inode: int
    path: str  # "" when anonymous


def parse_status(text: str) -> Status:
    """Return the Status in the text of a status file.  Pure; ValueError when it is cut short."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    try:
        inner = lines["NSpid"].split()[-1]
        kibibytes = sum(
            int(lines.get(key, "0").split()[0]) for key in ("RssAnon", "RssShmem", "VmSwap")
        )
        return Status(
            pid=int(lines["Pid"]),
            inner_pid=int(inner),
            parent=int(lines["PPid"]),
            name=lines["Name"].strip(),
            state=lines["State"].split()[0],
            tracer=int(lines["TracerPid"]),
            uids=tuple(int(uid) for uid in lines["Uid"].split()),
            memory_bytes=kibibytes << 10,
        )
    except (KeyError, IndexError) as bad:
        raise ValueError(f"status without {bad}") from None


def parse_maps(text: str) -> Iterator[Mapping]:
    """Yield the mappings in the text of a maps file.  Pure."""
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) >= 5:
            path = fields[5] if len(fields) == 6 else ""
            yield Mapping(fields[1], int(fields[4]), path.replace("\\012", "\n"))


def read_status(pid: int, root: Path = PROC) -> Status | None:
    """Return a process's status, None when it is gone."""
    try:
        return parse_status((root / str(pid) / "status").read_text(errors="surrogateescape"))
    except (OSError, ValueError):
        return None


def read_statuses(pids: Iterable[int], root: Path = PROC) -> tuple[Status, ...]:
    """Return the statuses of those processes that are still there."""
    return tuple(found for pid in pids if (found := read_status(pid, root)) is not None)


def read_descriptors(pid: int, root: Path = PROC) -> tuple[Descriptor, ...]:
    """Return the open descriptors of a process, sorted; () when it is gone."""
    place = root / str(pid)
    found: list[Descriptor] = []
    try:
        numbers = sorted(int(name) for name in os.listdir(place / "fd"))
    except OSError:
        return ()
    for fd in numbers:
        try:
            target = os.readlink(place / "fd" / str(fd))
            info = (place / "fdinfo" / str(fd)).read_text(errors="replace")
        except OSError:
            continue
        found.append(Descriptor(fd, target, info))
    return tuple(found)


def read_maps(pid: int, root: Path = PROC) -> tuple[Mapping, ...]:
    """Return the memory mappings of a process; () when it is gone."""
    try:
        return tuple(parse_maps((root / str(pid) / "maps").read_text(errors="surrogateescape")))
    except OSError:
        return ()


def read_children(pid: int, root: Path = PROC) -> tuple[int, ...]:
    """Return the children of all threads of a process."""
    found: list[int] = []
    try:
        for thread in os.listdir(root / str(pid) / "task"):
            text = (root / str(pid) / "task" / thread / "children").read_text()
            found += [int(word) for word in text.split()]
    except OSError:
        return tuple(found)
    return tuple(found)


def read_tree(pid: int, root: Path = PROC) -> frozenset[int]:
    """Return *pid* and all its descendants."""
    seen: set[int] = set()
    queue = [pid]
    while queue:
        current = queue.pop()
        if current not in seen:
            seen.add(current)
            queue += read_children(current, root)
    return frozenset(seen)


def read_namespaces(pid: int, root: Path = PROC) -> dict[str, str]:
    """Return namespace kind → its link text; {} when the process is gone."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    found: dict[str, str] = {}
    for kind in kinds:
        try:
            found[kind] = os.readlink(root / str(pid) / "ns" / kind)
        except OSError:
            continue
    return found


def read_process(pid: int, root: Path = PROC) -> Process | None:
    """Return a process for monitoring, None when it is gone."""
    status = read_status(pid, root)
    try:
        stat = (root / str(pid) / "stat").read_text(errors="replace")
        command = (root / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    if status is None:
        return None
    fields = stat.rpartition(")")[2].split()  # the name may hold spaces and parentheses
    text = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return Process(
        pid=pid,
        inner_pid=status.inner_pid,
        user_time_s=int(fields[11]) / _TICKS_PER_S,
        system_time_s=int(fields[12]) / _TICKS_PER_S,
        state=status.state,
        command=text or f"[{status.name}]",
    )
