"""Where things lie inside a store directory, and which names may go there.  Pure.

Every path that the store touches is made here, out of checked names: no other
module joins strings that came from outside.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..errors import InvalidInput, NotFound
from ..ids import JobId, UnitName, Version, parse_job_id, parse_unit_name

FORMAT = "FORMAT"
OPEN_PACKS = "packs/open"
CONDEMNED = "packs/condemned"  # the collector's; only the place is kept
QUARANTINE = "packs/quarantine"  # one empty marker per pack that is never again used for a hit
HEADS = "heads"
TRASH = "trash"
SESSIONS = "sessions"
HEAD_INDEX = "heads.index"  # what the heads say in short; nothing depends on it
SCRUB = "scrub.json"  # how far the scrub is
KEYS = "keys"
DIRECTORIES = (
    OPEN_PACKS,
    CONDEMNED,
    QUARANTINE,
    "manifests",
    HEADS,
    TRASH,
    SESSIONS,
    KEYS,
)

FILE_NAME_MAX = 255  # bytes, as NAME_MAX of Linux
_FILE = re.compile(r"(files/)?[A-Za-z0-9_][A-Za-z0-9_.+@:=,-]{0,254}\Z")
_OBJECT = re.compile(r"[0-9a-f]{40}\Z")
_KINDS = {"packs": ("packs", ""), "manifests": ("manifests", ""), "tables": ("manifests", ".pages")}
_HEAD = re.compile(r"[1-9][0-9]{0,8}\Z")

JOB_DOCUMENT = "job.cpx"  # the only file that belongs to no unit


def check_place(unit: UnitName, name: str) -> None:
    """Raise InvalidInput unless *name* may be a file of *unit* ("" for job.cpx)."""
    if unit == "":
        if name != JOB_DOCUMENT:
            raise InvalidInput(
                f"beside the units a version holds only {JOB_DOCUMENT}, not {name!r}"
            )
        return
    parse_unit_name(unit)
    if not _FILE.match(name) or len(name.rpartition("/")[2]) > FILE_NAME_MAX:
        raise InvalidInput(f"a file of an image cannot be called {name!r}")


def file_path(unit: str, name: str) -> str:
    """Return the path of a file relative to its version's directory."""
    return f"{unit}/{name}" if unit else name


def object_path(kind: str, name: str) -> str:
    """Return the path of an object: one level of 256 directories.  Raises NotFound.

    *kind*: packs, manifests, or tables; a page table lies beside its manifest.
    """
    if not _OBJECT.match(name):
        raise NotFound(f"nothing among the {kind} is called {name!r}")
    place, suffix = _KINDS[kind]
    return f"{place}/{name[:2]}/{name}{suffix}"


def object_name(kind: str, file_name: str) -> str | None:
    """Return the id of the object of *kind* that is kept as *file_name*, or None."""
    suffix = _KINDS[kind][1]
    name = file_name.removesuffix(suffix)
    return name if file_name == name + suffix and _OBJECT.match(name) else None


def object_directory(kind: str) -> str:
    """Return the directory of all objects of a kind."""
    return _KINDS[kind][0]


def head_path(job: JobId, version: Version, suffix: str = "") -> str:
    """Return the path of a head or, with *suffix*, of a marker beside it.  Raises NotFound."""
    parse_job_id(job)
    return f"{HEADS}/{job}/{int(version)}{suffix}"


def head_version(name: str) -> Version | None:
    """Return the version a file name below heads/<job>/ stands for, None for markers and others."""
    return Version(int(name)) if _HEAD.match(name) else None


def parent(path: str) -> str:
    """Return the directory part of a store path."""
    return str(PurePosixPath(path).parent)
