"""What can sit in the tree, and the identity that its inode number is derived from.  Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..ids import JobId, UnitName, Version

NO_JOB = JobId("")  # of what belongs to the service
NO_VERSION = Version(0)
NO_UNIT = UnitName("")  # of what belongs to the version as a whole


class Kind(enum.Enum):
    """Every kind of object in the mount."""

    ROOT = "root"
    SERVICE_CTL = "service_ctl"
    SERVICE_FILE = "service_file"
    SPOOL = "spool"
    SPOOL_FILE = "spool_file"
    JOB = "job"
    JOB_CTL = "job_ctl"
    JOB_FILE = "job_file"
    LATEST = "latest"  # symbolic link to the newest restartable version
    VERSION = "version"
    VERSION_CTL = "version_ctl"
    VERSION_FILE = "version_file"
    SUMS = "sums"  # SHA256SUMS
    UNIT = "unit"
    SAVED = "saved"  # files/ below a unit: output files kept with the version
    IMAGE = "image"  # any sealed file: images, unit.cpx, job.cpx
    STAGING = "staging"
    STAGED_VERSION = "staged_version"
    STAGED_UNIT = "staged_unit"
    STAGED_SAVED = "staged_saved"
    STAGED_FILE = "staged_file"


@dataclass(frozen=True, slots=True)
class Node:
    """One object.

    *name*: control file, or file relative to its unit; *serial*: of what may be renamed.
    """

    kind: Kind
    job: JobId = NO_JOB
    version: Version = NO_VERSION
    unit: UnitName = NO_UNIT
    name: str = ""
    serial: int = 0

    @property
    def identity(self) -> str:
        """Text that differs between any two objects that ever exist in a store."""
        parts = (
            self.kind.value,
            self.job,
            str(self.version),
            self.unit,
            self.name,
            str(self.serial),
        )
        return "\0".join(parts)


ROOT = Node(Kind.ROOT)
SERVICE_CTL = Node(Kind.SERVICE_CTL)
SPOOL = Node(Kind.SPOOL)
STAGING = Node(Kind.STAGING)

DIRECTORIES = frozenset(
    {
        Kind.ROOT,
        Kind.SERVICE_CTL,
        Kind.SPOOL,
        Kind.JOB,
        Kind.JOB_CTL,
        Kind.VERSION,
        Kind.VERSION_CTL,
        Kind.UNIT,
        Kind.SAVED,
        Kind.STAGING,
        Kind.STAGED_VERSION,
        Kind.STAGED_UNIT,
        Kind.STAGED_SAVED,
    }
)
CONTROL_FILES = frozenset({Kind.SERVICE_FILE, Kind.JOB_FILE, Kind.VERSION_FILE})
SEALED = frozenset({Kind.VERSION, Kind.UNIT, Kind.SAVED, Kind.IMAGE, Kind.SUMS})
OF_A_VERSION = SEALED | {Kind.VERSION_CTL, Kind.VERSION_FILE}
STAGED = frozenset(
    {Kind.STAGING, Kind.STAGED_VERSION, Kind.STAGED_UNIT, Kind.STAGED_SAVED, Kind.STAGED_FILE}
)
