"""``xcheckpoint`` = ``xjobcheckpoint``: ``ckptfs checkpoint`` by the field's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .commands import checkpoint
from .entry import guarded, make_parser

EXAMPLES = """\
xcheckpoint heat
version=$(xjobcheckpoint heat.42)
"""


def checkpoint_job(argv: Sequence[str]) -> int:
    """Do what ``ckptfs checkpoint`` does."""
    parser = make_parser("xcheckpoint", "Take a version of a job and print its number.", EXAMPLES)
    checkpoint.add_arguments(parser)
    return checkpoint.run(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xcheckpoint`` and ``xjobcheckpoint``."""
    return guarded("xcheckpoint", checkpoint_job, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
