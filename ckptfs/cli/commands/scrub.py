"""``ckptfs scrub``: have the service read and prove every version."""

from __future__ import annotations

import argparse
import re
import sys

from ...errors import Corrupt
from ..client import Mount
from ..entry import add_mount_option, mount_of
from ..progress import CLEAR_LINE, QUIET_REFRESH_S
from ..tables import printable
from ..waiting import said_when_interrupted

EXAMPLES = """\
sudo ckptfs scrub
sudo ckptfs scrub --no-wait; cat /ckpt/ctl/scrub
sudo ckptfs scrub --stop
"""
FILE = "ctl/scrub"
_CLEAN = re.compile(r"idle \(last .*, 0 errors\)|idle \(stopped by hand\)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("--stop", action="store_true", help="stop it; the next one goes on there")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")


def wait_until_idle(mount: Mount) -> str:
    """Return what the file says when the scrub has ended; shows how far it is on a terminal."""
    is_terminal = sys.stderr.isatty()
    with said_when_interrupted("the scrub goes on; see ctl/scrub"), mount.watch(FILE) as watch:
        while (text := watch.read().partition("\n")[0]).startswith("running"):
            if is_terminal:
                print(f"{CLEAR_LINE}scrub: {printable(text)}", end="", file=sys.stderr, flush=True)
            watch.wait(QUIET_REFRESH_S)
    if is_terminal:
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
    return text


def _what_was_found(mount: Mount) -> str:
    if len(mount.read("ctl/degraded").splitlines()) > 1:
        return "damage was found; ctl/degraded names the versions"
    return "damage was found; every version is whole all the same, see the log of the service"


def run(args: argparse.Namespace) -> int:
    """Begin it, or stop it, and say how it ended."""
    mount = mount_of(args)
    if args.stop:
        mount.write(FILE, "stop")
    elif not mount.read(FILE).startswith("running"):
        mount.write(FILE, "1")
    if args.no_wait:
        return 0
    text = wait_until_idle(mount)
    print(printable(text))
    if not args.stop and not _CLEAN.match(text):
        raise Corrupt(_what_was_found(mount))
    return 0
