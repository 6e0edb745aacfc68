"""Carrying out one move of the plan: an object to a volume, held up or given up at any MiB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import trio

from ..errors import CkptfsError, Corrupt, KeyMissing, NotFound
from .attached import Attached, Hold, held_up
from .copies_plan import Move, Piece
from .copy_volume import piece_path, split_head
from .damage import DamageBook
from .receiving import Step, prove_pack
from .syscalls import Syscalls
from .versions import Versions

COPY_S = 30.0  # for one object, and on top:
COPY_BYTES_PER_S = 4 << 20


class Copier:
    """Copies objects of the store to volumes.

    *failed* is told of a volume's failure, *broken* takes originals that do not prove themselves.
    """

    def __init__(
        self,
        directory: Path,
        calls: Syscalls,
        *,
        versions: Versions,
        damage: DamageBook,
        volumes: Callable[[], Mapping[str, Attached]],
        failed: Callable[[str, Exception], None],
        broken: set[Piece],
    ) -> None:
        self._directory, self._calls = directory, calls
        self._versions, self._damage = versions, damage
        self._volumes, self._failed, self._broken = volumes, failed, broken

    async def carry_out(self, move: Move, hold: Hold, owner: str = "") -> bool:
        """Copy one object; False when the volume can take no more for now.

        *owner*: whose key seals it.  Raises KeyMissing: nothing was done.
        """
        attached = self._volumes()[move.volume]
        source = piece_path(self._directory, move.piece)

        def copy(step: Step) -> int:
            self.prove_document(move.piece)
            return attached.volume.receive(source, move.piece, step, owner)

        size = 0
        try:
            size = source.stat().st_size
            seconds = COPY_S + size / COPY_BYTES_PER_S
            stored = await held_up(seconds, attached.turn, copy, move.volume, hold)
        except KeyMissing:
            raise
        except (NotFound, FileNotFoundError):
            if source.exists():
                self._failed(move.volume, NotFound("the volume vanished"))
                return False
            return True  # collected meanwhile, or missing: found by whoever reads it
        except Corrupt as error:
            return await self._judge(move, error)
        except (CkptfsError, OSError) as error:
            attached.wanted_bytes = size
            self._failed(move.volume, error)
            return False
        attached.bad.discard(move.piece)
        attached.listing = replace(
            attached.listing,
            held=attached.listing.held | {move.piece},
            used_bytes=attached.listing.used_bytes + stored,
            free_bytes=max(0, attached.listing.free_bytes - stored),
            plain_bytes=attached.listing.plain_bytes + size,
        )
        return True

    def prove_document(self, piece: Piece) -> None:
        """Prove a head or manifest of the store itself.  Worker thread.  Raises Corrupt."""
        if piece.kind == "heads":
            self._versions.load_head(*split_head(piece.name))
        elif piece.kind == "manifests":
            self._versions.read_manifest(piece.name)

    async def _judge(self, move: Move, error: Corrupt) -> bool:
        """Tell a damaged original from a volume that does not keep what it is given."""
        if move.piece.kind == "packs":
            path = piece_path(self._directory, move.piece)
            try:
                await trio.to_thread.run_sync(prove_pack, self._calls, path, move.piece.name)
            except (Corrupt, NotFound, OSError):
                self._damage.quarantine(move.piece.name)
                self._broken.add(move.piece)
                return True
        elif move.piece.kind in {"heads", "manifests"}:
            try:
                await trio.to_thread.run_sync(self.prove_document, move.piece)
            except CkptfsError:
                self._broken.add(move.piece)
                return True
        self._failed(move.volume, error)
        return False
