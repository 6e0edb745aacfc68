"""Removing copies that no version needs from volumes; whatever is in doubt stays.

A copy is removed only from a volume that has just been listed, whose own mark says it is this
store's, and on which nothing lies that does not belong there.  A head that the store does not know
and has not removed itself protects everything it refers to: the store may be what is incomplete.
What is removed leaves the inventory first, so it never counts; a crash leaves a copy too many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import trio

from ..errors import Busy, CannotRun, CkptfsError, Corrupt, TryAgain
from ..ids import JobId, Version
from .attached import Attached, within
from .copies_plan import RANK, Key, Piece
from .copy_volume import Listing, split_head
from .manifest import manifest_packs
from .object_names import names_of
from .roots import Live
from .versions import Versions
from .volume import Kind

log = logging.getLogger(__name__)
LIST_S = 60.0
BATCH, BATCH_S = 64, 30.0
WRITABLE = frozenset({"up", "full"})
OBJECT_KINDS: tuple[Kind, ...] = ("packs", "manifests", "tables")


@dataclass(frozen=True, slots=True)
class Rest:
    """What is needed of the copies: all that *live* names, all of *heads*, nothing of *gone*."""

    live: Live
    heads: frozenset[Key]  # committed, or in the trash
    gone: frozenset[Key]  # removed for good


@dataclass(frozen=True, slots=True)
class Dead:
    """What may go from one volume, heads first, and versions that this store does not know."""

    pieces: tuple[Piece, ...]
    torn: int
    unknown: tuple[Key, ...]


def unknown_heads(held: Iterable[Piece], rest: Rest) -> list[Key]:
    """Return the versions on a volume that this store neither has nor has removed.  Pure."""
    found = {split_head(piece.name) for piece in held if piece.kind == "heads"}
    return sorted(found - rest.heads - rest.gone)


def dead_pieces(held: Iterable[Piece], rest: Rest, protected: frozenset[Piece]) -> list[Piece]:
    """Return what nothing needs, heads first: what has no head counts for nothing.  Pure."""
    gone = rest.gone - rest.heads
    free = [piece for piece in held if piece not in protected]
    dead = [piece for piece in free if piece.kind == "heads" and split_head(piece.name) in gone]
    for kind in OBJECT_KINDS:
        names = names_of([piece.name for piece in free if piece.kind == kind])
        dead += [Piece(kind, name) for name in rest.live.unneeded(kind, names)]
    return sorted(dead, key=lambda piece: (-RANK[piece.kind], piece.name))


class Cleaner:
    """The volumes of one store, cleaned one at a time.  *failed* is told of a volume's failure."""

    def __init__(
        self,
        store_id: str,
        *,
        versions: Versions,
        volumes: Callable[[], Mapping[str, Attached]],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._store_id, self._versions = store_id, versions
        self._volumes, self._failed = volumes, failed

    async def inspect(self, name: str) -> Listing:
        """Take a fresh inventory of a volume; call before the roots are taken.

        Raises Busy, TryAgain, Corrupt, CannotRun, NotFound, TimedOut, OSError: nothing may go.
        """
        attached = self._volumes()[name]
        if attached.state not in WRITABLE:
            raise TryAgain(f"it is {attached.state}: {attached.reason or 'not looked at yet'}")
        if attached.alarm:
            raise TryAgain(f"it is failing: {attached.alarm}")

        def look() -> Listing:
            if attached.volume.check(self._store_id) != attached.record.volume_id:
                raise Busy("another volume of this store is in its place")
            return attached.volume.listing()

        try:
            listing = await within(LIST_S, attached.turn, look, name)
        except (CkptfsError, OSError) as error:
            self._failed(name, error)
            raise
        attached.listing, attached.listed_s = listing, trio.current_time()
        if listing.strangers:
            raise Corrupt(f"{listing.strangers[0]} does not belong there")
        return listing

    async def find(self, name: str, listing: Listing, rest: Rest) -> Dead:
        """Return what of *listing* nothing needs; changes nothing.

        Raises Corrupt and others when a version that is not known here cannot be read.
        """
        attached = self._volumes()[name]
        unknown = unknown_heads(listing.held, rest)
        protected: set[Piece] = set()
        for key in unknown:
            call = partial(self._all_of, attached, *key)
            try:
                protected |= await within(LIST_S, attached.turn, call, name)
            except (CkptfsError, OSError) as error:
                raise CannotRun(
                    f"it holds version {key[1]} of {key[0]}, which this store does not know and "
                    f"cannot read: {error}"
                ) from error
        dead = await trio.to_thread.run_sync(dead_pieces, listing.held, rest, frozenset(protected))
        return Dead(tuple(dead), len(listing.torn), tuple(unknown))

    def _all_of(self, attached: Attached, job: JobId, version: Version) -> set[Piece]:
        """Return everything a head on the volume refers to, read from there.  Worker thread."""
        head_piece = Piece("heads", f"{job}@{version}")
        head = self._versions.prove(attached.volume.fetch(head_piece), job, version)
        found = {head_piece}
        for manifest in {file.manifest.partition(":")[0] for file in head.files}:
            body = attached.volume.fetch(Piece("manifests", manifest))
            found |= {Piece("manifests", manifest), Piece("tables", manifest)}
            found |= {Piece("packs", pack) for pack in manifest_packs(manifest, body)}
        return found

    async def remove(self, name: str, listing: Listing, dead: Dead) -> int:
        """Remove what is dead, torn, or set aside and replaced; return the bytes freed.

        Raises OSError, TimedOut.
        """
        attached = self._volumes()[name]
        volume, pieces = attached.volume, list(dead.pieces)
        if not pieces and not dead.torn and not listing.aside:
            return 0
        try:
            for at in range(0, len(pieces), BATCH):
                batch = pieces[at : at + BATCH]
                forget(attached, batch)
                discard = partial(_each, volume.discard, batch)
                await within(BATCH_S, attached.turn, discard, name)
            gone = set(pieces)
            kept = listing.held - gone - attached.bad

            def rest() -> Listing:
                volume.discard_torn(listing.torn)
                _each(volume.drop_aside, (p for p in listing.aside if p in kept or p in gone))
                return volume.listing()

            after = await within(LIST_S, attached.turn, rest, name)
        except (CkptfsError, OSError) as error:
            self._failed(name, error)
            raise
        attached.listing, attached.listed_s = after, trio.current_time()
        if pieces:
            log.info("volume %s: %d copies that no version needs were removed", name, len(pieces))
        return max(0, listing.used_bytes - after.used_bytes)


def forget(attached: Attached, pieces: Iterable[Piece]) -> None:
    """Take pieces out of a volume's inventory, before they go."""
    attached.listing = replace(attached.listing, held=attached.listing.held - frozenset(pieces))


def _each(call: Callable[[Piece], None], pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        call(piece)
