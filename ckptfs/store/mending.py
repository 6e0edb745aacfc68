"""Mending the store from copies: a good block for a reader now, the object itself later."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..errors import CkptfsError, KeyMissing
from ..ids import JobId, Version
from ..model import Head
from .attached import Attached, Hold, held_up, hurry
from .blocks import BlockLoader, PackFile, PackFiles, PackSource
from .copies_plan import Piece
from .copy_volume import piece_path, split_head
from .damage import DamageBook
from .manifest import Manifest, ManifestFile, decode_manifest
from .receiving import Step, keep_document
from .syscalls import Syscalls
from .versions import Versions

log = logging.getLogger(__name__)
RESCUE_S = 5.0  # for a block that a reader waits for
DOCUMENT_S = 2.0  # for a manifest; readers wait for it in a thread
HEAD_S = 3.0  # for a head, of however many volumes; whoever wants it waits inside a system call
MEND_S = 120.0  # for one object


class Patchwork:
    """Packs for one block: this store's where they are sound, volumes' where they are not."""

    def __init__(self, here: PackFiles, elsewhere: Mapping[str, PackSource]) -> None:
        self._here, self._elsewhere = here, elsewhere

    def get(self, pack_id: str) -> PackFile:
        """Return an open pack.  Raises Corrupt."""
        return self._elsewhere.get(pack_id, self._here).get(pack_id)

    def drop(self, pack_id: str) -> None:
        """Have the next use prove the pack again."""
        self._elsewhere.get(pack_id, self._here).drop(pack_id)


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
        locked: Callable[[str, KeyMissing], None] = lambda _what, _error: None,
    ) -> None:
        self._directory, self._calls, self._locked = directory, calls, locked
        self._versions, self._damage, self._packs, self._loader = versions, damage, packs, loader
        self._volumes = volumes
        self.broken: set[Piece] = set()  # to be fetched back
        self.mended = 0  # objects, since the store was opened
        loader.rescue = self._rescue
        versions.rescue = self._rescue_manifest
        versions.rescue_head = self._rescue_head

    async def mend(self, piece: Piece, hold: Hold) -> None:
        """Fetch a damaged object of the store back from a volume that holds a proved copy."""
        for name, attached in sorted(self._volumes().items()):
            if not attached.readable or piece not in attached.held:
                continue

            def fetch(step: Step, source: Attached = attached) -> None:
                self._fetch(source, piece, step)

            try:
                await held_up(MEND_S, attached.turn, fetch, name, hold)
            except (CkptfsError, OSError) as error:
                log.warning("%s %s could not be mended from %s: %s", *_words(piece), name, error)
                if isinstance(error, KeyMissing):
                    self._locked(f"damage cannot be mended from volume {name}", error)
                continue
            self.broken.discard(piece)
            self.mended += 1
            if piece.kind == "heads":
                self._versions.take_back(*split_head(piece.name))
            log.info("%s %s was mended from volume %s", *_words(piece), name)
            return

    def _fetch(self, attached: Attached, piece: Piece, step: Step) -> None:
        """Worker thread."""
        target = piece_path(self._directory, piece)
        self._calls.mkdir(target.parent)
        self._calls.fsync_directory(target.parent.parent)
        if piece.kind == "packs":
            attached.volume.deliver(piece, target, step)
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
        """Return a good block, its bad packs replaced by those of volumes; None when there is none.

        Each bad pack may come from another volume.  Reading threads.
        """
        suspects = self._loader.suspects(manifest, file, block)
        for pack in suspects:
            self._damage.quarantine(pack)
            self.broken.add(Piece("packs", pack))
        found: dict[str, PackSource] = {}
        for attached in self._readable():
            if missing := [pack for pack in suspects if pack not in found]:
                source = Patchwork(self._packs, found | dict.fromkeys(missing, attached.packs))
                probe = partial(BlockLoader(source).suspects, manifest, file, block)
                with contextlib.suppress(CkptfsError, OSError):
                    still_bad = hurry(RESCUE_S, probe)
                    found |= {pack: attached.packs for pack in missing if pack not in still_bad}
        patched = BlockLoader(Patchwork(self._packs, found))
        with contextlib.suppress(CkptfsError, OSError):
            return hurry(RESCUE_S, partial(patched.load, manifest, file, block))
        return None

    def _readable(self) -> list[Attached]:
        """Those that may be asked, those that have never returned wrong bytes first."""
        readable = [attached for attached in self._volumes().values() if attached.readable]
        return sorted(readable, key=lambda attached: not attached.answers)

    def _rescue_head(self, job: JobId, version: Version) -> Head | None:
        """Return a head from a volume, None when none has it.  Worker threads.

        The store's own is fetched back by the next round, which `Versions.head` has asked for.
        """
        piece, until_s = Piece("heads", f"{job}@{version}"), time.monotonic() + HEAD_S
        for attached in self._readable():
            left_s = min(DOCUMENT_S, until_s - time.monotonic())
            if piece in attached.held and left_s > 0:
                with contextlib.suppress(CkptfsError, OSError):
                    document = hurry(left_s, partial(attached.volume.fetch, piece))
                    return self._versions.prove(document, job, version)
        return None

    def _rescue_manifest(self, manifest_id: str) -> Manifest | None:
        """Return a manifest from a volume, None when none has it.  Worker threads."""
        piece = Piece("manifests", manifest_id)
        self.broken.add(piece)
        for attached in self._readable():
            if piece in attached.held:
                with contextlib.suppress(CkptfsError, OSError):
                    document = hurry(DOCUMENT_S, partial(attached.volume.fetch, piece))
                    return decode_manifest(manifest_id, document)
        return None


def _words(piece: Piece) -> tuple[str, str]:
    return piece.kind.removesuffix("s"), piece.name
