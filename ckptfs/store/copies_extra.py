"""Copies beyond the level that was asked for: which they are (pure), and letting them go.

A copy is extra when its version has all its copies without it, so on a volume being drained each
becomes one as soon as the version is kept elsewhere.  Every object of it is removed only
after the same object was read from the disk and proved at every place that keeps it: here, and on
the volumes that stay.  A volume on which a version lies that is not committed here is left alone;
that is the collector's to judge.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from ..errors import CkptfsError
from ..ids import JobId
from .attached import Attached, Hold, within
from .cleaning import forget
from .copies_plan import RANK, Holding, Key, Needs, Piece
from .copies_proof import CopyProver
from .copy_volume import split_head

log = logging.getLogger(__name__)
DISCARD_S = 30.0


@dataclass(frozen=True, slots=True)
class Extra:
    """One version's copy that is too many on a volume, and which volumes keep its objects."""

    volume: str
    key: Key
    pieces: tuple[Piece, ...]  # heads first; what another version keeps there is not among them
    survivors: Mapping[Piece, tuple[str, ...]]  # of each, also those of other versions


def keepers_of(
    key: Key,
    pieces: frozenset[Piece],
    levels: Mapping[JobId, int],
    holdings: Mapping[str, Holding],
    local_domain: str,
) -> frozenset[str] | None:
    """Return the volumes that keep their copy of a version, None: all, as it has none too many."""
    level = levels.get(key[0])
    if level is None:
        return None
    domains: dict[str, str] = {}
    for name, holding in sorted(holdings.items()):
        is_whole = holding.stays and pieces <= holding.held
        if is_whole and holding.domain != local_domain and len(domains) < level - 1:
            domains.setdefault(holding.domain, name)
    return frozenset(domains.values()) if len(domains) >= level - 1 else None


def plan_extra(
    needs: Needs,
    levels: Mapping[JobId, int],
    holdings: Mapping[str, Holding],
    local_domain: str,
    writable: Collection[str],
    drained: Collection[str] = (),
) -> list[Extra]:
    """Return what may go, by volume.

    *writable*: volumes from which something can be removed; *drained*: those that are let go, so
    everything on them is too much once it is elsewhere.
    """
    keepers = {
        key: keepers_of(key, pieces, levels, holdings, local_domain)
        for key, pieces in needs.items()
    }
    survivors: dict[Piece, set[str]] = {}
    for key, stay in keepers.items():
        for piece in needs[key]:
            survivors.setdefault(piece, set()).update(stay or ())
    found: list[Extra] = []
    for name in sorted(writable):
        holding = holdings[name]
        heads = {split_head(piece.name) for piece in holding.held if piece.kind == "heads"}
        if not (holding.stays or name in drained) or heads - needs.keys():
            continue
        kept = frozenset[Piece]().union(
            *(needs[key] for key, stay in keepers.items() if stay is None or name in stay)
        )
        for key, stay in keepers.items():
            pieces = (needs[key] & holding.held) - kept
            if stay is not None and pieces:
                kept |= pieces  # once
                ordered = sorted(pieces, key=lambda piece: (-RANK[piece.kind], piece.name))
                places = {piece: tuple(sorted(survivors[piece])) for piece in ordered}
                found.append(Extra(name, key, tuple(ordered), places))
    return found


def drain_text(
    name: str,
    needs: Needs,
    levels: Mapping[JobId, int],
    holdings: Mapping[str, Holding],
    local_domain: str,
    trashed: Mapping[Key, int],
) -> str:
    """Return how far the draining of a volume is, for people.  Pure.

    *trashed*: removed versions that can be brought back, with when they expire, seconds since the
    epoch.
    """
    held = holdings[name].held
    here = {key: pieces for key, pieces in needs.items() if not pieces.isdisjoint(held)}
    waiting = [
        key
        for key, pieces in here.items()
        if keepers_of(key, pieces, levels, holdings, local_domain) is None
    ]
    if waiting:
        return f"{len(waiting)} of {len(here)} versions there are to be copied elsewhere first"
    heads = {split_head(piece.name) for piece in held if piece.kind == "heads"}
    if others := heads - needs.keys():
        return _what_holds(others, trashed)
    if here:
        return f"{len(here)} versions are kept elsewhere, and are being removed there"
    if held:
        return f"{len(held)} objects there are of no version: the next collection removes them"
    return f"empty: ckptfs volume rm {name} lets it go"


def _what_holds(others: Collection[Key], trashed: Mapping[Key, int]) -> str:
    """Return why nothing is removed from a volume on which *others* lie, and what ends that."""
    if unknown := [key for key in others if key not in trashed]:
        job, version = min(unknown)
        return (
            f"{_versions(len(unknown))} there not known to this store, first version {version} of "
            f"{job}: nothing is removed while they are there; ckptfs volume rm leaves them there"
        )
    until = datetime.fromtimestamp(max(trashed[key] for key in others), UTC)
    return (
        f"{_versions(len(others))} there in the trash: nothing is removed before that is over, "
        f"{until:%Y-%m-%dT%H:%M:%SZ} at the latest, or at once with ckptfs gc --empty-trash"
    )


def _versions(count: int) -> str:
    return "1 version is" if count == 1 else f"{count} versions are"


class Trimmer:
    """Lets extra copies go.  *failed* is told of a volume's failure."""

    def __init__(
        self,
        *,
        prover: CopyProver,
        volumes: Callable[[], Mapping[str, Attached]],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._prover, self._volumes, self._failed = prover, volumes, failed

    async def trim(self, extras: list[Extra], hold: Hold, seconds: float) -> bool:
        """Remove extra copies for about so long; False when some are left for the next time.

        One whose survivors do not all prove themselves stays.
        """
        end_s = trio.current_time() + seconds
        proved: set[tuple[str, Piece]] = set()
        for extra in extras:
            if trio.current_time() > end_s:
                return False
            if not await self._prove(extra, proved, hold):
                return True  # what is known has changed: planned anew in the next round
            await self._discard(extra)
        return True

    async def _prove(self, extra: Extra, proved: set[tuple[str, Piece]], hold: Hold) -> bool:
        for piece in extra.pieces:
            for place in ("", *extra.survivors[piece]):
                if (place, piece) in proved:
                    continue
                try:
                    if not await self._prove_at(place, piece, hold):
                        return False
                except (CkptfsError, OSError):
                    return False  # the volume fails, and that is noted
                proved.add((place, piece))
        return True

    async def _prove_at(self, place: str, piece: Piece, hold: Hold) -> bool:
        if not place:
            return await self._prover.prove_here(piece, hold)
        return await self._prover.prove_copy(place, piece, hold)

    async def _discard(self, extra: Extra) -> None:
        attached = self._volumes().get(extra.volume)
        if attached is None:
            return
        forget(attached, extra.pieces)

        def discard() -> None:
            for piece in extra.pieces:
                attached.volume.discard(piece)

        try:
            await within(DISCARD_S, attached.turn, discard, extra.volume)
        except (CkptfsError, OSError) as error:
            self._failed(extra.volume, error)
            return
        log.info("volume %s: the copy of %s %d was one too many", extra.volume, *extra.key)
