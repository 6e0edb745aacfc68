"""The supervisor of one job unit: ``python -m ckptfs.node.supervisor RUNDIR``.

Its own process in its own session, started by the agent and not dependent on
it: a daemon that dies and comes back finds it at RUNDIR/sock.  It makes the
holder before any thread exists, then serves requests on trio until the unit
has ended.  One line on stdout tells the agent how the start went: ``ready``,
or a JSON list of error class and sentence.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from ..errors import CkptfsError
from . import syscalls
from .cgroup import make_cgroup, remove_cgroup
from .isolation import Holder, kill_holder, spawn_holder
from .launch import Program, encode_failure
from .mounts import MountPlan
from .oom import be_spared
from .orders import SPARE, Launch, load_launch
from .rundir import make_directory


def detach() -> None:
    """Leave the agent: a child of a child, leader of a session, without terminal."""
    os.setsid()
    if os.fork() != 0:
        os._exit(0)


def start_holder(launch: Launch) -> Holder:
    """Make the unit's cgroup, namespaces, holder.  Raises CkptfsError; nothing is left then."""
    make_cgroup(launch.cgroup)
    view = launch.logs
    bound = () if view.own == view.shown else ((str(view.own), str(view.shown)),)
    plan = MountPlan(launch.hidden, bound)
    program = Program(launch.spec, launch.job, launch.unit, launch.cgroup, launch.paths)
    try:
        make_directory(launch.paths.work, 0o700)
        return spawn_holder(program if launch.fresh else None, plan)
    except BaseException:
        remove_cgroup(launch.cgroup)
        raise


def answer(line: bytes) -> None:
    """Tell the agent how the start went, and close the pipe to it."""
    os.write(1, line + b"\n")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def wait_for_unit() -> Path | None:
    """Be a spare: import all, then read the run directory from stdin.  None: it was closed."""
    importlib.import_module("ckptfs.node.service")  # what takes its time

    name = sys.stdin.readline().rstrip("\n")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    if not name:
        return None
    log = os.open(f"{name}/supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    os.dup2(log, 2)
    os.close(log)
    syscalls.rename_argument(SPARE.encode(), os.fsencode(name))
    return Path(name)


def main(argv: list[str]) -> int:
    """Run the supervisor; *argv* holds the run directory, or `SPARE`.  Returns the exit status."""
    run = wait_for_unit() if argv[0] == SPARE else Path(argv[0])
    if run is None:
        return 0
    detach()
    launch = load_launch(run / "launch.json")
    try:
        holder = start_holder(launch)
    except (CkptfsError, OSError) as bad:
        answer(encode_failure(bad))
        return 1
    be_spared()  # after the holder, which is the job's
    try:
        # Imported only now: the holder has been forked without trio in its memory, and the job's
        # program starts while this import (60 ms) runs.
        from .service import serve_unit

        serve_unit(launch, holder, lambda: answer(b"ready"))
    finally:
        kill_holder(holder.pid)
        remove_cgroup(launch.cgroup)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
