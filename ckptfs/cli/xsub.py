"""``xsub [-h] [-V] [-v] [-c cert] [-f jsdl]``: submit a JSDL document (XtreemOS D3.3.6)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import InvalidInput
from .commands.submit import read_document
from .entry import (
    add_certificate_option,
    add_mount_option,
    guarded,
    make_parser,
    mount_of,
    refuse_certificate,
    warn,
)
from .submission import submit_document

EXAMPLES = """\
xsub -f heat.jsdl
xsub -v -f - < heat.jsdl
"""


def submit(argv: Sequence[str]) -> int:
    """Submit the document and print the job's id."""
    parser = make_parser("xsub", "Submit a job described in JSDL and print its id.", EXAMPLES)
    parser.add_argument("-V", action="version", version=f"xsub (ckptfs {__version__})")
    parser.add_argument("-v", action="store_true", dest="verbose", help="say what is done")
    add_certificate_option(parser)
    parser.add_argument("-f", metavar="JSDL", dest="file", help="the document, - for stdin")
    add_mount_option(parser)
    args = parser.parse_args(argv)
    refuse_certificate(args.certificate)
    if args.file is None:
        raise InvalidInput("name the job description with -f; see: xsub --help")
    document, mount = read_document(args.file), mount_of(args)
    if args.verbose:
        warn(f"submitting {len(document)} bytes through {mount.root}/ctl/submit")
    print(submit_document(mount, document))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xsub``."""
    return guarded("xsub", submit, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
