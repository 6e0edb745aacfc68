"""The collector on the volumes: each is listed, marked against, cleaned; one in doubt stays as is.

The order is that of the store's own sweep, inventory first and roots afterwards.  No fence and no
grace are needed: a version being written refers to the store's objects, never to a copy, and a copy
that is removed leaves the inventory first, so at worst it is made again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import trio

from ..errors import CkptfsError, TryAgain
from ..store.cleaning import Dead, Rest
from ..store.copies import Copies
from ..store.copies_plan import Key, Piece
from ..store.copy_volume import Listing, split_head
from ..store.garbage import Garbage
from ..store.roots import Roots

log = logging.getLogger(__name__)
TRIES = 3  # as in the store's own sweep
NAMED_MAX = 3
WRITABLE = frozenset({"up", "full", "draining"})


@dataclass(slots=True)
class CopiesReport:
    """What came of the volumes.  *doubts*: volume to why nothing of it was removed."""

    freed_bytes: int = 0
    objects: int = 0
    doubts: dict[str, str] = field(default_factory=dict[str, str])
    unknown: dict[str, int] = field(default_factory=dict[str, int])  # volume → versions kept


class CopySweep:
    """The collector of one store's volumes."""

    def __init__(
        self, garbage: Garbage, copies: Copies, sentence: Callable[[CkptfsError | OSError], str]
    ) -> None:
        self._garbage, self._copies, self._sentence = garbage, copies, sentence

    def remember(self, going: Collection[Key]) -> bool:
        """Note, durably, which versions are about to go: their copies may go too, then.

        False on a full disk: nothing is noted, and their copies stay until it is.
        """
        if going and self._copies.rows():
            try:
                self._copies.gone.add(going)
            except OSError as error:
                log.warning("copies of %d removed versions stay for now: %s", len(going), error)
                return False
        return True

    async def run(self) -> CopiesReport:
        """Clean every volume.  Raises nothing for a volume in doubt."""
        report = CopiesReport()
        left: dict[str, frozenset[Piece]] = {}
        for name in self._writable():
            try:
                listing, dead = await self._find(name)
                report.freed_bytes += await self._copies.cleaner.remove(name, listing, dead)
            except (CkptfsError, OSError) as error:
                report.doubts[name] = self._sentence(error)
                log.warning("nothing is removed from volume %s: %s", name, report.doubts[name])
                continue
            left[name] = listing.held - frozenset(dead.pieces)
            report.objects += len(dead.pieces)
            if dead.unknown:
                report.unknown[name] = len(dead.unknown)
                log.warning("volume %s holds versions not known here: %s", name, dead.unknown[:9])
        self._prune(left)
        return report

    async def plan(self) -> list[str]:
        """Return one line per volume; changes nothing."""
        lines: list[str] = []
        for name in self._writable():
            try:
                _, dead = await self._find(name)
            except (CkptfsError, OSError) as error:
                lines.append(f"volume {name}: nothing goes: {self._sentence(error)}")
                continue
            lines.append(f"volume {name}: {len(dead.pieces)} copies are needed by no version")
            if dead.unknown:
                names = " ".join(f"{job}/{number}" for job, number in dead.unknown[:NAMED_MAX])
                more = f" and {len(dead.unknown) - NAMED_MAX} more"
                more = more if len(dead.unknown) > NAMED_MAX else ""
                lines.append(f"volume {name}: stays: {names}{more}: not known to this store")
        return lines

    def _writable(self) -> list[str]:
        """Those that can be cleaned; what is wrong with the others is said elsewhere."""
        return [row.name for row in self._copies.rows() if row.state in WRITABLE]

    async def _find(self, name: str) -> tuple[Listing, Dead]:
        listing = await self._copies.cleaner.inspect(name)
        rest = await self._rest()
        return listing, await self._copies.cleaner.find(name, listing, rest)

    async def _rest(self) -> Rest:
        for _ in range(TRIES):
            roots = self._garbage.roots()
            try:
                live = await trio.to_thread.run_sync(self._garbage.mark, roots)
            except TryAgain:
                continue
            return Rest(live, _heads(roots), self._copies.gone.versions)
        raise TryAgain("versions come and go too fast to be marked; it is tried again later")

    def _prune(self, left: Mapping[str, frozenset[Piece]]) -> None:
        """Forget what no volume holds any more, once all of them have said so."""
        gone = self._copies.gone.versions
        back = gone & _heads(self._garbage.roots())
        done = frozenset[Key]()
        if set(left) == {row.name for row in self._copies.rows()}:
            pieces = frozenset[Piece]().union(*left.values())
            held = {split_head(piece.name) for piece in pieces if piece.kind == "heads"}
            done = gone - held
        if back or done:
            try:
                self._copies.gone.forget(back | done)
            except OSError as error:
                log.warning("the record of removed versions stays as it is: %s", error)


def _heads(roots: Roots) -> frozenset[Key]:
    return frozenset(roots.heads) | {(entry.job, entry.version) for entry in roots.trash}
