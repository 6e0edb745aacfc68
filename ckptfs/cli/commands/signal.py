"""``ckptfs signal``: send a signal to the processes of a job."""

from __future__ import annotations

import argparse
from signal import Signals

from ...errors import InvalidInput
from ..entry import add_mount_option, mount_of
from ..naming import find_job

EXAMPLES = """\
ckptfs signal heat TERM
ckptfs signal heat 10 --master
ckptfs signal heat USR1 --only 4711,4712
"""

NAMES = frozenset(name.removeprefix("SIG") for name in Signals.__members__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("signal", metavar="SIGNAL", help="a number or a name: 15, TERM, SIGTERM")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--only", default="", metavar="PIDS", help="to these processes only")
    who.add_argument("--except", default="", metavar="PIDS", dest="others", help="to all but these")
    who.add_argument("--master", action="store_true", help="to the job's first process only")


def request_text(signal: str, *, only: str = "", others: str = "", master: bool = False) -> str:
    """Return what is written to ``ctl/signal``.  Pure.  Raises InvalidInput."""
    word = signal.upper().removeprefix("SIG")
    if word not in NAMES and not (word.isascii() and word.isdigit()):
        raise InvalidInput(f"{signal!r} is no signal: give a number or a name, as kill -l does")
    for pids in (only, others):
        if pids and not all(pid.isdigit() for pid in pids.split(",")):
            raise InvalidInput(f"processes are given as 4711,4712, not {pids!r}")
    words = [word, only and f"only={only}", others and f"except={others}", "master" * master]
    return " ".join(filter(None, words))


def run(args: argparse.Namespace) -> int:
    """Send the signal."""
    request = request_text(args.signal, only=args.only, others=args.others, master=args.master)
    mount = mount_of(args)
    mount.write(f"{find_job(mount, args.job)}/ctl/signal", request)
    return 0
