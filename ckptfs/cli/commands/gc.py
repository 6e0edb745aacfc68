"""``ckptfs gc``: have the service free what no version needs, or say what that would be."""

from __future__ import annotations

import argparse
import re

from ...errors import Busy, Degraded, TimedOut
from ..client import Mount
from ..entry import add_mount_option, mount_of, warn
from ..tables import printable
from ..waiting import said_when_interrupted

EXAMPLES = """\
sudo ckptfs gc --dry-run
sudo ckptfs gc
sudo ckptfs gc --empty-trash
"""
FILE = "ctl/gc"
_FREED = re.compile(r"idle \(freed [0-9]+ bytes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would happen to each version, and why"
    )
    parser.add_argument(
        "--empty-trash", action="store_true", help="removed versions cannot be brought back then"
    )
    parser.add_argument("--no-wait", action="store_true", help="return when it has begun")


def wait_until_idle(mount: Mount) -> str:
    """Return the first line of the file when no collection runs and no plan is made."""
    with said_when_interrupted("the service goes on; see ctl/gc"), mount.watch(FILE) as watch:
        while (text := watch.read().partition("\n")[0]).startswith(("running", "planning")):
            watch.wait(None)
    return text


def plan(mount: Mount, trash: str) -> str:
    """Return what a collection would do; wait for one that runs, and while the plan is made."""
    told = False
    while True:
        wait_until_idle(mount)
        try:
            return mount.write(FILE, f"dry{trash}")
        except Busy:
            continue  # one that has begun since
        except TimedOut:
            if not told:
                warn("reading what all versions refer to; this takes a moment")
                told = True


def run(args: argparse.Namespace) -> int:
    """Begin it and say what it freed; Degraded when it did not dare to."""
    mount = mount_of(args)
    trash = " trash=empty" if args.empty_trash else ""
    if args.dry_run:
        for line in plan(mount, trash).splitlines():
            print(printable(line))
        return 0
    wait_until_idle(mount)  # one that the service began by itself
    mount.write(FILE, f"1{trash}")
    if args.no_wait:
        return 0
    text = wait_until_idle(mount)
    if not _FREED.match(text):
        raise Degraded(text.removeprefix("idle (").removesuffix(")"))
    print(printable(text.removeprefix("idle (").removesuffix(")")))
    return 0
