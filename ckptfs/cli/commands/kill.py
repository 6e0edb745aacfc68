"""``ckptfs kill``: end jobs; their versions stay."""

from __future__ import annotations

import argparse

from ..client import Mount
from ..entry import add_mount_option, mount_of
from ..naming import find_job
from ..outcomes import parse_state
from ..waiting import said_when_interrupted, wait_for_state

EXAMPLES = """\
ckptfs kill heat
ckptfs kill heat.42 heat.43 --no-wait
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("jobs", metavar="JOB", nargs="+")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")


def end_job(mount: Mount, job: str, *, wait: bool = True) -> None:
    """Kill every process of the job and, with *wait*, return when it is over."""
    mount.write(f"{job}/ctl/kill", "1")
    if wait:
        with said_when_interrupted(f"{job} is being killed"):
            wait_for_state(mount, job, frozenset())


def run(args: argparse.Namespace) -> int:
    """Kill the jobs, all of them found before the first one dies."""
    mount = mount_of(args)
    jobs = [find_job(mount, job) for job in args.jobs]
    for job in jobs:
        state = parse_state(mount.read(f"{job}/ctl/state"))
        if state.has_ended:
            print(f"{job} has ended already ({state})")
            continue
        end_job(mount, job, wait=not args.no_wait)
    return 0
