"""``ckptfs restart``: go back to a version, in place or as a clone."""

from __future__ import annotations

import argparse

from ...errors import Busy, InvalidInput, NotFound
from ...ids import parse_version
from ..client import Mount
from ..entry import mount_of
from ..naming import find_job, is_job_id
from ..operations import add_operation_options, carry_out, version_answered
from ..outcomes import parse_outcome, parse_state
from .kill import end_job

EXAMPLES = """\
ckptfs restart heat
ckptfs restart heat 7
ckptfs restart heat 7 --kill
ckptfs restart heat 7 --clone
ckptfs restart heat 7 --stopped
ckptfs restart heat --lazy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_operation_options(parser)
    add = parser.add_argument
    add(
        "version", metavar="VERSION", nargs="?", default="latest", help="a number (default: latest)"
    )
    add("--clone", action="store_true", help="make a new job of it; prints the new id")
    add("--stopped", action="store_true", help="leave the processes stopped, for a debugger")
    add("--lazy", action="store_true", help="let it run while its memory is still being read")
    add("--kill", action="store_true", help="end the job first when it is running")


def request_text(version: str, *, clone: bool, stopped: bool, lazy: bool = False) -> str:
    """Return what is written to ``ctl/restart``.  Pure.  Raises NotFound."""
    if version != "latest":
        parse_version(version)
    options = {" as=clone": clone, " stopped=yes": stopped, " lazy=yes": lazy}
    return version + "".join(word for word, wanted in options.items() if wanted)


def run(args: argparse.Namespace) -> int:
    """Restart the job; print the version, or the id of the clone."""
    if args.kill and args.clone:
        raise InvalidInput("--kill and --clone together make no sense: a clone runs beside the job")
    request = request_text(args.version, clone=args.clone, stopped=args.stopped, lazy=args.lazy)
    mount = mount_of(args)
    return go_back(mount, find_job(mount, args.job), request, args)


def go_back(mount: Mount, job: str, request: str, args: argparse.Namespace) -> int:
    """Write *request* to the job's restart file and follow it, ending the job first if asked to."""
    if args.kill:
        require_version(mount, job, request.split()[0])
        state = parse_state(mount.read(f"{job}/ctl/state"))
        if not state.has_ended and state.word != "suspended":
            end_job(mount, job)
    try:
        answer = mount.write(f"{job}/ctl/restart", request)
    except Busy as error:
        is_running = parse_state(mount.read(f"{job}/ctl/state")).word == "running"
        if not is_running or args.kill or args.clone:
            raise  # the service knows better what is in the way
        raise Busy(f"{job} is running: add --kill to end it first, or --clone") from error
    if not is_job_id(answer):
        return carry_out(mount, job, "restart", version_answered("restart", answer), args)
    outcome = parse_outcome(mount.read(f"{answer}/ctl/restart"))
    return carry_out(mount, answer, "restart", outcome.version if outcome else 0, args, answer)


def require_version(mount: Mount, job: str, version: str) -> None:
    """Raise NotFound when there is nothing to go back to: before the job is killed, not after."""
    try:
        mount.status(f"{job}/{version}")
    except NotFound as error:
        what = "no version yet" if version == "latest" else f"no version {version}"
        raise NotFound(f"{job} has {what}; ckptfs ls {job} lists them") from error
