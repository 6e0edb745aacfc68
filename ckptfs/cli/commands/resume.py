"""``ckptfs resume``: go on with a suspended job."""

from __future__ import annotations

import argparse

from ..entry import mount_of, warn
from ..naming import find_job
from ..operations import add_operation_options, carry_out, version_answered

EXAMPLES = """\
ckptfs resume heat
"""

add_arguments = add_operation_options


def run(args: argparse.Namespace) -> int:
    """Resume the job and print the version it goes on from."""
    mount = mount_of(args)
    job = find_job(mount, args.job)
    version = version_answered("resume", mount.write(f"{job}/ctl/resume", "1"))
    if not version:
        warn(f"{job} is running already")
        return 0
    return carry_out(mount, job, "restart", version, args)
