"""What the coordinator sees of the collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from ..store.trash import Trashed

Pace = Callable[[int], Awaitable[None]]  # bytes about to be moved; returns when they may be


async def at_once(_size: int) -> None:
    """Let everything be moved as fast as it goes."""
    await trio.lowlevel.checkpoint()


@dataclass(slots=True)
class Report:
    """What a sweep did.  *doubt*: why it did not go on; *waiting*: objects set aside, not yet
    unlinked because a version begun before is still being written; *doubts*: volume to why nothing
    was removed from it; *packs*: written anew without their dead pages, which freed *packs_bytes*
    of *freed_bytes*; *left*: pack to why it was not; *unfinished*: another run goes on with them.
    """

    freed_bytes: int = 0
    objects: int = 0
    waiting: int = 0
    restored: int = 0
    doubt: str = ""
    copies: int = 0  # removed from volumes
    doubts: Mapping[str, str] = field(default_factory=dict[str, str])
    packs: int = 0
    packs_bytes: int = 0
    left: Mapping[str, str] = field(default_factory=dict[str, str])
    unfinished: bool = False


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

    async def plan_packs(self, *, empty_trash: bool) -> Sequence[str]:
        """Return a line per pack that would be written anew without its dead pages, and why.

        Changes nothing.  Raises CkptfsError, OSError when in doubt.
        """
        ...

    async def run(
        self,
        *,
        asked: bool,
        empty_trash: bool,
        tell: Callable[[int, int], None],
        pace: Pace = at_once,
    ) -> Report:
        """Collect once; *tell* gets (done, all) of the objects.  Raises nothing.

        *asked*: by somebody, so that a clock that jumped is believed from the next time on.
        *pace*: awaited before each MiB of a pack that is read or written anew.
        """
        ...
