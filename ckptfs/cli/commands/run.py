"""``ckptfs run``: a program and its arguments become a job."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence

from ...errors import CkptfsError, InvalidInput
from ...ids import JOB_NAME_MAX, parse_job_name
from ...jobs.jsdl_render import LIMIT_ELEMENTS, JobDescription, render_jsdl
from ...jobs.sizes import parse_size
from ..entry import add_mount_option, mount_of, warn
from ..environment import CLEAN_PATH, exported, handed_over, parse_assignments
from ..submission import submit_document
from .wait import report_end

EXAMPLES = """\
ckptfs run -- python3 heat.py --size 512
ckptfs run --name heat --stdout heat.log --stderr heat.log -- ./heat 512
ckptfs run --clean-env -e OMP_NUM_THREADS=2 --limit nofile=4096 -- ./solver
ckptfs run --space 10G --keep-every 3600 -- ./heat
ckptfs run --copies 2 -- ./heat
ckptfs run --wait -- make -j2 && echo built
"""

_SPACE_HELP = (
    "space that you provide for your versions (bytes, or 10G): those within it stay, and one that "
    "would not fit is refused"
)
_COPIES_HELP = "keep each version in N places, the store and volumes (see ckptfs volume)"
_MIN_COPIES_HELP = "a checkpoint is complete only when there are N"
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.+-]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add_mount_option(parser)
    add("--name", default="", help="the job's name (default: the program's)")
    add("--uid", default="", metavar="USER", help="run as this user (name or uid; root only)")
    add("-e", "--env", action="append", default=[], metavar="K=V", help="set a variable")
    add("--clean-env", action="store_true", help="pass on none of your variables but with -e")
    add("--cwd", default="", metavar="DIR", help="working directory (default: this one)")
    add("--stdin", default="", metavar="FILE", help="read standard input from FILE")
    add("--stdout", default="", metavar="FILE", help="append standard output to FILE")
    add("--stderr", default="", metavar="FILE", help="append standard error to FILE")
    add("--limit", action="append", default=[], metavar="NAME=N", help=_limit_help())
    add("--time", type=int, default=0, metavar="S", help="kill the job after S seconds")
    add(
        "--rollback",
        choices=("truncate", "copy"),
        default="",
        help="how a restart puts output files back: cut them to their length (default), or "
        "bring back whole copies of small ones",
    )
    add("--keep-last", type=int, default=0, metavar="N", help="keep the newest N versions only")
    add("--keep-within", type=int, default=0, metavar="S", help="keep those younger than S seconds")
    add("--keep-every", type=int, default=0, metavar="S", help="keep one for each S seconds")
    add("--space", default="", metavar="SIZE", help=_SPACE_HELP)
    add("--copies", type=int, default=0, metavar="N", help=_COPIES_HELP)
    add("--min-copies", type=int, default=0, metavar="N", help=_MIN_COPIES_HELP)
    add("--wait", action="store_true", help="wait for the end, exit as the program did")
    add("--json", action="store_true", help="print JSON")
    add("program", help="the program, looked up in the job's PATH")
    add("args", nargs=argparse.REMAINDER, help="its arguments, untouched")


def _limit_help() -> str:
    return f"a resource limit, of {', '.join(LIMIT_ELEMENTS)}"


def default_name(program: str) -> str:
    """Return a job name made of the program's base name.  Pure."""
    name = _UNNAMEABLE.sub("_", os.path.basename(program)).lstrip(".+-")[:JOB_NAME_MAX]
    try:
        return parse_job_name(name)
    except CkptfsError:
        return "job"


def parse_limits(words: Sequence[str]) -> dict[str, int]:
    """Return ``nofile=1024`` words as a dictionary.  Raises InvalidInput.  Pure."""
    limits: dict[str, int] = {}
    for name, value in parse_assignments(words).items():
        if not re.fullmatch(r"[0-9]{1,19}", value):
            raise InvalidInput(f"limit {name} is a number, not {value!r}")
        limits[name] = int(value)
    return limits


def chosen_environment(args: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Return the variables of mine that the job gets, and the names that JSDL cannot say."""
    if args.clean_env:
        return {"PATH": CLEAN_PATH}, []
    if args.uid and args.uid not in {str(os.geteuid()), os.environ.get("USER")}:
        return handed_over(os.environ), []
    return exported(os.environ)


def describe(args: argparse.Namespace) -> JobDescription:
    """Return the job that the options describe, files relative to its working directory."""
    asked = parse_assignments(args.env)
    env, unsaid = chosen_environment(args)
    unsaid = [name for name in unsaid if name not in asked]
    if unsaid:
        warn(f"not passed on, for they hold control characters: {', '.join(unsaid)}")
    numbers = (args.time, args.keep_last, args.keep_within, args.keep_every)
    if min(*numbers, args.copies, args.min_copies) < 0:
        raise InvalidInput("--time, --copies and the --keep options are numbers from 0")
    cwd = os.path.abspath(args.cwd)  # "" is this directory
    return JobDescription(
        name=parse_job_name(args.name) if args.name else default_name(args.program),
        argv=(args.program, *args.args),
        cwd=cwd,
        env=env | asked,
        user=args.uid,
        stdin=_below(cwd, args.stdin),
        stdout=_below(cwd, args.stdout),
        stderr=_below(cwd, args.stderr),
        limits=parse_limits(args.limit),
        wall_time_s=args.time,
        rollback=args.rollback,
        keep_last=args.keep_last,
        keep_within_s=args.keep_within,
        keep_every_s=args.keep_every,
        space_bytes=parse_size(args.space) if args.space else 0,
        copies=max(args.copies, args.min_copies),
        min_copies=args.min_copies,
    )


def _below(directory: str, path: str) -> str:
    return os.path.normpath(os.path.join(directory, path)) if path else ""


def run(args: argparse.Namespace) -> int:
    """Submit the job and print its id."""
    document = render_jsdl(describe(args)).encode()
    mount = mount_of(args)
    job = submit_document(mount, document)
    print(json.dumps({"job": job}) if args.json else job, flush=True)
    return report_end(mount, job, as_json=args.json) if args.wait else 0
