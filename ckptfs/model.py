"""What the parts of ckptfs tell each other: frozen records, no behaviour.  Pure.

Times are seconds since the epoch (``_s``, float) or nanoseconds (``_ns``, int);
sizes are bytes.
"""

from __future__ import annotations

import enum
import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field

from .ids import JobId, UnitName, Version


class Purpose(enum.StrEnum):
    """Why a version was taken; the collector's rules depend on it."""

    FAULT_TOLERANCE = "fault_tolerance"
    MIGRATION = "migration"
    SUSPEND = "suspend"
    USER = "user"


class Initiator(enum.StrEnum):
    """Who asked for a version."""

    USER = "user"
    SYSTEM = "system"


class SpaceClass(enum.StrEnum):
    """Who pays for a version: its owner, or the system that took it for its own ends."""

    USER = "user"
    SYSTEM = "system"


class Protocol(enum.StrEnum):
    """How the units of a job are checkpointed together."""

    COORDINATED = "coordinated"
    INDEPENDENT = "independent"


class JobState(enum.StrEnum):
    """Where a job stands; the value is the word ``ctl/state`` prints."""

    PENDING = "pending"
    RUNNING = "running"
    CHECKPOINTING = "checkpointing"
    RESTARTING = "restarting"
    MIGRATING = "migrating"
    SUSPENDED = "suspended"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a control file.  Rights are those of the opener, not of the writer."""

    uid: int
    gid: int
    pid: int = 0
    groups: frozenset[int] = frozenset()  # supplementary


@dataclass(frozen=True, slots=True)
class Owner:
    """The local account a job runs as, and the user's global id."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary, without gid
    user: str  # global user id; on one machine the login name, or "uid:<n>"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a job asks of its checkpoints (JSDL ``JobCheckpointing``)."""

    initiator: Initiator = Initiator.USER
    protocol: Protocol = Protocol.COORDINATED
    keep_last: int = 0  # restartable versions; 0 keeps all
    rollback: str = "truncate"  # "truncate" or "copy": how output files go back at a restart
    requires: tuple[str, ...] = ()  # capability words the checkpointer must have
    replication: int = 1  # copies in as many failure domains
    min_level: int = 1  # of them before a checkpoint is called complete
    keep_within_s: int = 0  # all that are younger
    keep_every_s: int = 0  # the newest of each such period
    keep_user_bytes: int = 0  # space that the user provides for versions of theirs; 0: not said
    space_path: str = ""  # a directory on the disk that the space is on


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job as submitted.  Paths are absolute; text comes from users and is hostile.

    *stdin* is a path or "/dev/null"; *stdout*/*stderr* are files opened in
    append mode by the job's owner, "" means a file in the job's log directory.
    *limits*: rlimit name without RLIM prefix in lower case (``nofile``) → value.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    owner: Owner
    stdin: str = "/dev/null"
    stdout: str = ""
    stderr: str = ""
    umask: int = 0o022
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    wall_time_s: int = 0  # 0: unlimited
    policy: Policy = Policy()
    jsdl: str = ""  # the document as submitted, kept for ctl/jsdl


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that a frozen unit has open for writing (or mapped shared and writable)."""

    path: str
    device: int
    inode: int
    size_bytes: int
    position: int
    flags: int  # of open(2)
    mode: int
    uid: int
    gid: int
    pid: int  # in the unit's pid namespace
    fd: int  # -1 for a mapping
    copy: str = ""  # name below files/ in the unit's image when saved whole, else ""
    # What stood before size_bytes, to tell the file's content of then from that of another run;
    # "": not known, because the file is not written at its end (or the record is older).
    tail_bytes: int = 0
    tail_hash: str = ""  # hex


LOGS = "logs"  # the fact: where default logs are, as the unit sees them


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What one unit's ``unit.cpx`` holds; a restart compares it before it touches anything."""

    unit: UnitName
    node: str
    translib: str
    facts: Mapping[str, str]  # kernel, architecture, criu_version, boot_id, cpu features ...
    pids: tuple[int, ...]  # in the unit's pid namespace, sorted
    uids: tuple[int, ...]  # every real uid found in the unit, sorted
    files: tuple[OpenFile, ...]

    @property
    def logs(self) -> str:
        """The directory that the image names default logs in, "" when it names none of them."""
        logs = self.facts.get(LOGS, "")
        return logs if any(os.path.dirname(file.path) == logs for file in self.files) else ""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a committed version.  *manifest* is its id in the store; hashes are hex."""

    unit: UnitName  # "" for job.cpx
    name: str  # relative to the unit's directory, may hold one "files/" level
    size_bytes: int
    blake3: str
    manifest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The commit record of one version: small, immutable, signed, written last."""

    job: JobId
    version: Version
    owner: Owner
    committed_ns: int
    purpose: Purpose
    initiator: Initiator
    protocol: Protocol
    files: tuple[FileEntry, ...]
    logical_bytes: int
    stored_bytes: int  # new bytes this version put into packs
    frozen_usec: int  # first freeze to the order to thaw, as known at commit
    note: str = ""
    keep: bool = False
    epoch: int = 0  # of the store when the version was begun; the collector's fence
    parent: Version | None = None  # newest version the page table was compared with
