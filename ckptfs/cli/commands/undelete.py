"""``ckptfs undelete``: bring removed versions or jobs back, or list those that can be."""

from __future__ import annotations

import argparse

from ...errors import NotFound
from ...ids import JobId
from ..client import Mount
from ..entry import add_mount_option, mount_of
from ..naming import find_job, match_job
from ..tables import printable

EXAMPLES = """\
ckptfs undelete
ckptfs undelete heat.42
ckptfs undelete heat
ckptfs undelete heat 7
"""
REMOVED_JOBS = "ctl/undelete"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument(
        "job", metavar="JOB", nargs="?", help="a removed one comes back; without it, list those"
    )
    parser.add_argument(
        "version", metavar="VERSION", nargs="?", help="of a job that is there; without it, list"
    )


def run(args: argparse.Namespace) -> int:
    """Ask the service; print what is there again, or what can be."""
    mount = mount_of(args)
    if args.job is None:
        show(mount.read(REMOVED_JOBS))
        return 0
    try:
        job = find_job(mount, args.job)
    except NotFound:
        if args.version is not None:
            raise
        print(printable(bring_back(mount, args.job)))
        return 0
    if args.version is None:
        show(mount.read(f"{job}/ctl/undelete"))
    else:
        print(printable(mount.write(f"{job}/ctl/undelete", args.version)))
    return 0


def show(text: str) -> None:
    """Print a list, line by line."""
    for line in text.splitlines():
        print(printable(line))


def bring_back(mount: Mount, word: str) -> str:
    """Bring the removed job back that *word* means.  Raises NotFound, InvalidInput (several)."""
    removed = [JobId(line.split()[0]) for line in mount.read(REMOVED_JOBS).splitlines() if line]
    return mount.write(REMOVED_JOBS, match_job(word, removed, ()))
