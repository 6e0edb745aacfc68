"""What the store's directories name at this moment: heads, and what lies in the trash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import Corrupt, NotFound
from ..ids import JobId, Version, parse_job_id
from . import layout
from .leftovers import Leftovers, is_temporary
from .syscalls import Syscalls
from .trash import Trashed


@dataclass(frozen=True, slots=True)
class Named:
    """All heads there are, as of one moment."""

    heads: frozenset[tuple[JobId, Version]]
    trash: tuple[Trashed, ...]


def heads_on_disk(
    directory: Path, calls: Syscalls, leftovers: Leftovers
) -> Iterator[tuple[JobId, Version]]:
    """Yield every head of the store in *directory*; temporary files are noted in *leftovers*.

    Any thread.  Raises Corrupt on what does not belong there, OSError.
    """
    heads = directory / layout.HEADS
    if not heads.is_dir():
        raise Corrupt("heads/ is missing")
    for place in calls.scan(heads):
        try:
            job = parse_job_id(place.name)
        except NotFound:
            raise Corrupt(f"heads/{place.name} does not belong there") from None
        for entry in calls.scan(Path(place.path)):
            stem, dot, _ = entry.name.partition(".")
            version = layout.head_version(stem)
            if version is not None and not dot:
                yield job, version
            elif is_temporary(entry.name):
                leftovers.note(Path(entry.path))
            elif version is None:
                raise Corrupt(f"heads/{job}/{entry.name} does not belong there")
