"""PID 1 of a unit's namespaces: the holder.

It makes the mount namespace (`mounts`), forks the root
process of a fresh unit at PID 1000, and then only waits: for orphans, and for
PID 1000, whose raw status it writes to a pipe before it ends, and the kernel
ends everything else in the namespace with it.  It is never dumped.  The holder
of a restart leaves ``ns_last_pid`` alone, or CRIU itself would take PID 1000.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import NoReturn

from . import syscalls
from .launch import Program, become_program, encode_failure
from .mounts import MountPlan, enter_mount_namespace

ROOT_PID = 1000


@dataclass(frozen=True, slots=True)
class HolderPipes:
    """The holder's ends of its pipes to the supervisor."""

    start: int  # read: one byte once the supervisor is the parent
    status: int  # write: the root's raw wait status, as text
    failure: int  # write: why the program does not run; closed by exec


def _fork_root(program: Program, pipes: HolderPipes) -> None:
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(ROOT_PID - 1))
    if os.fork() == 0:
        become_program(program, pipes.failure)


def _wait_for_root(status_fd: int) -> NoReturn:
    """Reap every orphan; end with the root process."""
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            # The holder of a restart has no child until CRIU is through.
            signal.sigwait({signal.SIGCHLD})
            continue
        if pid == ROOT_PID:
            os.write(status_fd, str(status).encode("ascii"))
            os._exit(0)


def run_holder(program: Program | None, pipes: HolderPipes, plan: MountPlan) -> NoReturn:
    """Be PID 1.  *program*: what to start, None for a restart."""
    try:
        # Whoever started the supervisor reads its stdout to the end: do not keep it open.
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.read(pipes.start, 1)
        # A unit without its supervisor would run on with nobody to record its end or to stop it.
        syscalls.die_with_parent(signal.SIGKILL)
        # Blocked, not ignored: sigwait above must see it, and children inherit no ignored signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        enter_mount_namespace(plan)
        if program is not None:
            _fork_root(program, pipes)
        os.close(pipes.failure)
        _wait_for_root(pipes.status)
    except Exception as bad:
        os.write(pipes.failure, encode_failure(bad))
        print(f"holder: {bad!r}", file=sys.stderr, flush=True)
    os._exit(70)
