"""Which object should be copied to which volume, and how many copies a version has.  Pure.

A version's copy counts when one volume holds all of its objects, and only one per failure domain
counts.  What is missing is ordered by version: those with the fewest copies first, among them
those whose objects most other versions need too, then the newest of a job; of one version packs
first and the head last, so that a volume that holds a head holds the version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..ids import JobId, Version

PieceKind = Literal["packs", "manifests", "tables", "heads"]
RANK: Mapping[str, int] = {"packs": 0, "manifests": 1, "tables": 2, "heads": 3}
Key = tuple[JobId, Version]


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """An object that is copied.  *name*: its id, or ``<job>@<version>`` for a head."""

    kind: PieceKind
    name: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What a volume is known to hold, proved when it was received."""

    domain: str
    held: frozenset[Piece]
    takes: bool  # new copies
    stays: bool  # False: being drained, so its copies will not last


@dataclass(frozen=True, slots=True)
class Move:
    """One object to copy to one volume."""

    piece: Piece
    volume: str


Needs = Mapping[Key, frozenset[Piece]]


def domains_of(
    pieces: frozenset[Piece], holdings: Mapping[str, Holding], *, lasting: bool
) -> set[str]:
    """Return the failure domains that hold all *pieces*; *lasting*: not those being drained."""
    return {
        holding.domain
        for holding in holdings.values()
        if (holding.stays or not lasting) and pieces <= holding.held
    }


def count_copies(
    pieces: frozenset[Piece], holdings: Mapping[str, Holding], local_domain: str, *, is_sound: bool
) -> int:
    """Return in how many failure domains a version is whole; *is_sound*: in the store itself."""
    here = {local_domain} if is_sound else set[str]()
    return len(domains_of(pieces, holdings, lasting=False) | here)


def plan_moves(
    needs: Needs,
    levels: Mapping[JobId, int],
    holdings: Mapping[str, Holding],
    local_domain: str,
    shut: Mapping[Key, frozenset[str]] | None = None,
) -> list[Move]:
    """Return what to copy, most urgent first; *shut*: volumes that a version cannot go to."""
    affected = Counter(piece for pieces in needs.values() for piece in pieces)
    ranked: list[tuple[int, int, JobId, int, Key]] = []
    for key, pieces in needs.items():
        copies = 1 + len(domains_of(pieces, holdings, lasting=True) - {local_domain})
        if copies < levels.get(key[0], 1):
            most = max(affected[piece] for piece in pieces)
            ranked.append((copies, -most, key[0], -key[1], key))
    moves: dict[Move, None] = {}
    for copies, _, _, _, key in sorted(ranked):
        wanted = levels[key[0]] - copies
        barred = shut.get(key, frozenset[str]()) if shut else frozenset[str]()
        for volume in _targets(needs[key], holdings, local_domain, barred)[:wanted]:
            missing = needs[key] - holdings[volume].held
            for piece in sorted(missing, key=lambda piece: (RANK[piece.kind], piece.name)):
                moves[Move(piece, volume)] = None
    return list(moves)


def _targets(
    pieces: frozenset[Piece],
    holdings: Mapping[str, Holding],
    local_domain: str,
    barred: frozenset[str],
) -> list[str]:
    """Return one volume for each further domain, those that lack least first."""
    taken = {local_domain} | domains_of(pieces, holdings, lasting=True)
    found: list[str] = []
    for volume in sorted(holdings, key=lambda name: (len(pieces - holdings[name].held), name)):
        holding = holdings[volume]
        if holding.takes and holding.domain not in taken and volume not in barred:
            taken.add(holding.domain)
            found.append(volume)
    return found


def needed_elsewhere(
    name: str,
    needs: Needs,
    levels: Mapping[JobId, int],
    holdings: Mapping[str, Holding],
    local_domain: str,
) -> Iterator[Key]:
    """Yield the versions that would fall below their level without the volume *name*."""
    others = {volume: holding for volume, holding in holdings.items() if volume != name}
    for key, pieces in needs.items():
        copies = 1 + len(domains_of(pieces, others, lasting=True) - {local_domain})
        holds = pieces <= holdings[name].held
        if holds and copies < levels.get(key[0], 1):
            yield key
