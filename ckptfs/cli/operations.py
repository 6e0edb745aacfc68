"""What checkpoint, restart, suspend and resume do after the service has said yes."""

from __future__ import annotations

import argparse
import json

from ..errors import CkptfsError
from .client import Mount
from .entry import add_mount_option
from .progress import make_progress
from .waiting import follow


def add_operation_options(parser: argparse.ArgumentParser) -> None:
    """Add what the four commands share: ``JOB``, ``--no-wait``, ``--json``, ``--mount``."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--no-wait", action="store_true", help="return when it has begun")
    parser.add_argument("--json", action="store_true", help="print JSON, a line per change")


def version_answered(verb: str, answer: str) -> int:
    """Return the version that the service answered with.  Pure."""
    if not answer.isdigit():
        raise CkptfsError(f"the service answered {answer!r} to {verb}, which is no version")
    return int(answer)


def carry_out(
    mount: Mount, job: str, verb: str, version: int, args: argparse.Namespace, result: str = ""
) -> int:
    """Wait for the operation (not with ``--no-wait``), then print *result*, or the version.

    Raises CheckpointerFailed when it failed.
    """
    if not args.no_wait:
        follow(mount, job, verb, version, make_progress(as_json=args.json))
    elif args.json:
        print(json.dumps({"job": job, "operation": verb, "version": version}))
    if not args.json:
        print(result or version, flush=True)
    return 0
