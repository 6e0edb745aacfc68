"""``xkill [-h] [-v] [-j job] [-c cert] [-e event]``: send an event to a job (XtreemOS D3.3.6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import InvalidInput
from .commands.signal import request_text
from .entry import (
    add_certificate_option,
    add_mount_option,
    guarded,
    make_parser,
    mount_of,
    refuse_certificate,
    warn,
)
from .naming import find_job

EXAMPLES = """\
xkill -j heat -e 15
xkill -v -j heat.42 -e USR1
"""


def send(argv: Sequence[str]) -> int:
    """Send the event, which is a signal, to every process of the job."""
    parser = make_parser("xkill", "Send an event (a signal) to a job.", EXAMPLES)
    parser.add_argument("-v", action="store_true", dest="verbose", help="say what is done")
    parser.add_argument("-j", metavar="JOB", dest="job", help="the job")
    add_certificate_option(parser)
    parser.add_argument("-e", metavar="EVENT", dest="event", default="TERM", help="default: TERM")
    add_mount_option(parser)
    args = parser.parse_args(argv)
    refuse_certificate(args.certificate)
    if args.job is None:
        raise InvalidInput("name the job with -j; see: xkill --help")
    request, mount = request_text(args.event), mount_of(args)
    job = find_job(mount, args.job)
    if args.verbose:
        warn(f"writing {request!r} to {mount.root}/{job}/ctl/signal")
    mount.write(f"{job}/ctl/signal", request)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xkill``."""
    return guarded("xkill", send, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
