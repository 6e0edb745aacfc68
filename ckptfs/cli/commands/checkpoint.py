"""``ckptfs checkpoint``: take a version of a job."""

from __future__ import annotations

import argparse

from ...errors import InvalidInput
from ..client import Mount
from ..entry import mount_of
from ..naming import find_job
from ..operations import add_operation_options, carry_out, version_answered

EXAMPLES = """\
ckptfs checkpoint heat
version=$(ckptfs checkpoint heat)
ckptfs checkpoint heat --keep --note before_refactor
ckptfs checkpoint heat --no-wait
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_operation_options(parser)
    add = parser.add_argument
    add("--keep", action="store_true", help="pin the version: nothing removes it unasked")
    add("--system", action="store_true", help="charged to nobody, gone with the job; root only")
    add("--note", default="", help="a word to find it again by; blanks become _")


def request_text(*, keep: bool, note: str, system: bool = False) -> str:
    """Return what is written to ``ctl/checkpoint``.  Pure.  Raises InvalidInput."""
    words = ["keep=yes"] * keep + ["initiator=system"] * system
    if note:
        word = "_".join(note.split())
        if not word.isprintable() or not word:
            raise InvalidInput("a note is a printable word")
        words.append(f"note={word}")
    return " ".join(words) or "1"


def run(args: argparse.Namespace) -> int:
    """Take a version and print its number."""
    request = request_text(keep=args.keep, note=args.note, system=args.system)
    mount = mount_of(args)
    return take(mount, find_job(mount, args.job), request, args)


def take(mount: Mount, job: str, request: str, args: argparse.Namespace) -> int:
    """Write *request* to the job's checkpoint file and follow it."""
    answer = mount.write(f"{job}/ctl/checkpoint", request)
    return carry_out(mount, job, "checkpoint", version_answered("checkpoint", answer), args)
