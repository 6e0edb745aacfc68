"""``ckptfs undelete``: bring a removed version back, or list those that can be."""

from __future__ import annotations

import argparse

from ..entry import add_mount_option, mount_of
from ..naming import find_job
from ..tables import printable

EXAMPLES = """\
ckptfs undelete heat
ckptfs undelete heat 7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("version", metavar="VERSION", nargs="?", help="without it, list them")


def run(args: argparse.Namespace) -> int:
    """Ask the service; print the version that is there again."""
    mount = mount_of(args)
    job = find_job(mount, args.job)
    if args.version is None:
        text = mount.read(f"{job}/ctl/undelete")
    else:
        text = mount.write(f"{job}/ctl/undelete", args.version)
    if text:
        print(printable(text) if args.version else text)
    return 0
