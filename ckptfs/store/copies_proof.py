"""Reading objects and proving them: the store's own, and copies, which no key is needed for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial

import blake3
import trio

from ..errors import Busy, CkptfsError, Corrupt, NotFound, TimedOut
from .attached import Attached, Hold, held_up, within
from .cleaning import forget
from .copies_plan import Piece
from .copies_record import PLAIN
from .copy_volume import CopyVolume, piece_path, split_head
from .damage import DamageBook
from .manifest import decode_manifest
from .receiving import DOCUMENT_MAX, Step, go_on, prove_pack, read_past_cache
from .superblock import Superblock
from .syscalls import Syscalls
from .versions import Versions

log = logging.getLogger(__name__)
PROVE_S = 100.0  # for one object, without the time it is held up: 256 MiB at 3 MiB/s
ASIDE_S = 10.0


def prove_at(volume: CopyVolume, piece: Piece, versions: Versions, step: Step = go_on) -> None:
    """Read a copy from the disk and prove it, by itself or by what the store says.  Worker thread.

    Raises Corrupt, NotFound, OSError, and what *step* raises.
    """
    volume.prove(piece, step)
    if piece.kind not in {"heads", "tables"} or volume.seal != PLAIN:
        return  # the object has proved itself
    if piece.kind == "tables":
        try:
            versions.read_manifest(piece.name)
        except Corrupt:
            return  # nothing to prove it by: the manifest is found bad for itself
    _prove_document(piece, volume.fetch(piece), versions)


def _prove_document(piece: Piece, document: bytes, versions: Versions) -> None:
    if piece.kind == "heads":
        versions.prove(document, *split_head(piece.name))
    elif piece.kind == "tables":
        manifest = versions.read_manifest(piece.name)
        if blake3.blake3(document).hexdigest() != manifest.table_digest:
            raise Corrupt(f"the page table {piece.name} is not the one its manifest names")
    else:
        decode_manifest(piece.name, document)


class CopyProver:
    """Proves objects.  *failed* is told of a volume's failure, *broken* takes originals."""

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        *,
        versions: Versions,
        damage: DamageBook,
        volumes: Callable[[], Mapping[str, Attached]],
        failed: Callable[[str, Exception], None],
        broken: set[Piece],
    ) -> None:
        self._directory, self._calls, self._store_id = block.directory, calls, block.store_id
        self._versions, self._damage = versions, damage
        self._volumes, self._failed, self._broken = volumes, failed, broken
        self._here = trio.CapacityLimiter(1)

    async def prove_here(self, piece: Piece, hold: Hold, *, may_go: bool = False) -> bool:
        """Read an object of the store and prove it; one that is damaged will be mended.

        *may_go*: one that is gone was collected meanwhile, and a disk that is slow is no damage.
        """
        await hold(0)
        try:
            await held_up(PROVE_S, self._here, partial(self._original, piece), "local", hold)
        except (CkptfsError, OSError) as error:
            is_gone = not piece_path(self._directory, piece).exists()
            if may_go and (is_gone or isinstance(error, TimedOut)):
                log.warning("%s %s was not proved: %s", piece.kind, piece.name, error)
                return True
            log.error("%s %s of the store is damaged: %s", piece.kind, piece.name, error)
            if piece.kind == "packs":
                self._damage.quarantine(piece.name)
            if piece.kind != "tables":  # made again by `ckptfs repair`, never fetched
                self._broken.add(piece)
            return False
        return True

    def _original(self, piece: Piece, step: Step) -> None:
        """Worker thread."""
        path = piece_path(self._directory, piece)
        if piece.kind == "packs":
            prove_pack(self._calls, path, piece.name, step)
            return
        _prove_document(piece, read_past_cache(self._calls, path, DOCUMENT_MAX), self._versions)

    async def prove_copy(self, name: str, piece: Piece, hold: Hold) -> bool:
        """Read a copy and prove it; one that is damaged or gone counts no more.

        Raises CkptfsError, OSError when it is the volume that fails, which is noted then.
        """
        attached = self._volumes()[name]
        await hold(0)
        try:

            def prove(step: Step) -> None:
                prove_at(attached.volume, piece, self._versions, step)

            await held_up(PROVE_S, attached.turn, prove, name, hold)
        except TimedOut as error:
            self._failed(name, error)
            raise
        except (CkptfsError, OSError) as error:
            await self._check(name, attached)
            log.error("the copy of %s %s on %s is damaged: %s", piece.kind, piece.name, name, error)
            await self._set_aside(name, attached, piece)
            return False
        return True

    async def _check(self, name: str, attached: Attached) -> None:
        """Raise what is wrong when the volume itself is gone or another one."""
        try:
            check = partial(attached.volume.check, self._store_id)
            found = await within(ASIDE_S, attached.turn, check, name)
            if found != attached.record.volume_id:
                raise Busy("another volume of this store is in its place")
        except (CkptfsError, OSError) as error:
            self._failed(name, error)
            raise

    async def _set_aside(self, name: str, attached: Attached, piece: Piece) -> None:
        attached.bad.add(piece)
        forget(attached, [piece])
        with contextlib.suppress(CkptfsError, OSError, NotFound):  # on a read-only disk it stays
            set_aside = partial(attached.volume.set_aside, piece)
            await within(ASIDE_S, attached.turn, set_aside, name)
