"""Run one checkpointer command: no shell, inherited descriptors, and an end in every case."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

GRACE_S = 1.0  # how long a cancelled command may take to end by itself before SIGKILL
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}


def _kill_group(pid: int) -> None:
    # The command is the leader of its own session, so helpers that it forked go with it:
    # nsenter(1) forks, and killing only it would leave criu alone with the stopped tasks.
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _reap_group(pid: int) -> None:
    """Reap what a killed command left to its subreaper, which the supervisor is.

    A dead criu that nobody waits for is still in the unit's PID namespace, and the kernel does
    not let the holder end before: the unit's end would never be told.
    """

    def reap() -> None:
        while True:
            try:
                os.waitpid(-pid, 0)
            except ChildProcessError:
                return

    await trio.to_thread.run_sync(reap)


async def run_command(
    argv: Sequence[str],
    *,
    output: Path,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Run *argv* with stdout and stderr in the file *output*; return its status (negative: signal).

    When cancelled, the command gets *grace_s* to end by itself, then SIGKILL
    for its whole session; it has ended when this returns or raises.  Raises
    OSError when it cannot be started.
    """
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(pass_fds),
            env={**ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        status = await process.wait()
    except BaseException:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(grace_s):
                await process.wait()
            _kill_group(process.pid)
            await process.wait()
            await _reap_group(process.pid)
        raise
    if status < 0:
        with trio.CancelScope(shield=True):
            _kill_group(process.pid)
            await _reap_group(process.pid)
    return status


async def read_output(argv: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
    """Run a short question such as ``criu --version``; return its status and all it printed.

    Raises OSError when it cannot be started, trio.TooSlowError after *timeout_s*.
    """
    with trio.fail_after(timeout_s):
        done = await trio.run_process(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=ENVIRONMENT,
        )
    return done.returncode, done.stdout.decode(errors="replace")
