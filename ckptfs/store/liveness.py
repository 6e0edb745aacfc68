"""Which packs are named by which manifests, and which of their pages are alive.

Pure but for the manifests that are read.  Alive are the pages that a manifest names which some
root names.  A page that is dead stays dead: a version being written can hit pages of one manifest
alone, which is a root from its begin on, and of its own packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .index import PACK_PAGES
from .manifest import PART, Manifest
from .object_names import Names, firsts, joined, names_of, positions, texts_of

TOGETHER = 256  # packs looked at with one pass over the manifests: 16 MiB of flags

Flags = npt.NDArray[np.bool_]  # one row per pack, one flag per page number
PacksIn = Callable[[str], Names]  # manifest → the packs that it names


class Holders:
    """What some manifests name, both ways round: 1 M packs named twice take 32 MB.

    *packs*: all of them, sorted, each once.
    """

    def __init__(self, manifests: Iterable[str], packs_in: PacksIn) -> None:
        self.manifests = tuple(manifests)
        parts = [packs_in(manifest) for manifest in self.manifests]
        names = joined(parts)
        counts = np.fromiter(map(len, parts), dtype=np.intp, count=len(parts))
        del parts
        order = np.argsort(names, kind="stable")
        names = names[order]
        first = firsts(names)
        self.packs = names[first]
        # by pack: from where to where its manifests stand in *_numbers*, ascending
        self._bounds = np.append(np.flatnonzero(first), len(names)).astype(np.int32)
        self._numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]

    def of(self, packs: Names) -> list[str]:
        """Return the manifests that name any of *packs*, a few hundred."""
        at = positions(packs, self.packs)
        found = set[int]()
        for i in at[at >= 0].tolist():
            found.update(self._numbers[self._bounds[i] : self._bounds[i + 1]].tolist())
        return [self.manifests[number] for number in sorted(found)]

    def batches(self, packs: Names) -> Iterator[list[str]]:
        """Yield *packs*, all of them named here; those that one manifest names side by side."""
        first = self._numbers[self._bounds[positions(packs, self.packs)]]
        packs = packs[np.argsort(first, kind="stable")]
        for at in range(0, len(packs), TOGETHER):
            yield texts_of(packs[at : at + TOGETHER])


def live_pages(
    packs: Sequence[str], holders: Holders, read: Callable[[str], Manifest]
) -> tuple[Flags, int]:
    """Return (which pages of *packs* are alive, how many pages of manifests were gone through).

    The header page always is.  Raises what *read* raises: then nothing is known.
    """
    flags: Flags = np.zeros((len(packs), PACK_PAGES), dtype=np.bool_)
    flags[:, 0] = True
    rows = {name: row for row, name in enumerate(packs)}
    seen = 0
    for manifest_id in holders.of(names_of(packs)):
        manifest = read(manifest_id)
        row_of = np.array([rows.get(name, -1) for name in manifest.packs], dtype=np.int64)
        for file in manifest.files:
            seen += len(file.places)
            for at in range(0, len(file.places), PART):  # temporary arrays stay small
                part = file.places[at : at + PART].astype(np.int64)
                row = row_of[part // PACK_PAGES]  # the zero page: some pack's header, alive
                mine = row >= 0
                flags.reshape(-1)[row[mine] * PACK_PAGES + part[mine] % PACK_PAGES] = True
    return flags, seen
