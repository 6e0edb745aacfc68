"""What `ckptfs repair` does on volumes: damaged copies are set aside, so that they are made anew.

A copy is set aside only when the store's own object proves itself, and it is moved, not removed:
what is left of it may be all there is.  Many damaged copies on one volume mean a failing disk,
and then moving things about on it helps nobody.  Blocking; with the store's lock held.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CkptfsError, KeyMissing
from .attached import sentence_of
from .copies_plan import RANK, Piece
from .copies_proof import prove_at
from .copies_scrub import FOUND_MAX
from .copy_volume import piece_path, split_head
from .offline_volumes import Seen
from .receiving import go_on, prove_pack
from .superblock import Superblock
from .syscalls import Syscalls
from .versions import Versions

Say = Callable[[str], None]


class VolumeRepair:
    """The volumes of one store.  *fixed* and *lost* are told one sentence each."""

    def __init__(
        self, block: Superblock, calls: Syscalls, *, versions: Versions, fixed: Say, lost: Say
    ) -> None:
        self._directory, self._calls, self._versions = block.directory, calls, versions
        self._fixed, self._lost = fixed, lost

    def run(self, seen: Seen, progress: Callable[[float], None]) -> None:
        """Prove every copy on one volume; set damaged ones aside."""
        name, damaged = seen.record.name, 0
        pieces = sorted(seen.listing.held, key=lambda piece: (RANK[piece.kind], piece.name))
        for number, piece in enumerate(pieces):
            progress(number / len(pieces))
            if damaged >= FOUND_MAX:
                self._lost(
                    f"volume {name}: {damaged} damaged copies; its disk may be failing, so the "
                    "rest was left alone"
                )
                return
            try:
                prove_at(seen.volume, piece, self._versions)
            except KeyMissing:
                continue  # its sealed bytes prove themselves
            except (CkptfsError, OSError) as error:
                damaged += 1
                self._mend(seen, piece, sentence_of(error))

    def _mend(self, seen: Seen, piece: Piece, reason: str) -> None:
        what = f"volume {seen.record.name}: {piece.kind.removesuffix('s')} {piece.name}"
        if trouble := self._trouble_here(piece):
            self._lost(f"{what} is damaged ({reason}), and so is the store's own: {trouble}")
            return
        try:
            seen.volume.set_aside(piece)
        except OSError as error:
            self._lost(f"{what} is damaged and cannot be set aside: {sentence_of(error)}")
        else:
            self._fixed(f"{what} was damaged ({reason}): set aside, the service copies it anew")

    def _trouble_here(self, piece: Piece) -> str:
        """Return what is wrong with an object of the store itself, or nothing."""
        try:
            if piece.kind == "packs":
                prove_pack(self._calls, piece_path(self._directory, piece), piece.name, go_on)
            elif piece.kind == "heads":
                self._versions.load_head(*split_head(piece.name))
            else:  # a page table is made again of what its manifest names
                self._versions.read_manifest(piece.name)
        except (CkptfsError, OSError) as error:
            return sentence_of(error)
        return ""
