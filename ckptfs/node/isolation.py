"""Make a unit's namespaces and its holder; called once by the supervisor, before it has threads.

supervisor → intermediate (unshares, forks, ends) → holder, PID 1 inside, which
the supervisor adopts as subreaper.  The supervisor itself stays outside:
after unshare(CLONE_NEWPID) its own children, criu among them, would be inside.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import NoReturn

from .. import errors
from ..errors import CannotRun, CkptfsError
from . import syscalls
from .holder import HolderPipes, run_holder
from .launch import Program
from .mounts import MountPlan

_NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


@dataclass(frozen=True, slots=True)
class Holder:
    """The supervisor's view of its holder."""

    pid: int
    status_fd: int  # readable when the root process ended; empty: the holder was killed


def _intermediate(
    program: Program | None, pipes: HolderPipes, pid_fd: int, plan: MountPlan
) -> NoReturn:
    try:
        syscalls.unshare(_NAMESPACES)
        holder = os.fork()
        if holder == 0:
            os.close(pid_fd)
            run_holder(program, pipes, plan)
        os.write(pid_fd, str(holder).encode("ascii"))
    except OSError as bad:
        advice = "namespaces need root (CAP_SYS_ADMIN)"
        failure = json.dumps([CannotRun.__name__, f"{advice}: {bad.strerror}"])
        os.write(pipes.failure, failure.encode("ascii"))
    os._exit(0)


def _read_all(fd: int) -> bytes:
    """Read to the end and close."""
    parts: list[bytes] = []
    while part := os.read(fd, 65536):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


def decode_failure(data: bytes) -> CkptfsError:
    """Return the error that `launch.encode_failure` wrote."""
    name, text = json.loads(data)
    return error_named(name, text)


def error_named(name: str, text: str) -> CkptfsError:
    """Return an error of `errors` by its class's name; an unknown one becomes CannotRun."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, CkptfsError):
        return found(text)
    return CannotRun(f"{name}: {text}")


def spawn_holder(program: Program | None, plan: MountPlan) -> Holder:
    """Start the holder and, with a *program*, the unit's root process; return when that runs.

    Raises what `launch.become_program` reports, CannotRun when no namespace can
    be made; the holder is gone then.
    """
    syscalls.become_subreaper()
    pid_r, pid_w = os.pipe()
    start_r, start_w = os.pipe()
    status_r, status_w = os.pipe()
    failure_r, failure_w = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        for fd in (pid_r, start_w, status_r, failure_r):
            os.close(fd)
        _intermediate(program, HolderPipes(start_r, status_w, failure_w), pid_w, plan)
    for fd in (pid_w, start_r, status_w, failure_w):
        os.close(fd)
    os.waitpid(intermediate, 0)
    pid_text = _read_all(pid_r)
    if pid_text:
        os.write(start_w, b"1")  # from here on we are its parent
    os.close(start_w)
    failure = _read_all(failure_r)  # the end of the file comes with exec, or with the holder's end
    if failure or not pid_text:
        if pid_text:
            kill_holder(int(pid_text))
        os.close(status_r)
        raise decode_failure(failure) if failure else CannotRun("the holder did not start")
    return Holder(int(pid_text), status_r)


def kill_holder(pid: int) -> None:
    """Kill PID 1 of the unit, and with it everything in its namespace; reap it.  Repeatable."""
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
