"""``xsub.sh PROGRAM PARAMETERS -in FILE -out FILE -err FILE``: no JSDL needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import InvalidInput
from ..jobs.jsdl_render import JobDescription, render_jsdl
from .commands.run import default_name
from .entry import EXIT_CODES, guarded, open_any_mount
from .environment import exported
from .submission import submit_document

CHANNELS = frozenset({"-in", "-out", "-err"})

HELP = f"""\
usage: xsub.sh EXECUTABLE [PARAMETER...] [-in FILE] [-out FILE] [-err FILE]

Make a job description of a command line, submit it, and print the job's id.  The
redirections come last; in front of them everything belongs to the program.

examples:
  xsub.sh ./heat 512 -out heat.log -err heat.log
  xsub.sh /usr/bin/sort -r -in names -out sorted

{EXIT_CODES}
"""


def split_channels(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the program's own words, and the files of ``-in``, ``-out``, ``-err``.  Pure.

    Raises InvalidInput when a channel is given twice or names no file.
    """
    rest, files = list(words), dict[str, str]()
    if rest and rest[-1] in CHANNELS:
        raise InvalidInput(f"{rest[-1]} names no file; see: xsub.sh --help")
    while len(rest) > 2 and rest[-2] in CHANNELS:
        *rest, channel, file = rest
        if channel in files:
            raise InvalidInput(f"{channel} is given twice")
        files[channel] = os.path.abspath(file)
    return rest, files


def submit(argv: Sequence[str]) -> int:
    """Submit the command line and print the job's id."""
    if argv and argv[0] in {"-h", "--help"}:
        print(HELP, end="")
        return 0
    words, files = split_channels(argv)
    if not words or words[0].startswith("-"):
        raise InvalidInput("name the program first; see: xsub.sh --help")
    job = JobDescription(
        name=default_name(words[0]),
        argv=tuple(words),
        cwd=os.getcwd(),
        env=exported(os.environ)[0],
        stdin=files.get("-in", ""),
        stdout=files.get("-out", ""),
        stderr=files.get("-err", ""),
    )
    document = render_jsdl(job).encode()
    print(submit_document(open_any_mount(), document))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``xsub.sh``."""
    return guarded("xsub.sh", submit, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
