"""What ``ckptfs ls`` and ``ckptfs ps`` know of a job or a version, read from its control files."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CkptfsError, NotAuthenticated, NotFound
from ..ids import JobId, parse_version
from .client import Mount
from .outcomes import parse_state

UNSEEN = "-"  # where this user may not look


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job; *state* is `UNSEEN` where this user may not look."""

    job: JobId
    state: str
    uid: int
    changed_s: float  # since the epoch
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version; sizes in bytes, *unique* what would be freed with it."""

    version: int
    committed_s: float  # since the epoch
    size: int
    unique: int
    replicas: int  # failure domains in which it is whole
    level: int  # in which it should be
    state: str
    purpose: str
    pinned: bool
    note: str
    space_class: str = "-"  # user or system
    charged: int = 0  # bytes, to the job's owner


def versions_of(mount: Mount, job: str) -> list[int]:
    """Return the committed versions, ascending."""
    found: list[int] = []
    for entry in mount.entries(job):
        try:
            found.append(parse_version(entry.name))
        except NotFound:
            continue  # ctl, latest
    return sorted(found)


def read_job(mount: Mount, job: JobId) -> JobRow | None:
    """Return what may be known of a job; None when it was removed meanwhile."""
    try:
        status = mount.status(job)
    except NotFound:
        return None
    try:
        state = str(parse_state(mount.read(f"{job}/ctl/state")))
        versions = tuple(versions_of(mount, job))
    except NotAuthenticated:
        state, versions = UNSEEN, ()
    except CkptfsError:
        return None
    return JobRow(job, state, status.st_uid, status.st_mtime, versions)


def read_version(mount: Mount, job: str, version: int) -> VersionRow | None:
    """Return what is known of a version; None when it was removed meanwhile."""
    path = f"{job}/{version}"
    try:
        committed_s = mount.status(path).st_mtime
        stat = mount.keyed(f"{path}/ctl/stat")
        state = mount.read(f"{path}/ctl/state")
        pinned = mount.read(f"{path}/ctl/pin").partition("\n")[0] == "1"
    except NotFound:
        return None
    return VersionRow(
        version,
        committed_s,
        _number(stat.get("logical_bytes", "")),
        _number(stat.get("unique_bytes", "")),
        _number(stat.get("replicas", "")),
        _number(stat.get("level", "")),
        state,
        stat.get("purpose", "-"),
        pinned,
        stat.get("note", ""),
        stat.get("class", "-"),
        _number(stat.get("charged_bytes", "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
