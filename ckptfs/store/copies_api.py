"""What the rest of ckptfs sees of the volumes that take copies.  `store.copies.Copies` is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import NotFound, Unsupported
from ..ids import JobId, Version
from .copies_plan import Key
from .copies_record import PLAIN

Pace = Callable[[int], Awaitable[None]]  # bytes about to be copied; returns when they may be


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """One row of ``ctl/volumes``; sizes in bytes, *reason* a sentence when it is not up."""

    name: str
    state: str
    domain: str
    used_bytes: int
    free_bytes: int
    directory: str
    reason: str = ""
    seal: str = PLAIN  # how copies lie there: plain, compress, encrypt
    plain_bytes: int = 0  # of a sealed volume: what *used_bytes* holds unsealed


def nobody() -> None:
    """Nobody waits to be told."""


class CopiesPort(Protocol):
    """The volumes of one store beside the local one.  Trio thread only."""

    local_domain: str
    trouble: str  # sentence, or nothing
    unfinished: bool  # whether the last round has left something that can be done now
    locked: frozenset[str]  # sentences: what was not copied for want of a key
    wanted: Callable[[], None]  # called when a round should begin soon; set by who has them begin

    def rows(self) -> Sequence[VolumeStatus]:
        """Return what is known of each volume; asks none."""
        ...

    def domains(self) -> int:
        """Return in how many failure domains copies can be, the store's own included."""
        ...

    def count(self, job: JobId, version: Version) -> int:
        """Return how many verified copies a version has, as of the last round."""
        ...

    def mended(self) -> int:
        """Return how many objects of the store were mended since it was opened."""
        ...

    def expect(self, keys: Iterable[Key]) -> None:
        """Be told of versions with neither a head nor a place in the trash.

        Those that did not go for good are lost: nothing is collected until each is back, and
        volumes are asked for them in each round.  Raises OSError.
        """
        ...

    def lost(self) -> Sequence[Key]:
        """Return the versions whose heads are lost and not back yet."""
        ...

    async def add(self, directory: str, domain: str = "", seal: str = PLAIN) -> str:
        """Take a directory as a volume; return its name.  *seal*: plain, compress or encrypt.

        Raises InvalidInput, NotADirectory, NotEmpty, Busy (another store's), CannotRun, Exists,
        TimedOut, StoreFull, OSError.
        """
        ...

    def set_draining(self, name: str, on: bool) -> None:
        """Have a volume's copies moved elsewhere, or use it again.  Raises NotFound, StoreFull."""
        ...

    async def remove(self, name: str, levels: Mapping[JobId, int]) -> None:
        """Let a volume go; nothing on it is deleted.  Raises NotFound, Busy while it is needed."""
        ...

    async def round(self, levels: Mapping[JobId, int], pace: Pace) -> bool:
        """Look at every volume, mend the store, copy what is missing; whether anything changed."""
        ...

    async def scrub(
        self, name: str, pace: Pace, *, since_ns: int, clock_ns: Callable[[], int]
    ) -> tuple[int, int]:
        """Read what copies on a volume were not read since *since_ns*; return (read, damaged)."""
        ...

    async def scrub_packs(self, pace: Pace, cursor: str, note: Callable[[str, bool], bool]) -> None:
        """Prove every byte of the store's own packs that come after *cursor* by name.

        *note* is told of each (name, whether it is good) and returns whether to go on; a bad one
        goes to quarantine, and is fetched back from a volume in the next round.  Raises Degraded
        (the packs cannot be listed), and what the two raise.
        """
        ...


class NoCopies:
    """A store without volumes."""

    local_domain = "local"
    trouble = ""
    unfinished = False
    locked: frozenset[str] = frozenset()
    _lost: Sequence[Key] = ()

    def __init__(self) -> None:
        self.wanted: Callable[[], None] = nobody

    def rows(self) -> Sequence[VolumeStatus]:
        """See CopiesPort."""
        return ()

    def domains(self) -> int:
        """See CopiesPort."""
        return 1

    def count(self, job: JobId, version: Version) -> int:
        """See CopiesPort."""
        return 1

    def mended(self) -> int:
        """See CopiesPort."""
        return 0

    def expect(self, keys: Iterable[Key]) -> None:
        """See CopiesPort."""
        self._lost = sorted(keys)

    def lost(self) -> Sequence[Key]:
        """See CopiesPort."""
        return self._lost

    async def add(self, directory: str, domain: str = "", seal: str = PLAIN) -> str:
        """See CopiesPort."""
        raise Unsupported("this store takes no volumes")

    def set_draining(self, name: str, on: bool) -> None:
        """See CopiesPort."""
        raise NotFound(f"no volume is called {name!r}")

    async def remove(self, name: str, levels: Mapping[JobId, int]) -> None:
        """See CopiesPort."""
        raise NotFound(f"no volume is called {name!r}")

    async def round(self, levels: Mapping[JobId, int], pace: Pace) -> bool:
        """See CopiesPort."""
        return False

    async def scrub(
        self, name: str, pace: Pace, *, since_ns: int, clock_ns: Callable[[], int]
    ) -> tuple[int, int]:
        """See CopiesPort."""
        return 0, 0

    async def scrub_packs(self, pace: Pace, cursor: str, note: Callable[[str, bool], bool]) -> None:
        """See CopiesPort."""
