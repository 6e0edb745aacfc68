"""Which pages of which packs are alive: those that a manifest names which some root names.

Pure but for the manifests that are read.  A page that is dead stays dead: a version being written
can hit pages of one manifest alone, which is a root from its begin on, and of its own packs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .index import PACK_PAGES
from .manifest import PART, Manifest

TOGETHER = 256  # packs looked at with one pass over the manifests: 16 MiB of flags

Flags = npt.NDArray[np.bool_]  # one row per pack, one flag per page number
PacksIn = Callable[[str], Sequence[str]]  # manifest → the packs that it names


def batches(
    packs: Collection[str], manifests: Iterable[str], packs_in: PacksIn
) -> Iterator[list[str]]:
    """Yield *packs*, those that one manifest names side by side; some that none names are left."""
    left, batch = set(packs), list[str]()
    for manifest in manifests:
        for name in packs_in(manifest):
            if name in left:
                left.discard(name)
                batch.append(name)
                if len(batch) == TOGETHER:
                    yield batch
                    batch = []
    if batch:
        yield batch


def live_pages(
    packs: Sequence[str],
    manifests: Iterable[str],
    packs_in: PacksIn,
    read: Callable[[str], Manifest],
) -> tuple[Flags, int]:
    """Return (which pages of *packs* are alive, how many pages of manifests were gone through).

    The header page always is.  Raises what the two callables raise: then nothing is known.
    """
    flags: Flags = np.zeros((len(packs), PACK_PAGES), dtype=np.bool_)
    flags[:, 0] = True
    rows = {name: row for row, name in enumerate(packs)}
    seen = 0
    for manifest_id in manifests:
        if not rows.keys().isdisjoint(packs_in(manifest_id)):
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
