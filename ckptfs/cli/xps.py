"""``xps [-a] [-A] [-c cert] [-j job] [-T TAG]``: jobs and processes as XtreemOS does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from ..errors import InvalidInput, NotFound, Unsupported
from .entry import (
    add_certificate_option,
    add_mount_option,
    guarded,
    make_parser,
    mount_of,
    refuse_certificate,
)
from .jobinfo import parse_jobinfo, xps_text
from .naming import find_job, is_own, list_jobs

EXAMPLES = """\
xps -a
xps -A -j heat
"""


def show(argv: Sequence[str]) -> int:
    """Print one job, or all of the caller's."""
    parser = make_parser("xps", "Show jobs and their processes.", EXAMPLES)
    parser.add_argument(
        "-a",
        action="store_true",
        dest="all",
        help="all your jobs (for root, all jobs); the default",
    )
    parser.add_argument("-A", action="store_true", dest="ansi", help="in colour")
    add_certificate_option(parser)
    parser.add_argument("-j", metavar="JOB", dest="job", help="this job only")
    parser.add_argument("-T", metavar="TAG", dest="tag", help="related jobs (not served yet)")
    add_mount_option(parser)
    args = parser.parse_args(argv)
    refuse_certificate(args.certificate)
    if args.tag is not None:
        raise Unsupported("-T asks for dependences between jobs, which are not served yet")
    if args.all and args.job is not None:
        raise InvalidInput("-a means all jobs, -j one: give one of them")
    mount = mount_of(args)
    # root looks after the machine: to it, everybody's jobs are of interest
    own = (job for job in list_jobs(mount) if os.geteuid() == 0 or is_own(mount, job))
    for job in own if args.job is None else [find_job(mount, args.job)]:
        try:
            document = mount.read(f"{job}/ctl/jobinfo.xml")
        except NotFound:
            if args.job is not None:
                raise
            continue  # removed since it was listed
        for info in parse_jobinfo(document):
            print(xps_text(info, time.time_ns() // 1_000_000, ansi=args.ansi))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xps``."""
    return guarded("xps", show, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
