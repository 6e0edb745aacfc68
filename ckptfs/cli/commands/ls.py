"""``ckptfs ls``: list jobs, or the versions of one."""

from __future__ import annotations

import argparse
import json
import pwd
import time
from dataclasses import asdict

from ..client import Mount
from ..entry import add_mount_option, mount_of, warn
from ..listing import JobRow, VersionRow, read_job, read_versions, versions_of
from ..naming import find_job, list_jobs
from ..tables import age_text, size_text, table_text

EXAMPLES = """\
ckptfs ls
ckptfs ls -l
ckptfs ls -l heat
ckptfs ls --json heat
"""

JOB_HEADER = ("JOB", "STATE", "VERSIONS", "LATEST", "CHANGED", "OWNER")
VERSION_HEADER = (
    "VERSION",
    "AGE",
    "SIZE",
    "UNIQUE",
    "COPIES",
    "STATE",
    "PURPOSE",
    "CLASS",
    "PIN",
    "NOTE",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("-l", "--long", action="store_true", help="a table with all that is known")
    parser.add_argument("--json", action="store_true", help="print JSON, all that is known")
    parser.add_argument("job", metavar="JOB", nargs="?", help="list this job's versions")


def job_cells(row: JobRow, owner: str, now_s: float) -> tuple[str, ...]:
    """Return a job as a row of the table.  Pure."""
    latest = str(row.versions[-1]) if row.versions else "-"
    count = "-" if row.state == "-" else str(len(row.versions))
    age = age_text(now_s - row.changed_s)
    return (row.job, row.state, count, latest, age, owner)


def version_cells(row: VersionRow, now_s: float) -> tuple[str, ...]:
    """Return a version as a row of the table.  Pure."""
    return (
        str(row.version),
        age_text(now_s - row.committed_s),
        size_text(row.size),
        "…" if row.unique is None else size_text(row.unique),
        f"{row.replicas}/{row.level}",
        row.state,
        row.purpose,
        row.space_class,
        "pinned" if row.pinned else "-",
        row.note or "-",
    )


def owner_name(uid: int) -> str:
    """Return the login name of *uid*, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def run(args: argparse.Namespace) -> int:
    """List; short lists are one name a line."""
    mount = mount_of(args)
    return _versions(mount, args) if args.job else _jobs(mount, args)


def _jobs(mount: Mount, args: argparse.Namespace) -> int:
    jobs = list_jobs(mount)
    if not args.long and not args.json:
        print("".join(f"{job}\n" for job in jobs), end="")
        return 0
    rows = [row for job in jobs if (row := read_job(mount, job))]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        now = time.time()
        print(table_text(JOB_HEADER, [job_cells(row, owner_name(row.uid), now) for row in rows]))
    return 0


def _versions(mount: Mount, args: argparse.Namespace) -> int:
    job = find_job(mount, args.job)
    if not args.long and not args.json:
        print("".join(f"{version}\n" for version in versions_of(mount, job)), end="")
        return 0
    rows = read_versions(mount, job)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        now = time.time()
        print(table_text(VERSION_HEADER, [version_cells(row, now) for row in rows]))
    if more := sum(row.unique is None for row in rows):
        warn(f"what {more} of {len(rows)} versions hold alone is still being counted")
    return 0
