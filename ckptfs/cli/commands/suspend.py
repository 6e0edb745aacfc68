"""``ckptfs suspend``: take a version, then end the job for now."""

from __future__ import annotations

import argparse

from ...errors import CheckpointerFailed
from ..entry import mount_of, warn
from ..naming import find_job
from ..operations import add_operation_options, carry_out, version_answered
from ..waiting import wait_for_state

EXAMPLES = """\
ckptfs suspend heat
ckptfs resume heat
"""

add_arguments = add_operation_options


def run(args: argparse.Namespace) -> int:
    """Suspend the job and print the version to resume from."""
    mount = mount_of(args)
    job = find_job(mount, args.job)
    version = version_answered("suspend", mount.write(f"{job}/ctl/suspend", "1"))
    if not version:
        warn(f"{job} is suspended already; the version it was suspended with has been removed")
        return 0
    code = carry_out(mount, job, "checkpoint", version, args)
    if not args.no_wait:
        state = wait_for_state(mount, job, frozenset({"suspended", "running"}))
        if state.word != "suspended":
            raise CheckpointerFailed(f"{job} is {state}, not suspended; see its ctl/error")
    return code
