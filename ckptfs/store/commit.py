"""The commit: packs sealed → page table, manifest → head.  Blocking; runs in a worker thread.

The head is the commit point.  Whatever fails before it leaves garbage that is
removed at once, or by the next opening of the store when this process dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import CkptfsError, Degraded
from ..ids import UnitName, Version
from ..model import FileEntry, Head
from . import layout
from .claims import Claims
from .heads import encode_head
from .manifest import encode_manifest
from .packs import PackSet, failure_of
from .pages import HASH_SIZE
from .sessions import Session, end_session
from .stream import StoredFile
from .syscalls import Syscalls, is_full, write_durably
from .volume import LocalVolume


class Committer:
    """Makes one version durable, or as if it had never been."""

    def __init__(
        self,
        volume: LocalVolume,
        calls: Syscalls,
        *,
        key: Ed25519PrivateKey,
        packs: PackSet,
        session: Session,
        clock: Callable[[], int],
        degrade: Callable[[str], None],
        claims: Claims,
    ) -> None:
        self.known_packs: Sequence[str] = ()  # set by the hashing thread before the first page
        self.parent: Version | None = None  # likewise
        self._volume, self._calls, self._key = volume, calls, key
        self._packs, self._session = packs, session
        self._clock, self._degrade = clock, degrade
        self._claims = claims
        self._manifest = ""

    def commit(self, head: Head, stored: Sequence[StoredFile], drained: threading.Event) -> Head:
        """Return the head, filled in and durable.

        Raises StoreFull, Degraded, and what the threads met.
        """
        drained.wait()
        try:
            if self._packs.failure is not None:
                raise self._packs.failure
            manifest_id, written = self._keep_manifest(stored)
            filled = self._fill(head, stored, manifest_id, written + self._packs.written_bytes)
        except OSError as error:
            self.forget(drained)
            raise failure_of(error) from error
        except BaseException:
            self.forget(drained)
            raise
        self._keep_head(filled, drained)
        with contextlib.suppress(OSError):
            end_session(self._volume.directory, self._calls, self._session.session_id)
        return filled

    def forget(self, drained: threading.Event) -> None:
        """Remove everything this version wrote.  Never raises; what resists is garbage."""
        drained.wait()
        self._packs.discard()
        for kind in ("manifests", "tables"):
            if self._manifest:
                with contextlib.suppress(OSError):
                    self._volume.delete(kind, self._manifest)
        with contextlib.suppress(OSError):
            end_session(self._volume.directory, self._calls, self._session.session_id)

    def _keep_manifest(self, stored: Sequence[StoredFile]) -> tuple[str, int]:
        packs = dict(enumerate(self.known_packs))
        packs |= {pack.number: pack.pack_id for pack in self._packs.packs}
        manifest_id, body, table = encode_manifest(stored, packs)
        self._claims.claim(self._session.session_id, manifest_id)
        if not self._volume.has("manifests", manifest_id):
            self._manifest = manifest_id  # ours to remove; an equal version before us keeps its own
        self._twice(lambda: self._volume.put_pieces("tables", manifest_id, table()))
        self._twice(lambda: self._volume.put("manifests", manifest_id, body))
        table_bytes = sum(len(file.places) for file in stored) * HASH_SIZE
        return manifest_id, len(body) + table_bytes

    def _fill(self, head: Head, stored: Sequence[StoredFile], manifest: str, written: int) -> Head:
        files = tuple(
            FileEntry(UnitName(f.unit), f.name, f.size_bytes, f.whole.hex(), f"{manifest}:{index}")
            for index, f in enumerate(stored)
        )
        return dataclasses.replace(
            head,
            files=files,
            logical_bytes=sum(file.size_bytes for file in files),
            stored_bytes=written,
            committed_ns=head.committed_ns or self._clock(),
            epoch=self._session.epoch,
            parent=self.parent,
        )

    def _keep_head(self, head: Head, drained: threading.Event) -> None:
        path = self._volume.directory / layout.head_path(head.job, head.version)
        document = encode_head(head, self._key)
        try:
            self._twice(lambda: self._write_head(path, document))
        except (OSError, CkptfsError) as error:
            if self._take_back(path):
                self.forget(drained)
            raise (failure_of(error) if isinstance(error, OSError) else error) from error

    def _write_head(self, path: Path, document: bytes) -> None:
        self._volume.make_room(path)
        write_durably(self._calls, path, document)

    def _take_back(self, path: Path) -> bool:
        """Make sure the head is not there.  False: a crash may bring it back, keep its bytes."""
        try:
            self._calls.unlink(path)
            if path.parent.is_dir():
                self._calls.fsync_directory(path.parent)
        except OSError as error:
            self._degrade(f"a head could neither be kept nor taken back: {error.strerror}")
            return False
        return True

    def _twice(self, step: Callable[[], None]) -> None:
        """Do a durable step; once more, with a new file, if the disk fails.  Raises Degraded."""
        try:
            step()
        except OSError as first:
            if is_full(first):
                raise
            try:
                step()
            except OSError as second:
                if is_full(second):
                    raise
                self._degrade(f"the disk failed twice to keep a document: {second.strerror}")
                raise Degraded(
                    f"the store is read-only: the disk does not keep what is written: {second}"
                ) from first
