"""Mending the store from copies: a good block for a reader now, the object itself later."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..errors import CkptfsError
from .attached import Attached, hurry, within
from .blocks import BlockLoader, PackFiles
from .copies_plan import Piece
from .copy_volume import piece_path, split_head
from .damage import DamageBook
from .manifest import Manifest, ManifestFile, decode_manifest
from .receiving import keep_document
from .syscalls import Syscalls
from .versions import Versions

log = logging.getLogger(__name__)
RESCUE_S = 5.0  # for a reader that waits for a good block
DOCUMENT_S = 1.0  # for a manifest, which a reader on the trio thread waits for
MEND_S = 120.0  # for one object


class Mender:
    """What of the store itself is broken, and how it is made good."""

    def __init__(
        self,
        directory: Path,
        calls: Syscalls,
        *,
        versions: Versions,
        damage: DamageBook,
        packs: PackFiles,
        loader: BlockLoader,
        volumes: Callable[[], Mapping[str, Attached]],
    ) -> None:
        self._directory, self._calls = directory, calls
        self._versions, self._damage, self._packs, self._loader = versions, damage, packs, loader
        self._volumes = volumes
        self.broken: set[Piece] = set()  # to be fetched back
        self.mended = 0  # objects, since the store was opened
        loader.rescue = self._rescue
        versions.rescue = self._rescue_manifest

    async def mend(self, piece: Piece) -> None:
        """Fetch a damaged object of the store back from a volume that holds a proved copy."""
        for name, attached in sorted(self._volumes().items()):
            if not attached.answers or piece not in attached.listing.held:
                continue
            try:
                await within(MEND_S, attached.turn, partial(self._fetch, attached, piece), name)
            except (CkptfsError, OSError) as error:
                log.warning("%s %s could not be mended from %s: %s", *_words(piece), name, error)
                continue
            self.broken.discard(piece)
            self.mended += 1
            log.info("%s %s was mended from volume %s", *_words(piece), name)
            return

    def _fetch(self, attached: Attached, piece: Piece) -> None:
        """Worker thread."""
        target = piece_path(self._directory, piece)
        self._calls.mkdir(target.parent)
        if piece.kind == "packs":
            attached.volume.deliver(piece, target)
            self._packs.drop(piece.name)
            self._damage.release(piece.name)
            return
        document = attached.volume.fetch(piece)
        if piece.kind == "heads":
            self._versions.prove(document, *split_head(piece.name))
        elif piece.kind == "manifests":
            decode_manifest(piece.name, document)
        keep_document(self._calls, document, target)

    def _rescue(self, manifest: Manifest, file: ManifestFile, block: int) -> memoryview | None:
        """Return a good block from a volume, None when none has one.  Reading threads."""
        for pack in self._loader.suspects(manifest, file, block):
            self._damage.quarantine(pack)
            self.broken.add(Piece("packs", pack))
        for attached in list(self._volumes().values()):
            if attached.answers:
                loader = BlockLoader(attached.packs)
                with contextlib.suppress(CkptfsError, OSError):
                    return hurry(RESCUE_S, partial(loader.load, manifest, file, block))
        return None

    def _rescue_manifest(self, manifest_id: str) -> Manifest | None:
        """Return a manifest from a volume, None when none has it.  Any thread."""
        piece = Piece("manifests", manifest_id)
        self.broken.add(piece)
        for attached in list(self._volumes().values()):
            if attached.answers and piece in attached.listing.held:
                with contextlib.suppress(CkptfsError, OSError):
                    document = hurry(DOCUMENT_S, partial(attached.volume.fetch, piece))
                    return decode_manifest(manifest_id, document)
        return None


def _words(piece: Piece) -> tuple[str, str]:
    return piece.kind.removesuffix("s"), piece.name
