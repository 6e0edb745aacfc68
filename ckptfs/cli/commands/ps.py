"""``ckptfs ps``: the caller's jobs, where they stand, and their processes."""

from __future__ import annotations

import argparse
import json
import os

from ...errors import CkptfsError
from ...ids import JobId
from ..client import Mount
from ..entry import add_mount_option, mount_of
from ..jobinfo import JobInfo, cpu_text, parse_jobinfo
from ..listing import UNSEEN, JobRow, read_job
from ..naming import is_own, list_jobs
from ..outcomes import parse_outcome
from ..tables import table_text

EXAMPLES = """\
ckptfs ps
ckptfs ps -a
ckptfs ps --json
"""

HEADER = ("JOB", "STATE", "PROCESSES", "CPU", "VERSIONS", "LAST CHECKPOINT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("-a", "--all", action="store_true", help="ended jobs, and others' too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def is_shown(row: JobRow, *, own: bool, show_all: bool) -> bool:
    """Return whether a job belongs in the list: one's own that have not ended.  Pure."""
    return show_all or (own and row.state.partition(" ")[0] not in {"done", "failed"})


def read_processes(mount: Mount, job: JobId) -> JobInfo:
    """Return the job's metrics; none where they cannot be had."""
    try:
        found = parse_jobinfo(mount.read(f"{job}/ctl/jobinfo.xml"))
    except CkptfsError:
        found = []
    return found[0] if found else JobInfo(job, ())


def last_checkpoint(mount: Mount, row: JobRow) -> str:
    """Return ``7 complete``, "-" when there is none or this user may not look.

    A service that was started again knows the versions, not the last request.
    """
    try:
        outcome = parse_outcome(mount.read(f"{row.job}/ctl/checkpoint"))
    except CkptfsError:
        return "-"
    if outcome:
        return f"{outcome.version} {outcome.word}"
    return f"{row.versions[-1]} complete" if row.versions else "-"


def job_cells(mount: Mount, row: JobRow) -> tuple[str, ...]:
    """Return a job as a row of the table."""
    if row.state == UNSEEN:
        return (row.job, *[UNSEEN] * (len(HEADER) - 1))  # somebody else's: nothing is known of it
    info = read_processes(mount, row.job)
    count = str(sum(metric.name == "PID" for metric in info.metrics))
    last, versions = last_checkpoint(mount, row), str(len(row.versions))
    return (row.job, row.state, count, cpu_text(info), versions, last)


def run(args: argparse.Namespace) -> int:
    """Print the jobs."""
    mount, uid = mount_of(args), os.geteuid()
    # root looks after the machine: to it, everybody's running jobs are of interest
    own = [(job, uid == 0 or is_own(mount, job)) for job in list_jobs(mount)]
    rows = [
        row
        for job, mine in own
        if (mine or args.all)
        and (row := read_job(mount, job))
        and is_shown(row, own=mine, show_all=args.all)
    ]
    cells = [job_cells(mount, row) for row in rows]
    if args.json:
        keys = [name.lower().replace(" ", "_") for name in HEADER]
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in cells], indent=2))
    else:
        print(table_text(HEADER, cells))
    return 0
