"""What the coordinator sees of a node and of the units on it.

`UnitPort` is one unit through its supervisor; `NodePort` starts, rebuilds and
finds units.  The real ones are in `node.agent`, tests use ``tests/fakes.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..ids import JobId, UnitName
from ..model import JobSpec, OpenFile, UnitFacts
from ..translib.api import Availability

if TYPE_CHECKING:
    import trio  # in a signature alone: the logic that knows these types does no I/O


@dataclass(frozen=True, slots=True)
class Exit:
    """How a unit's root process ended: *code* 0..255, or -1 and the *signal* that killed it.

    *reason*: the sentence for which its own supervisor killed it, else "".
    """

    code: int
    signal: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.signal else str(self.code)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answer of `UnitPort.prepare`."""

    blockers: tuple[str, ...]  # sentences; a checkpoint is refused while there is one
    facts: UnitFacts  # files is empty here: they are recorded while frozen
    image_bytes: int  # estimate of what the image will take, for the reservation
    streams: str = ""  # where a socket is looked for that takes the images; "": they are written


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a unit, for monitoring.  *pid* is the host's."""

    pid: int
    inner_pid: int
    user_time_s: float
    system_time_s: float
    state: str  # one letter, as in /proc
    command: str


class UnitPort(Protocol):
    """One job unit.  Calls may raise what `Translib` raises, and TimedOut of a silent supervisor.

    *lease_s* of ``stop``: the supervisor thaws by itself when the unit has
    been frozen that long, or at once when the connection that froze it closes.
    """

    job: JobId
    unit: UnitName
    pid: int  # of the unit's root process in the host's pid namespace, 0 when ended
    is_loading: bool  # memory of a lazy rebuild is still being read; `NodePort.on_loaded` tells

    async def prepare(self) -> Prepared:
        """Find blockers and facts; stop nothing."""
        ...

    async def stop(self, *, lease_s: float) -> Sequence[OpenFile]:
        """Freeze; return the regular files open for writing, `OpenFile.copy` not yet set."""
        ...

    async def checkpoint(self, directory: Path, *, streams: bool = False) -> Sequence[OpenFile]:
        """Have the image written into *directory* (a path in the mount, opened by the supervisor).

        With *streams* the checkpointer's own files go to the socket in `Prepared.streams`; once
        they have arrived in *directory*, `confirm` must find them there.

        With rollback=copy the small files open for writing are saved below
        ``files/`` there.  Returns the open files, now with `copy` set.
        """
        ...

    async def confirm(self, directory: Path) -> None:
        """See that what was streamed is whole.  Raises CheckpointerFailed naming what is not."""
        ...

    async def resume_cp(self) -> None:
        """Let the unit go on after a checkpoint or an abort."""
        ...

    async def resume_rst(self, *, stopped: bool = False) -> None:
        """Let the rebuilt unit go; *stopped*: into SIGSTOP, for a debugger."""
        ...

    async def kill(self) -> None:
        """Kill every process of the unit and return when they are gone.  Repeating is harmless."""
        ...

    async def signal(
        self,
        number: int,
        *,
        only: Sequence[int] = (),
        others: Sequence[int] = (),
        master: bool = False,
    ) -> None:
        """Signal all processes, *only* these host pids, all but *others*, or the *master*."""
        ...

    async def processes(self) -> Sequence[Process]:
        """Return what runs in the unit now, sorted by pid."""
        ...


class NodePort(Protocol):
    """One grid node."""

    name: str

    async def probe(self) -> Mapping[str, Availability]:
        """Return what each translib here can do, by name."""
        ...

    async def start(self, job: JobId, unit: UnitName, spec: JobSpec) -> UnitPort:
        """Start a fresh unit; return when its program runs (exec succeeded).

        Raises NotFound (no such program or directory), NotAuthenticated
        (the owner may not execute or open it), CannotRun.  Nothing is left behind then.
        """
        ...

    def check_restart(self, facts: UnitFacts, availability: Mapping[str, Availability]) -> str:
        """Return "" if an image with these facts can be rebuilt here, else one sentence."""
        ...

    async def make_ready(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        *,
        logs_shown_as: JobId | None = None,
    ) -> None:
        """Start all that a `rebuild` needs beforehand; touches no file of the job, reads no image.

        The next `rebuild` of the unit takes it over, `drop_ready` takes it back.  Raises Busy
        (the unit runs), CannotRun; nothing is left behind then.
        """
        ...

    async def drop_ready(self, job: JobId, unit: UnitName) -> None:
        """Leave nothing of a `make_ready` behind.  Harmless when there is nothing."""
        ...

    async def rebuild(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        directory: Path,
        *,
        suffix: str,
        logs_shown_as: JobId | None = None,
        logs_copied_from: JobId | None = None,
        lazy: bool = False,
        proved: trio.Event | None = None,
    ) -> UnitPort:
        """Put the output files back and rebuild the unit, frozen, from *directory* in the mount.

        What a file held beyond the checkpoint is kept as ``<file>.<suffix>``.
        Raises Forbidden/NotFound naming a file that is gone or was replaced,
        CheckpointerFailed with the reason; then nothing is left behind.
        *logs_shown_as*: the job whose log directory the image names, when it is
        another one; its path shows the unit the logs of *job*.
        *logs_copied_from*: the first rebuild of a clone of that job, which may
        run: the clone's logs begin as what the job's held at the checkpoint.
        *lazy*: most memory is read from *directory* after `UnitPort.resume_rst`.
        *proved*: set once all of the image is known to be whole; no file of the job is changed
        before.  The caller cancels when it turns out not to be.
        """
        ...

    async def attach(self, job: JobId, unit: UnitName) -> UnitPort | Exit | None:
        """Find a unit after a restart of the daemon: running, ended (durably recorded), or lost.

        Raises TryAgain when that cannot be told.
        """
        ...

    def forget(self, job: JobId, unit: UnitName) -> None:
        """Remove runtime leftovers of a unit that has ended."""
        ...

    def on_loaded(self, callback: Callable[[JobId, UnitName], None]) -> None:
        """Register who hears when the last page of a lazy rebuild is there."""
        ...

    def on_exit(self, callback: Callable[[JobId, UnitName, Exit | None], None]) -> None:
        """Register who hears of ended units (None: supervisor lost).  Called on the trio thread."""
        ...
