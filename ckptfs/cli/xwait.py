"""``xwait [-h] [-v] [-c cert] [-j job]``: wait for a job, exit as it did (XtreemOS D3.3.6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import InvalidInput
from .commands.wait import report_end
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
xwait -j heat && echo fine
xwait -v -j heat.42; echo "it ended with $?"
"""


def wait(argv: Sequence[str]) -> int:
    """Wait; the exit code is the job's, 128 + n after signal n."""
    parser = make_parser("xwait", "Wait for a job's end and exit as it did.", EXAMPLES)
    parser.add_argument("-v", action="store_true", dest="verbose", help="say what is done")
    add_certificate_option(parser)
    parser.add_argument("-j", metavar="JOB", dest="job", help="the job")
    add_mount_option(parser)
    args = parser.parse_args(argv)
    refuse_certificate(args.certificate)
    if args.job is None:
        raise InvalidInput("name the job with -j; see: xwait --help")
    mount = mount_of(args)
    job = find_job(mount, args.job)
    if args.verbose:
        warn(f"waiting for the end of {job}")
    code = report_end(mount, job, as_json=False)
    if args.verbose:
        warn(f"{job} ended with {code}")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xwait``."""
    return guarded("xwait", wait, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
