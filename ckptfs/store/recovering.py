"""Versions out of a volume of copies, for when the store they came from is lost.  Blocking.

Packs go as they are, proved.  A page table holds hashes keyed with a secret of the old store, so it
is made anew while every byte is read and proved, and with it the manifest that names it and the
head that names the manifest, signed by the new store.  The head is written last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import blake3

from ..errors import CkptfsError, Corrupt, StoreFull
from ..ids import JobId, Version
from ..model import Head
from . import layout
from .blocks import BlockLoader, PackFiles
from .copies_plan import Piece
from .copy_volume import CopyVolume, split_head
from .heads import encode_head, parse_head
from .manifest import Manifest, ManifestFile, decode_manifest, with_table
from .pages import PAGE, block_count, hash_pages, page_count
from .superblock import Superblock
from .syscalls import Syscalls, write_durably
from .verification import find_mismatches
from .volume import LocalVolume


class Recovery:
    """One volume's versions for one store, which nobody else has open.

    *progress* is told the share of versions that are done, 0 to 1.
    """

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        source: CopyVolume,
        progress: Callable[[float], None],
    ) -> None:
        self._block, self._calls, self._source = block, calls, source
        self._progress = progress
        self._volume = LocalVolume(block.directory, calls)
        self._packs = PackFiles(self._volume, calls)
        self._loader = BlockLoader(self._packs)
        self.recovered: list[tuple[JobId, Version]] = []
        self.lost: list[str] = []

    def run(self) -> None:
        """Bring every version that is not there yet.  Raises StoreFull, OSError."""
        held = self._source.listing().held
        keys = sorted(split_head(piece.name) for piece in held if piece.kind == "heads")
        for number, (job, version) in enumerate(keys):
            self._progress(number / len(keys))
            if self._path(job, version).exists():
                continue
            try:
                self._version(job, version)
            except StoreFull:
                raise
            except CkptfsError as error:
                self.lost.append(f"version {version} of {job}: {error}")
            else:
                self.recovered.append((job, version))
        self._packs.clear()

    def _path(self, job: JobId, version: Version) -> Path:
        return self._volume.directory / layout.head_path(job, version)

    def _version(self, job: JobId, version: Version) -> None:
        document = self._source.fetch(Piece("heads", f"{job}@{version}"))
        head = parse_head(document, job, version)
        if head.files:
            head = self._files(head)
        head = dataclasses.replace(head, epoch=self._block.epoch)
        path = self._path(job, version)
        self._volume.make_room(path)
        write_durably(self._calls, path, encode_head(head, self._block.signing_key))

    def _files(self, head: Head) -> Head:
        """Bring packs and manifest; return the head with the new manifest's name."""
        manifest_id = head.files[0].manifest.partition(":")[0]
        document = self._source.fetch(Piece("manifests", manifest_id))
        manifest = decode_manifest(manifest_id, document)
        for damage in find_mismatches(head, manifest):
            raise Corrupt(damage.reason)
        for name in manifest.packs:
            path = self._volume.path("packs", name)
            if not path.exists():
                self._volume.make_room(path)
                self._source.deliver(Piece("packs", name), path)
        table = b"".join(self._hashes(manifest, file) for file in manifest.files)
        new_id, body = with_table(document, table)
        self._volume.put("tables", new_id, table)
        self._volume.put("manifests", new_id, body)
        entries = tuple(
            dataclasses.replace(entry, manifest=f"{new_id}:{index}")
            for index, entry in enumerate(head.files)
        )
        return dataclasses.replace(head, files=entries)

    def _hashes(self, manifest: Manifest, file: ManifestFile) -> bytes:
        """Read a file whole, prove it, and hash its pages for this store.  Raises Corrupt."""
        whole, rows = blake3.blake3(), list[bytes]()
        for block in range(block_count(file.size_bytes)):
            data = self._loader.load(manifest, file, block)
            whole.update(data)
            padded = bytes(data).ljust(page_count(len(data)) * PAGE, b"\0")
            rows.append(hash_pages(padded, self._block.page_seed).tobytes())
        if whole.digest() != file.blake3:
            raise Corrupt(f"{layout.file_path(file.unit, file.name)} does not match its hash")
        return b"".join(rows)
