"""What the coordinator sees of the collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..store.trash import Trashed


@dataclass(slots=True)
class Report:
    """What a sweep did.  *doubt*: why it did not go on; *waiting*: objects set aside, not yet
    unlinked because a version begun before is still being written; *doubts*: volume to why nothing
    was removed from it.
    """

    freed_bytes: int = 0
    objects: int = 0
    waiting: int = 0
    restored: int = 0
    doubt: str = ""
    copies: int = 0  # removed from volumes
    doubts: Mapping[str, str] = field(default_factory=dict[str, str])


class Sweeper(Protocol):
    """Takes away what no version needs."""

    async def plan(self, *, empty_trash: bool) -> tuple[Sequence[tuple[Trashed, str]], int]:
        """Return (the trash with why each goes, "" for what stays; bytes that nobody needs now).

        Changes nothing.  Raises CkptfsError, OSError when in doubt.
        """
        ...

    async def plan_volumes(self) -> Sequence[str]:
        """Return what would happen on each volume, one line each.  Changes nothing."""
        ...

    async def run(
        self, *, asked: bool, empty_trash: bool, tell: Callable[[int, int], None]
    ) -> Report:
        """Collect once; *tell* gets (done, all) of the objects.  Raises nothing.

        *asked*: by somebody, so that a clock that jumped is believed from the next time on.
        """
        ...
