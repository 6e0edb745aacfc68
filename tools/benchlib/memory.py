"""Memory of the service for a job of each size: what grows with the job, and what does not.

Buffers, queue, ring and code are the same for a job of any size, so they are told apart: a fresh
service takes three versions of a job, another three of one that is three times as large; the
growth between the two is what a GiB of job costs.  Counted is the peak of memory that is its own,
of the service and of the processes that it hashes and reads with, supervisors left out (they are
the jobs'); the shared ring once.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .machine import CKPTFS
from .programs import write_program

VERSIONS = 3
DIRTYING_S = 1.0
TIMES = 3  # as large
GIB = 1024  # MiB


@dataclass(frozen=True)
class Memory:
    """In MiB.  *per_gib*: for each GiB of job; *fixed*: whatever the job, idle service included."""

    per_gib: float
    fixed: float


def family(pid: int) -> list[int]:
    """Return *pid* and the processes it has started that hash and read, not supervisors."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(c): Path(f"/proc/{c}/cmdline").read_bytes() for c in children}
    return [pid, *(c for c, command in commands.items() if b"supervisor" not in command)]


def own_peak_mib(pid: int) -> float:
    """Return the peak of a service's own memory, in MiB."""
    members = family(pid)
    own = sum(
        machine.status_bytes(member, "VmHWM")
        - machine.status_bytes(member, "RssFile")
        - machine.status_bytes(member, "RssShmem")
        for member in members
    )
    return (own + machine.status_bytes(pid, "RssShmem")) / (1 << 20)


def split(small_mib: float, small_peak: float, large_mib: float, large_peak: float) -> Memory:
    """Return what two jobs say.  Pure."""
    per_gib = (large_peak - small_peak) * GIB / (large_mib - small_mib)
    return Memory(per_gib, small_peak - per_gib * small_mib / GIB)


def _peak_of(base: Path, mib: int) -> float:
    base.mkdir()
    base.chmod(0o755)
    argv = write_program(base, "scattered", mib)
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(machine.mounted(base))
        job = stack.enter_context(machine.job(mount, base, argv))
        for _ in range(VERSIONS):
            machine.measure(CKPTFS, "checkpoint", job.id)
            time.sleep(DIRTYING_S)
        return own_peak_mib(machine.daemon_pid(base))


def measure_memory(base: Path, mib: int) -> Memory:
    """Measure a job of *mib* MiB and one of three times as much, each with a fresh service."""
    small, large = _peak_of(base / "small", mib), _peak_of(base / "large", TIMES * mib)
    return split(mib, small, TIMES * mib, large)
