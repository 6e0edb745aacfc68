"""Reading the store's packs from end to end: also bytes that no block of a version covers.

Reading versions proves blocks.  What lies behind the end of a file in its last page, and pages that
no version needs any more, are bytes of a pack as well, and a later version may come to share such a
page.  So the scrub of the store ends with its packs, held against their own checksums; a bad one
counts as a hit no more, and is fetched back from a volume.  They are read in the order of their
names, and the last one read is the cursor.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .attached import Hold
from .copies_plan import Piece
from .copies_proof import CopyProver
from .damage import DamageBook
from .packs import failure_of
from .volume import LocalVolume


class PacksScrub:
    """The packs of one store.  Trio thread only."""

    def __init__(self, volume: LocalVolume, *, prover: CopyProver, damage: DamageBook) -> None:
        self._volume, self._prover, self._damage = volume, prover, damage

    async def run(self, hold: Hold, cursor: str, note: Callable[[str, bool], bool]) -> None:
        """Prove the packs behind *cursor*; *note* is told of each and whether it is good.

        It returns whether to go on.  One that is known to be damaged is passed over.
        Raises Degraded (the packs cannot be listed), and what *hold* and *note* raise.
        """
        try:
            names = await trio.to_thread.run_sync(lambda: sorted(self._volume.names("packs")))
        except OSError as error:
            raise failure_of(error) from error
        for name in names:
            if name > cursor and self._damage.is_sound(name):
                is_good = await self._prover.prove_here(Piece("packs", name), hold, may_go=True)
                if not note(name, is_good):
                    return
