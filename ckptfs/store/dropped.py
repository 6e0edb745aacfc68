"""Versions that went for good while not everybody could be told of it: their names stay a while.

    trash/gone.<job>@<version>     a head nobody reads any more; the name is what counts

On a full disk neither the catalog's row of a removed version can be struck nor `gone.json` be
written.  Were its head just unlinked, then a service that is killed before it could catch up
would leave a row without a head, which is what a lost version looks like, or a copy on a volume
that nobody knows to be removed.  A rename needs no space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import NotFound
from ..ids import parse_job_id, parse_version
from . import layout
from .copies_plan import Key
from .syscalls import Syscalls

PREFIX = "gone."


def is_dropped(name: str) -> bool:
    """Whether an entry of ``trash/`` is such a name.  Pure."""
    return name.startswith(PREFIX)


def dropped_path(directory: Path, key: Key) -> Path:
    """Return where the name of a version stays in the store in *directory*.  Pure."""
    return directory / layout.TRASH / f"{PREFIX}{key[0]}@{key[1]}"


def dropped_versions(directory: Path, calls: Syscalls) -> Iterator[Key]:
    """Yield the versions whose names are kept.  Raises OSError."""
    for entry in calls.scan(directory / layout.TRASH):
        if is_dropped(entry.name):
            job, _, version = entry.name.removeprefix(PREFIX).rpartition("@")
            with contextlib.suppress(NotFound):  # nobody's version
                yield parse_job_id(job), parse_version(version)


def forget_names(directory: Path, calls: Syscalls, keys: Iterable[Key]) -> None:
    """Let names go: everybody knows by now.  May be cut off and repeated.  Raises OSError."""
    gone = list(keys)
    for key in gone:
        calls.unlink(dropped_path(directory, key))
    if gone:
        calls.fsync_directory(directory / layout.TRASH)
