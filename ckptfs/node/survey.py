"""Everything `blockers` judges, read at one moment: processes, descriptors, sockets, pipes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..translib.freezer import member_pids
from . import procfs
from .holder import ROOT_PID
from .sockets import TcpSocket, UnixSocket, read_tcp_sockets, read_unix_sockets


@dataclass(frozen=True, slots=True)
class Handle:
    """A descriptor and what is behind it; *device* is (major, minor) of a device file."""

    descriptor: procfs.Descriptor
    device: tuple[int, int] | None = None
    links: int = 1
    is_regular: bool = False
    is_fifo: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """One process."""

    status: procfs.Status
    handles: tuple[Handle, ...] = ()
    mappings: tuple[procfs.Mapping, ...] = ()
    namespaces: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Survey:
    """One unit."""

    owner_uid: int
    subjects: tuple[Subject, ...]
    root_namespaces: dict[str, str]
    outside_tree: frozenset[int] = frozenset()  # in the cgroup, but no descendants of the root
    outside_cgroup: frozenset[int] = frozenset()  # descendants of the root, but not in the cgroup
    unix: dict[int, UnixSocket] = field(default_factory=dict[int, UnixSocket])
    tcp: tuple[TcpSocket, ...] = ()
    outside_pipes: frozenset[str] = frozenset()  # link texts that other processes have open, too


def _look_behind(pid: int, descriptor: procfs.Descriptor) -> Handle:
    try:
        there = os.stat(f"/proc/{pid}/fd/{descriptor.fd}")
    except OSError:
        return Handle(descriptor)
    is_device = stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode)
    return Handle(
        descriptor,
        device=(os.major(there.st_rdev), os.minor(there.st_rdev)) if is_device else None,
        links=there.st_nlink,
        is_regular=stat.S_ISREG(there.st_mode),
        is_fifo=stat.S_ISFIFO(there.st_mode),
    )


def _read_subject(status: procfs.Status) -> Subject:
    return Subject(
        status,
        tuple(_look_behind(status.pid, item) for item in procfs.read_descriptors(status.pid)),
        procfs.read_maps(status.pid),
        procfs.read_namespaces(status.pid),
    )


def _strays(cgroup: Path, root_pid: int) -> tuple[set[int], set[int]]:
    """Return (in the cgroup and not below the root, below the root and not in the cgroup)."""
    members, tree = set(member_pids(cgroup)), procfs.read_tree(root_pid)
    alive = {item.pid for item in procfs.read_statuses(tree - members) if item.state not in "ZX"}
    return members - tree, alive


def _outside_pipes(wanted: set[str], cgroup: Path) -> frozenset[str]:
    """Return the pipes that a process outside the unit has open."""
    if not wanted:
        return frozenset()
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    holders = {pid for pid in others.difference(member_pids(cgroup)) if _held(pid, wanted)}
    # The unit forks while we look: who is a member by now, or has ended, was never outside.
    found: set[str] = set()
    for pid in holders.difference(member_pids(cgroup)):
        found |= _held(pid, wanted)
    return frozenset(found)


def _held(pid: int, wanted: set[str]) -> set[str]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return wanted.intersection(_links(entries))
    except OSError:
        return set()


def _links(entries: Iterable[os.DirEntry[str]]) -> Iterable[str]:
    for entry in entries:
        try:
            yield os.readlink(entry.path)
        except OSError:
            continue


def survey_unit(cgroup: Path, owner_uid: int) -> Survey:
    """Read all there is to know of a unit that runs.  Blocks, some milliseconds a process."""
    statuses = [
        item for item in procfs.read_statuses(member_pids(cgroup)) if item.state not in "ZX"
    ]
    root_pid = next((item.pid for item in statuses if item.inner_pid == ROOT_PID), 0)
    subjects = tuple(_read_subject(status) for status in statuses)
    handles = [handle for subject in subjects for handle in subject.handles]
    first, second = _strays(cgroup, root_pid), _strays(cgroup, root_pid)
    has_sockets = any(handle.descriptor.target.startswith("socket:") for handle in handles)
    pipes = {handle.descriptor.target for handle in handles if handle.is_fifo}
    return Survey(
        owner_uid=owner_uid,
        subjects=subjects,
        root_namespaces=procfs.read_namespaces(root_pid),
        # Twice, because a process that was being forked belongs to one and not yet to the other.
        outside_tree=frozenset(first[0] & second[0]),
        outside_cgroup=frozenset(first[1] & second[1]),
        unix=read_unix_sockets() if has_sockets else {},
        tcp=read_tcp_sockets(root_pid) if has_sockets else (),
        outside_pipes=_outside_pipes(pipes, cgroup),
    )
