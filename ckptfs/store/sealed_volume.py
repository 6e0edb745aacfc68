"""A volume for copies whose objects are compressed or encrypted before they leave this machine.

Names, places and the order of things are those of a plain volume, so listing, counting, deleting
and proving a copy against its checksum need no key.  ``keys/`` holds the documents of the keys
that its objects are sealed with, wrapped: with one of them and what opens it (a passphrase, the
private key of a certificate) the copies can be read on any machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import CkptfsError, Corrupt, NotFound
from . import sealing
from .blocks import PackFiles
from .copies_plan import Piece
from .copies_record import ENCRYPT
from .copy_volume import CopyVolume, Listing, piece_path
from .key_documents import DOCUMENT_MAX as KEY_MAX
from .key_documents import WRAPS_MAX, KeyDocument, decode_key, encode_key
from .keyring import KeyRing
from .receiving import (
    DOCUMENT_MAX,
    SYNC_EVERY,
    Step,
    go_on,
    land,
    prove_pack,
    prove_pack_bytes,
    read_part,
    write_filled,
)
from .sealed_file import SealedFile, new_header, open_sealed, prove_sealed, write_sealed
from .sealed_packs import SealedPackFiles
from .syscalls import Syscalls, write_durably
from .volume import Kind

KEYS = "keys"
HEADERS_S = 1.0  # of a listing, which has 8 s; some 50 000 headers on a disk nearby


class SealedVolume(CopyVolume):
    """See the top of this file; *seal*: compress or encrypt, which compresses too."""

    def __init__(
        self, directory: Path, calls: Syscalls, domain: str, seal: str, keys: KeyRing
    ) -> None:
        super().__init__(directory, calls, domain, seal)
        self._seal_calls, self._keys = calls, keys
        self._plain_sizes: dict[Piece, int] = {}
        self._laid: dict[str, KeyDocument] = {}  # keys that are known to lie there so

    # -- taking copies -----------------------------------------------------------

    def receive(self, source: Path, piece: Piece, step: Step = go_on, owner: str = "") -> int:
        """See CopyVolume; *owner*: with whose key.  Raises KeyMissing too: nothing was written."""
        key_id, key = self._key_for(owner)
        target = piece_path(self.directory, piece)
        self.make_room(target)
        try:
            fd = self._seal_calls.open_read(source)
        except FileNotFoundError:
            raise NotFound(f"{source.name} is missing") from None
        try:
            size = os.fstat(fd).st_size  # not of the path: a sparse pack may lie there by now
            read = partial(read_part, self._seal_calls, fd)
            header = new_header(piece.kind, piece.name, size, read, key_id=key_id)
            prove = partial(self._prove_content, piece, read, size, step)
            write = partial(self._write_object, read, header, key, step)
            return land(self._seal_calls, target, write, prove)
        finally:
            self._seal_calls.close(fd)

    def put(self, kind: Kind, name: str, data: bytes, owner: str = "") -> None:
        """See Volume; *owner*: with whose key.  Raises KeyMissing too."""
        key_id, key = self._key_for(owner)
        path = self.path(kind, name)
        self.make_room(path)

        def read(offset: int, size: int) -> bytes:
            return data[offset : offset + size]

        header = new_header(kind, name, len(data), read, key_id=key_id)
        write = partial(self._write_object, read, header, key, go_on)
        piece = Piece(kind, name)
        land(
            self._seal_calls,
            path,
            write,
            lambda temporary: self._prove_same(piece, read, len(data), temporary),
        )

    def _key_for(self, owner: str) -> tuple[str, bytes | None]:
        if self.seal != ENCRYPT:
            return "", None
        key_id, key = self._keys.sealing(owner)
        self._lay_key(key_id)
        return key_id, key

    def check(self, store_id: str) -> str:
        """See CopyVolume; keys that were wrapped for more openers since are laid there anew."""
        volume_id = super().check(store_id)
        for entry in self._seal_calls.scan(self.directory / KEYS):
            key_id = entry.name.removesuffix(".json")
            with contextlib.suppress(CkptfsError, OSError):  # not ours; or it takes nothing now
                self._lay_key(self._keys.document(key_id).key_id)
        return volume_id

    def _lay_key(self, key_id: str) -> None:
        """Have the wrapped key lie beside the copies before the first of them does.

        A wrap that lies there already stays: somebody may count on it.
        """
        mine = self._keys.document(key_id).without_store()
        if self._laid.get(key_id) == mine:
            return
        path, document = self.directory / KEYS / f"{key_id}.json", mine
        with contextlib.suppress(FileNotFoundError, Corrupt):
            there = decode_key(self._seal_calls.read_file(path, KEY_MAX + 1), str(path))
            more = [wrap for wrap in there.without_store().wraps if wrap not in mine.wraps]
            document = replace(mine, wraps=(*mine.wraps, *more)[:WRAPS_MAX])
            if document == there:
                self._laid[key_id] = mine
                return
        self.make_room(path)
        write_durably(self._seal_calls, path, encode_key(document))
        self._laid[key_id] = mine

    def _write_object(
        self,
        read: Callable[[int, int], bytes],
        header: sealing.Header,
        key: bytes | None,
        step: Step,
        fd: int,
    ) -> int:
        synced = 0

        def write(data: bytes, offset: int) -> None:
            nonlocal synced
            self._seal_calls.pwrite(fd, data, offset)
            if offset - synced > SYNC_EVERY:
                self._seal_calls.fdatasync(fd)
                synced = offset

        return write_sealed(write, read, header, key, step)

    def _prove_content(
        self,
        piece: Piece,
        read: Callable[[int, int], bytes],
        size: int,
        step: Step,
        temporary: Path,
    ) -> None:
        """Unseal what was written: a pack proves itself, anything else is compared."""
        if piece.kind != "packs":
            self._prove_same(piece, read, size, temporary)
            return
        prove_sealed(self._seal_calls, temporary, piece.kind, piece.name, step)
        with self._unsealed(piece, temporary) as file:
            prove_pack_bytes(file.read, file.header.plain_size, piece.name, step)

    def _prove_same(
        self, piece: Piece, read: Callable[[int, int], bytes], size: int, temporary: Path
    ) -> None:
        prove_sealed(self._seal_calls, temporary, piece.kind, piece.name)
        with self._unsealed(piece, temporary) as file:
            if file.header.plain_size != size or file.read(0, size) != read(0, size):
                raise Corrupt(f"{temporary} reads back other bytes than were written")

    # -- reading -----------------------------------------------------------------

    @contextlib.contextmanager
    def _unsealed(self, piece: Piece, path: Path | None = None) -> Generator[SealedFile]:
        fd, file = open_sealed(
            self._seal_calls, path or piece_path(self.directory, piece), piece.kind, piece.name
        )
        try:
            file.unlock(self._keys.open)
            yield file
        finally:
            self._seal_calls.close(fd)

    def get(self, kind: Kind, name: str, limit: int) -> bytes:
        """See Volume.  Raises Corrupt and KeyMissing too."""
        with self._unsealed(Piece(kind, name), self.path(kind, name)) as file:
            return file.read(0, limit)

    def size(self, kind: Kind, name: str) -> int:
        """See Volume: of the object itself, not of what it takes here.  Raises Corrupt too."""
        return self._plain_size(Piece(kind, name), self.path(kind, name))

    def fetch(self, piece: Piece) -> bytes:
        """See CopyVolume.  Raises Corrupt and KeyMissing too."""
        with self._unsealed(piece) as file:
            return file.read(0, DOCUMENT_MAX)

    def deliver(self, piece: Piece, target: Path, step: Step = go_on) -> int:
        """See CopyVolume.  Raises KeyMissing too."""
        with self._unsealed(piece) as file:
            size = file.header.plain_size

            def write(fd: int) -> int:
                for at in range(0, size, sealing.FRAME):
                    step(min(sealing.FRAME, size - at))
                    frame = memoryview(file.read(at, sealing.FRAME))
                    write_filled(self._seal_calls, fd, frame, at)
                return size

            return land(
                self._seal_calls,
                target,
                write,
                lambda temporary: prove_pack(self._seal_calls, temporary, piece.name, step),
            )

    def prove(self, piece: Piece, step: Step = go_on) -> None:
        """See CopyVolume: any object, against the checksum of its sealed bytes."""
        path = piece_path(self.directory, piece)
        prove_sealed(self._seal_calls, path, piece.kind, piece.name, step)

    def pack_files(self) -> PackFiles:
        """See CopyVolume."""
        return SealedPackFiles(self, self._seal_calls, self._keys.open)

    def listing(self) -> Listing:
        """See CopyVolume; with the bytes that the objects have unsealed.

        That is in their headers, of which so many are read as HEADERS_S allows; the other objects
        are taken to be like these until a later listing.
        """
        found = super().listing()
        sizes = {p: size for p, size in self._plain_sizes.items() if p in found.held}
        end_s = time.monotonic() + HEADERS_S
        for piece in found.held - sizes.keys():
            with contextlib.suppress(Corrupt, NotFound):
                sizes[piece] = self._plain_size(piece, piece_path(self.directory, piece))
            if time.monotonic() > end_s:
                break
        self._plain_sizes = sizes
        stored, plain = sum(self._copy_sizes.get(p, 0) for p in sizes), sum(sizes.values())
        estimate = plain * found.used_bytes // stored if stored else 0
        return replace(found, plain_bytes=estimate)

    def _plain_size(self, piece: Piece, path: Path) -> int:
        if (size := self._plain_sizes.get(piece)) is not None:
            return size
        try:
            head = self._seal_calls.read_file(path, sealing.HEADER_SIZE)
        except FileNotFoundError:
            raise NotFound(f"{piece.name} is not among the {piece.kind}") from None
        return sealing.decode_header(head, f"the copy of {piece.name}").plain_size
