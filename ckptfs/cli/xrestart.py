"""``xrestart`` = ``xjobrestart``: ``ckptfs restart`` by the field's name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .commands import restart
from .entry import guarded, make_parser

EXAMPLES = """\
xrestart heat 7
xrestart heat 7 --kill
xjobrestart heat.42 latest
"""


def restart_job(argv: Sequence[str]) -> int:
    """Do what ``ckptfs restart`` does."""
    parser = make_parser("xrestart", "Restart a job from a version.", EXAMPLES)
    restart.add_arguments(parser)
    return restart.run(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xrestart`` and ``xjobrestart``."""
    return guarded("xrestart", restart_job, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
