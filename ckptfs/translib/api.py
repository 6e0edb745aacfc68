"""The common kernel checkpointer API: what every translation library offers.

A translib knows one checkpointer's command line or socket, and nothing of
jobs, versions or the store.  It runs inside the unit's supervisor.  The order
is ``prepare → stop → checkpoint* → resume_cp`` and ``rebuild → resume_rst``;
any other order raises Busy (EBUSY) and changes nothing, a repeated call of the
same primitive is harmless.  ``stop`` may be followed by ``resume_cp`` at once
(abort).  The same contract suite runs over every translib.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..ids import UnitName


class Capability(enum.StrEnum):
    """Words of ``ctl/checkpointers`` and of a job's requirements."""

    MULTITHREAD = "multithread"
    MULTIPROCESS = "multiprocess"
    SOCKETS = "sockets"  # unix and listening TCP inside the unit
    TCP_ESTABLISHED = "tcp_established"
    FILE_LOCKS = "file_locks"
    UNLINKED_FILES = "unlinked_files"
    LEAVE_RUNNING = "leave_running"
    PID_NAMESPACE = "pid_namespace"
    INCREMENTAL = "incremental"
    LAZY_RESTART = "lazy_restart"


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a checkpointer works on this machine, and if not, why in one sentence."""

    available: bool
    version: str
    capabilities: frozenset[Capability]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UnitHandle:
    """What a translib needs to know of a unit.  Pids are those of the supervisor's namespace.

    *holder_pid* is PID 1 of the unit's namespaces, *root_pid* the unit's root
    process **inside** them (1000).  *cgroup* holds exactly the unit's
    processes.  *work_dir* is writable and outside the images.
    """

    unit: UnitName
    holder_pid: int
    root_pid: int
    cgroup: Path
    uid: int
    gid: int
    work_dir: Path


@dataclass(frozen=True, slots=True)
class Preparation:
    """Result of ``prepare``: blockers (sentences; empty = none) and restart facts.

    *streams*: the checkpointer can send its images through pipes, as ``checkpoint`` says.
    """

    blockers: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    streams: bool = False


class Translib(Protocol):
    """The primitives, each separately callable.

    Every call may raise errors.NoSuchProcess (the unit ended),
    errors.Unsupported (missing capability), errors.Busy (illegal order) or
    errors.CheckpointerFailed (with a sentence naming process, fd and advice).
    All may be cancelled; a cancelled ``checkpoint`` leaves the unit stopped.
    """

    name: str

    async def probe(self) -> Availability:
        """Say what this machine can do.  Never raises."""
        ...

    async def prepare(self, unit: UnitHandle) -> Preparation:
        """Check the environment and the unit; stop nothing, change nothing."""
        ...

    async def stop(self, unit: UnitHandle) -> None:
        """Freeze every process of the unit; return when all stand still."""
        ...

    async def checkpoint(
        self, unit: UnitHandle, directory_fd: int, *, streams: bool = False
    ) -> None:
        """Write the image of the stopped unit into the open directory; leave it stopped.

        With *streams* it goes through pipes to whoever listens in the unit's work directory
        (as criu-image-streamer would); the images are complete once `confirm` has seen them.
        """
        ...

    async def confirm(self, unit: UnitHandle, directory_fd: int) -> None:
        """Check that the images that were sent through pipes are in the open directory now."""
        ...

    async def resume_cp(self, unit: UnitHandle) -> None:
        """Let the unit go on after a checkpoint or an abort."""
        ...

    async def rebuild(self, unit: UnitHandle, directory_fd: int, *, lazy: bool = False) -> None:
        """Recreate the unit's processes under the fresh holder, frozen.

        *lazy* (`Capability.LAZY_RESTART`): memory is read from the directory when it is touched,
        and in the background; it takes no checkpoint until `wait_loaded` returns.
        """
        ...

    async def resume_rst(self, unit: UnitHandle) -> None:
        """Let the rebuilt unit go on."""
        ...

    def is_loading(self, unit: UnitHandle) -> bool:
        """Whether memory of a lazily rebuilt unit is still being read."""
        ...

    async def wait_loaded(self, unit: UnitHandle) -> None:
        """Return when nothing is missing any more; at once after a rebuild that was not lazy.

        Raises CheckpointerFailed when memory cannot be read: every process of the unit has
        been killed before it could see anything else than what was saved.
        """
        ...

    async def end_loading(self, unit: UnitHandle) -> str:
        """The unit has ended: leave nothing of a lazy rebuild behind.

        Returns the sentence for which `wait_loaded` raises, "" when the unit ended by itself.
        """
        ...
