"""The data keys of a store: ``keys/owners/<id>.json``, root's alone, each wrapped.

``keys/wrapping.key`` opens the store's own wrap of each, so the service seals and reads copies
with nobody there to ask.  That protects no more than the images do that lie in the clear beside
it; what leaves the machine has the other wraps only.  Whoever has the directory's files may change
them while the service runs: it looks again whenever the directory changed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import CkptfsError, Corrupt, Exists, InvalidInput, KeyMissing, NotFound
from . import layout
from .key_documents import (
    DOCUMENT_MAX,
    WRAPS_MAX,
    KeyDocument,
    check_id,
    check_owner,
    decode_key,
    encode_key,
)
from .key_wrapping import STORE, Wrap, id_of, new_key, unwrap_from_store, wrap_for_store
from .syscalls import Syscalls, write_durably

OWNERS = "owners"
WRAPPING = "wrapping.key"
SECRET_SIZE = 32
SETTLED_NS = 10**8  # two changes within a tick of the kernel's clock bear the same time
Wrapper = Callable[[bytes], Wrap]  # data key → wrapped


class KeyRing:
    """See the top of this file.  Thread safe; everything blocks for a moment."""

    def __init__(self, store: Path, calls: Syscalls) -> None:
        self._keys, self._calls = store / layout.KEYS, calls
        self._directory = self._keys / OWNERS
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()  # of the directory, when it was read
        self._documents: dict[str, KeyDocument] = {}
        self._troubles: list[str] = []
        self._opened: dict[str, bytes] = {}

    # -- what there is -----------------------------------------------------------

    def documents(self) -> Sequence[KeyDocument]:
        """Return the documents, by owner, those in use first.  Raises OSError."""
        with self._lock:
            self._look()
            found = list(self._documents.values())
        return sorted(found, key=lambda d: (d.owner, not d.is_active, -d.created_ns))

    def troubles(self) -> Sequence[str]:
        """Return one sentence for each document that cannot be read.  Raises OSError."""
        with self._lock:
            self._look()
            return list(self._troubles)

    def _look(self) -> None:
        try:
            status = self._directory.stat()
        except FileNotFoundError:
            self._seen, self._documents, self._troubles, self._opened = (), {}, [], {}
            return
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return
        documents: dict[str, KeyDocument] = {}
        troubles: list[str] = []
        for entry in self._calls.scan(self._directory):
            if entry.name.startswith(".") or not entry.name.endswith(".json"):
                continue
            try:
                read = decode_key(
                    self._calls.read_file(Path(entry.path), DOCUMENT_MAX + 1), entry.path
                )
                if entry.name != f"{read.key_id}.json":
                    raise Corrupt(f"{entry.path} is the document of another key")
                documents[read.key_id] = read
            except CkptfsError as error:
                troubles.append(str(error))
        self._documents, self._troubles, self._opened = documents, troubles, {}
        is_settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
        self._seen = seen if is_settled else ()

    def document(self, key_id: str) -> KeyDocument:
        """Return one document.  Raises KeyMissing, OSError."""
        with self._lock:
            self._look()
            try:
                return self._documents[key_id]
            except KeyError:
                raise KeyMissing(f"key {key_id} is not here; see: ckptfs key import") from None

    def find(self, word: str) -> KeyDocument:
        """Return the key of that id, or the one in use of that owner.  Raises NotFound, OSError."""
        for document in self.documents():
            if word == document.key_id or (word == document.owner and document.is_active):
                return document
        raise NotFound(f"{word} has no key; see: ckptfs key ls")

    def open(self, key_id: str) -> bytes:
        """Return a data key.

        Raises KeyMissing (not here, or this store cannot open it), OSError.
        """
        document = self.document(key_id)
        with self._lock:
            if key_id in self._opened:
                return self._opened[key_id]
        for wrap in document.wraps:
            if wrap["kind"] == STORE:
                try:
                    key = unwrap_from_store(wrap, key_id, self._secret())
                except CkptfsError as error:
                    raise KeyMissing(f"{error}; see: ckptfs key import") from error
                with self._lock:
                    self._opened[key_id] = key
                return key
        raise KeyMissing(f"this store cannot open key {key_id}; see: ckptfs key import")

    def sealing(self, owner: str) -> tuple[str, bytes]:
        """Return (id, data key) that new copies of *owner*'s versions are sealed with.

        Raises KeyMissing: none, or one that nobody outside this store could open again.
        """
        for document in self.documents():
            if document.owner == owner and document.is_active and document.openers():
                return document.key_id, self.open(document.key_id)
        command = f"sudo ckptfs key create {owner} --passphrase --store {self._keys.parent}"
        raise KeyMissing(f"user {owner} has no key: {command}")

    def _secret(self) -> bytes:
        try:
            secret = bytes.fromhex(self._calls.read_file(self._keys / WRAPPING, 1 << 10).decode())
        except (FileNotFoundError, ValueError):
            raise Corrupt("keys/wrapping.key of the store is missing or damaged") from None
        if len(secret) != SECRET_SIZE:
            raise Corrupt("keys/wrapping.key of the store is missing or damaged")
        return secret

    # -- changes -----------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other processes from changing keys meanwhile."""
        self._calls.mkdir(self._directory)
        self._calls.fsync_directory(self._keys)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not (self._keys / WRAPPING).exists():
                text = secrets.token_hex(SECRET_SIZE).encode()
                write_durably(self._calls, self._keys / WRAPPING, text, mode=0o600)
            yield
        finally:
            os.close(fd)

    def _write(self, document: KeyDocument) -> None:
        place = self._directory / f"{document.key_id}.json"
        write_durably(self._calls, place, encode_key(document), mode=0o600)
        with self._lock:
            self._seen = ()

    def create(self, owner: str, wrappers: Sequence[Wrapper], *, replacing: bool) -> KeyDocument:
        """Make a key for *owner*; with *replacing* the old one is for reading only from then on.

        Raises InvalidInput (nobody could open it but this store), Exists, OSError.
        """
        check_owner(owner)
        if not wrappers:
            raise InvalidInput("a key that only this store can open is lost with it: say for whom")
        with self._alone():
            old = [d for d in self.documents() if d.owner == owner and d.is_active]
            if old and not replacing:
                raise Exists(f"{owner} has key {old[0].key_id}: --replace makes another")
            key = new_key()
            made = KeyDocument(id_of(key), owner, time.time_ns(), True, ())
            made = replace(made, wraps=tuple(wrap(key) for wrap in wrappers))
            self._write(made.with_store(wrap_for_store(key, self._secret())))
            for document in old:
                self._write(replace(document, is_active=False))
        return made

    def add_wrap(self, key_id: str, wrapper: Wrapper) -> KeyDocument:
        """Wrap a key for one more.  Raises KeyMissing, InvalidInput (too many), OSError."""
        with self._alone():
            document = self.document(key_id)
            if len(document.wraps) >= WRAPS_MAX:
                raise InvalidInput(f"a key is wrapped for at most {WRAPS_MAX}")
            added = replace(document, wraps=(*document.wraps, wrapper(self.open(key_id))))
            self._write(added)
        return added

    def take_in(self, data: bytes, opener: Callable[[KeyDocument], bytes]) -> KeyDocument:
        """Take a key in from its document; *opener* returns the data key, or raises.

        It is used for new copies when its owner has no other.  Raises Corrupt, OSError.
        """
        document = decode_key(data, "the file")
        check_id(document.key_id)
        key = opener(document)
        with self._alone():
            known = {d.key_id: d for d in self.documents()}
            mine = known.pop(document.key_id, document)
            is_first = not any(d.owner == mine.owner and d.is_active for d in known.values())
            new = [wrap for wrap in document.without_store().wraps if wrap not in mine.wraps]
            taken = replace(mine, is_active=is_first, wraps=(*mine.wraps, *new)[:WRAPS_MAX])
            taken = taken.with_store(wrap_for_store(key, self._secret()))
            self._write(taken)
        return taken
