"""`ckptfs key`: the keys that sealed copies are encrypted with, in the store's directory.

A service that runs sees a change at once; nothing here needs one, or disturbs it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import InvalidInput, NotAuthenticated
from ..store.key_documents import KeyDocument, encode_key
from ..store.key_wrapping import (
    PASSPHRASE,
    Wrap,
    is_for,
    load_private_key,
    unwrap_with_passphrase,
    unwrap_with_private_key,
    wrap_for_certificate,
    wrap_for_passphrase,
)
from ..store.keyring import KeyRing
from ..store.packs import failure_of
from ..store.superblock import open_superblock
from ..store.syscalls import Syscalls

Wrapper = Callable[[bytes], Wrap]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What is shown of a key."""

    key_id: str
    owner: str
    state: str  # "in use": new copies are sealed with it; "old": read only
    created_ns: int
    openers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens a wrapped key: a private key in PEM, with its password, or a passphrase."""

    private_key: bytes = b""
    passphrase: str = ""


def _row(document: KeyDocument) -> KeyRow:
    state = "in use" if document.is_active else "old"
    openers = tuple(document.openers())
    return KeyRow(document.key_id, document.owner, state, document.created_ns, openers)


def ring_of(store: Path) -> KeyRing:
    """Return the keys of a store.  Raises NotFound (no store), Corrupt, CannotRun."""
    open_superblock(store, Syscalls(), lock=False)
    return KeyRing(store, Syscalls())


def listed(store: Path) -> tuple[list[KeyRow], list[str]]:
    """Return the keys, and one sentence for each that cannot be read."""
    ring = ring_of(store)
    return [_row(document) for document in ring.documents()], list(ring.troubles())


def _wrappers(certificates: Sequence[bytes], passphrase: str) -> list[Wrapper]:
    now = datetime.datetime.now(datetime.UTC)
    made: list[Wrapper] = [partial(wrap_for_certificate, pem=pem, now=now) for pem in certificates]
    if passphrase:
        made.append(partial(wrap_for_passphrase, passphrase=passphrase))
    if not made:
        raise InvalidInput("say who may open the key: --certificate PEM or --passphrase")
    return made


def create(
    store: Path, owner: str, *, certificates: Sequence[bytes], passphrase: str, replacing: bool
) -> KeyRow:
    """Make a key for *owner*.

    Raises InvalidInput (no certificate; short passphrase), Unsupported (it cannot decrypt),
    Exists, StoreFull, Degraded.
    """
    wrappers = _wrappers(certificates, passphrase)
    try:
        return _row(ring_of(store).create(owner, wrappers, replacing=replacing))
    except OSError as error:
        raise failure_of(error) from error


def wrap(store: Path, word: str, *, certificates: Sequence[bytes], passphrase: str) -> KeyRow:
    """Have one more open a key; *word*: its id or its owner.  Raises NotFound, and as `create`."""
    ring = ring_of(store)
    document = ring.find(word)
    try:
        for wrapper in _wrappers(certificates, passphrase):
            document = ring.add_wrap(document.key_id, wrapper)
    except OSError as error:
        raise failure_of(error) from error
    return _row(document)


def exported(store: Path, word: str) -> bytes:
    """Return the document of a key, wrapped for those outside the store.  Raises NotFound."""
    return encode_key(ring_of(store).find(word).without_store())


def take_in(store: Path, data: bytes, opening: Opening) -> KeyRow:
    """Take in a key from its document.

    Raises Corrupt (no document), NotAuthenticated (it does not open), StoreFull, Degraded.
    """
    try:
        return _row(ring_of(store).take_in(data, partial(opened, opening=opening)))
    except OSError as error:
        raise failure_of(error) from error


def opened(document: KeyDocument, opening: Opening) -> bytes:
    """Return the data key of a document.  Raises NotAuthenticated, InvalidInput, Corrupt."""
    if opening.private_key:
        password = opening.passphrase.encode() if opening.passphrase else None
        private = load_private_key(opening.private_key, password)
        for candidate in document.wraps:
            if is_for(candidate, private):
                return unwrap_with_private_key(candidate, document.key_id, private)
        raise NotAuthenticated(f"key {document.key_id} is not wrapped for this private key")
    if not opening.passphrase:
        raise InvalidInput("say what opens the key: --private-key PEM or --passphrase")
    phrased = [candidate for candidate in document.wraps if candidate["kind"] == PASSPHRASE]
    for candidate in phrased:
        try:
            return unwrap_with_passphrase(candidate, document.key_id, opening.passphrase)
        except NotAuthenticated:
            continue
    if not phrased:
        raise NotAuthenticated(f"key {document.key_id} is not wrapped for a passphrase")
    raise NotAuthenticated(f"this is not the passphrase of key {document.key_id}")
