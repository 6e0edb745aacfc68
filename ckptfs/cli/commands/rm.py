"""``ckptfs rm``: remove versions, or an ended job with all of them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence

from ...errors import Busy, InvalidInput, NotFound
from ...ids import JobId
from ..client import Mount
from ..entry import add_mount_option, mount_of
from ..listing import rows_of, versions_of
from ..naming import find_job
from ..outcomes import parse_state

EXAMPLES = """\
ckptfs rm heat 3
ckptfs rm heat.42 1 2 3
ckptfs rm heat.42
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("job", metavar="JOB")
    parser.add_argument(
        "versions", metavar="VERSION", nargs="*", help="without any: the whole job, once it ended"
    )


def run(args: argparse.Namespace) -> int:
    """Remove what is named; nothing when one of it cannot be."""
    mount = mount_of(args)
    job = find_job(mount, args.job)
    there = versions_of(mount, job)
    if args.versions:
        remove_versions(mount, job, chosen(job, args.versions, there))
    else:
        remove_job(mount, job, there)
    return 0


def chosen(job: JobId, words: Sequence[str], there: Collection[int]) -> list[int]:
    """Return the versions that *words* name.  Raises InvalidInput, NotFound.  Pure."""
    for word in words:
        if not word.isdecimal():
            raise InvalidInput(f"a version is a number, not {word!r}")
        if int(word) not in there:
            raise NotFound(f"{job} has no version {word}; ckptfs ls {job} lists them")
    return sorted({int(word) for word in words})


def remove_versions(mount: Mount, job: JobId, versions: Collection[int]) -> None:
    """Remove versions, once none of them is pinned.  Raises Busy."""
    rows = rows_of(mount, job)
    for version in versions:
        if rows.get(str(version), {}).get("pinned") == "1":
            raise Busy(
                f"version {version} is pinned: echo 0 > {mount.root}/{job}/{version}/ctl/pin"
            )
    for version in versions:
        try:
            mount.remove(f"{job}/{version}")
        except Busy:
            raise Busy(f"version {version} of {job} is in use: try again later") from None
        print(f"removed {job}/{version}; ckptfs undelete {job} {version} brings it back")


def remove_job(mount: Mount, job: JobId, versions: Collection[int]) -> None:
    """Remove an ended job and its versions.  Raises Busy."""
    state = parse_state(mount.read(f"{job}/ctl/state"))
    if not state.has_ended:
        raise Busy(f"{job} has not ended ({state}): ckptfs kill {job} first")
    remove_versions(mount, job, versions)
    mount.remove(job)
    print(f"removed {job}; ckptfs undelete {job} brings it back with its versions")
