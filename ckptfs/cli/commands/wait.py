"""``ckptfs wait``: wait for a job's end and exit as it did."""

from __future__ import annotations

import argparse
import json

from ..client import Mount
from ..entry import add_mount_option, mount_of, warn
from ..naming import find_job
from ..waiting import EXIT_UNKNOWN, said_when_interrupted, wait_for_end

EXAMPLES = """\
ckptfs wait heat && echo fine
ckptfs wait heat; echo "it ended with $?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--json", action="store_true", help="print JSON at the end")


def report_end(mount: Mount, job: str, *, as_json: bool) -> int:
    """Wait for the end of *job* and return its exit code: its own, 128 + signal, 125 unknown."""
    with said_when_interrupted(f"{job} goes on; end it with: ckptfs kill {job}"):
        state, code = wait_for_end(mount, job)
    if as_json:
        known = None if code == EXIT_UNKNOWN else code
        print(json.dumps({"job": job, "state": state.word, "reason": state.reason, "exit": known}))
    elif state.word == "failed":
        warn(f"{job} failed: {state.reason or 'no reason is known'}")
    return code


def run(args: argparse.Namespace) -> int:
    """Wait; the exit code is the job's."""
    mount = mount_of(args)
    return report_end(mount, find_job(mount, args.job), as_json=args.json)
