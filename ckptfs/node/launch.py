"""The last steps before a job's program runs, inside the unit's namespaces.

Runs in the root process of the unit, between fork and exec.  Files that the
user named are opened after the privileges are gone: with the owner's rights,
not root's.  Failures travel to the supervisor through a pipe that exec closes.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import CannotRun, CkptfsError, InvalidInput, NotAuthenticated, NotFound
from ..model import JobSpec
from . import syscalls
from .rundir import UnitPaths

_PATH = "/usr/local/bin:/usr/bin:/bin"
_HIGH_FDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """What the root process of a fresh unit becomes."""

    spec: JobSpec
    job: str
    unit: str
    cgroup: Path
    paths: UnitPaths


def program_environment(spec: JobSpec, job: str, unit: str) -> dict[str, str]:
    """Return the whole environment of the program: a minimal one, and the job's own over it."""
    try:
        account = pwd.getpwuid(spec.owner.uid)
        home, login = account.pw_dir, account.pw_name
    except KeyError:  # an account this machine does not know
        home, login = "/", str(spec.owner.uid)
    return {
        "PATH": _PATH,
        "HOME": home,
        "USER": login,
        "LOGNAME": login,
        "LANG": "C.UTF-8",
        "CKPTFS_JOB": job,
        "CKPTFS_UNIT": unit,
        **spec.env,
    }


def explain(what: str, path: str, bad: OSError) -> CkptfsError:
    """Return the error for a path of the user's that did not open, run or enter."""
    if isinstance(bad, (FileNotFoundError, NotADirectoryError)):
        return NotFound(f"{what} does not exist: {path}")
    if isinstance(bad, PermissionError):
        return NotAuthenticated(f"the job's owner may not use {what}: {path}")
    return InvalidInput(f"{what} cannot be used: {path}: {bad.strerror}")


def _open_to(target: int, what: str, path: str, flags: int, mode: int = 0) -> None:
    try:
        fd = os.open(path, flags, mode)
    except OSError as bad:
        raise explain(what, path, bad) from None
    if fd != target:
        os.dup2(fd, target)
        os.close(fd)
    else:
        os.set_inheritable(fd, True)


def _open_output(target: int, what: str, named: str, default: Path, *, with_default: bool) -> None:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if with_default and not named:
        _open_to(target, what, str(default), append | os.O_NOFOLLOW, 0o640)
    if not with_default and named:
        _open_to(target, what, named, append | os.O_NOCTTY, 0o666)


def _set_limits(limits: Mapping[str, int]) -> None:
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if which is None:
            raise InvalidInput(f"no limit is called {name!r}")
        try:
            resource.setrlimit(which, (value, value))
        except (OSError, ValueError):
            hard = resource.getrlimit(which)[1]
            raise CannotRun(
                f"the limit {name}={value} is above {hard}, the most this node grants"
            ) from None


def _drop_privileges(spec: JobSpec) -> None:
    os.setgroups(spec.owner.groups)
    os.setresgid(spec.owner.gid, spec.owner.gid, spec.owner.gid)
    os.setresuid(spec.owner.uid, spec.owner.uid, spec.owner.uid)
    if spec.owner.uid != 0:
        # No set-uid program in a job: what an image holds is the owner's and nobody else's.
        syscalls.forbid_new_privileges()


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number not in (32, 33):  # glibc's own
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _prepare(program: Program) -> None:
    """Everything but the exec.  Raises CkptfsError, OSError."""
    spec = program.spec
    os.setsid()
    (program.cgroup / "cgroup.procs").write_text("0")  # 0: the writer itself
    # Orphans of the job come to its root, so they stay in the tree that is checkpointed.
    syscalls.become_subreaper()
    os.umask(spec.umask)
    _open_output(1, "the job's stdout", spec.stdout, program.paths.stdout, with_default=True)
    _open_output(2, "the job's stderr", spec.stderr, program.paths.stderr, with_default=True)
    _set_limits(spec.limits)
    _drop_privileges(spec)
    try:
        os.chdir(spec.cwd)
    except OSError as bad:
        raise explain("the working directory", spec.cwd, bad) from None
    _open_to(0, "the job's stdin", spec.stdin, os.O_RDONLY | os.O_NOCTTY)
    _open_output(1, "the job's stdout", spec.stdout, program.paths.stdout, with_default=False)
    _open_output(2, "the job's stderr", spec.stderr, program.paths.stderr, with_default=False)
    _reset_signals()


def _execute(program: Program) -> NoReturn:
    spec = program.spec
    environment = program_environment(spec, program.job, program.unit)
    try:
        os.execvpe(spec.argv[0], list(spec.argv), environment)
    except OSError as bad:
        raise explain("the program", spec.argv[0], bad) from None


def encode_failure(bad: Exception) -> bytes:
    """Return an error as the bytes that go through the pipe."""
    name = type(bad).__name__ if isinstance(bad, CkptfsError) else CannotRun.__name__
    return json.dumps([name, str(bad)]).encode("ascii")


def become_program(program: Program, failure_fd: int) -> NoReturn:
    """Turn the calling process into the job's program; a failure goes to *failure_fd*."""
    steps: tuple[Callable[[Program], None], ...] = (_prepare, _execute)
    try:
        moved = os.dup(failure_fd)  # out of the way of 0, 1, 2; close-on-exec like the original
        while moved < 3:
            moved = os.dup(moved)
        for fd in (0, 1, 2):
            if fd != moved:
                os.close(fd)
        os.closerange(3, moved)
        os.closerange(moved + 1, _HIGH_FDS)
        failure_fd = moved
        for step in steps:
            step(program)
    except Exception as bad:
        os.write(failure_fd, encode_failure(bad))
    os._exit(127)
