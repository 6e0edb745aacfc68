"""What ``ckptfs ls`` and ``ckptfs ps`` know of a job or a version, read from its control files."""

from __future__ import annotations

import calendar
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..errors import CkptfsError, NotAuthenticated, NotFound
from ..ids import JobId, parse_version
from .client import Mount
from .nested import parse_nested
from .outcomes import parse_state
from .progress import shown_share
from .waiting import said_when_interrupted

UNSEEN = "-"  # where this user may not look
DAMAGED, REPLICATING = "damaged", "replicating"  # first words of a version's state
TIME = "%Y-%m-%dT%H:%M:%SZ"
AGAIN_S = 0.3  # between two looks at what the service still counts
Row = Mapping[str, str]  # one line of ctl/versions


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
    unique: int | None  # None: not counted yet
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


def read_rows(mount: Mount, job: str, wanted: Collection[str]) -> dict[int, Row]:
    """Return ``ctl/versions``, once every version whose head can be read has the *wanted* keys.

    Some come in the background after the service has started.
    """
    hint = "the service goes on counting; ask again"
    with (
        said_when_interrupted(hint),
        shown_share(f"{job}: counting what its versions hold") as show,
        mount.watch("ctl/health") as watch,
    ):
        while True:
            found = {int(key): row for key, row in rows_of(mount, job).items() if key.isdecimal()}
            lacking = [row for row in found.values() if not row.keys() >= set(wanted)]
            if not lacking or not (_are_read(lacking) or _is_reading(mount)):
                return found
            show(1 - len(lacking) / len(found))
            watch.read()
            watch.wait(AGAIN_S)


def _are_read(rows: Collection[Row]) -> bool:
    """Whether the head of any of *rows* has been read: then what lacks is being counted."""
    return any("committed_at" in row for row in rows)


def _is_reading(mount: Mount) -> bool:
    """Whether heads are still being read; one that cannot be read never tells anything."""
    return mount.keyed("ctl/stat").get("versions_unread", "0") != "0"


def rows_of(mount: Mount, job: str) -> Mapping[str, Row]:
    """Return ``ctl/versions`` as it is."""
    return parse_nested(mount.read(f"{job}/ctl/versions"))


def read_versions(mount: Mount, job: str) -> list[VersionRow]:
    """Return what is known of the versions of a job, ascending."""
    rows = read_rows(mount, job, {"committed_at"})
    return [row_of(version, row, _state(mount, job, version, row)) for version, row in rows.items()]


def _state(mount: Mount, job: str, version: int, row: Row) -> str:
    """Return the whole state: why a version is damaged is in its own file."""
    state = row.get("state", UNSEEN)
    if state == DAMAGED:
        with suppress(NotFound):
            return mount.read(f"{job}/{version}/ctl/state")
    missing = f"{row.get('replicas', '-')}/{row.get('level', '-')}"
    return f"{state} {missing}" if state == REPLICATING else state


def row_of(version: int, row: Row, state: str) -> VersionRow:
    """Return a line of ``ctl/versions`` as a row.  Pure."""
    return VersionRow(
        version,
        time_of(row.get("committed_at", "")),
        _number(row.get("logical_bytes", "")),
        _number(row["unique_bytes"]) if "unique_bytes" in row else None,
        _number(row.get("replicas", "")),
        _number(row.get("level", "")),
        state,
        row.get("purpose", "-"),
        row.get("pinned") == "1",
        row.get("note", ""),
        row.get("class", "-"),
        _number(row.get("charged_bytes", "")),
    )


def time_of(text: str) -> float:
    """Return ``2026-11-20T11:52:03Z`` as seconds since the epoch, 0 for anything else.  Pure."""
    try:
        return float(calendar.timegm(time.strptime(text, TIME)))
    except ValueError:
        return 0.0


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
