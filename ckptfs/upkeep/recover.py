"""`ckptfs recover`: a store from a volume of copies, on any machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Busy, CkptfsError, Corrupt, InvalidInput, NotAuthenticated
from ..store import layout
from ..store.copies_record import ENCRYPT, PLAIN
from ..store.copy_volume import CopyVolume, read_marker
from ..store.key_documents import DOCUMENT_MAX, KeyDocument, decode_key
from ..store.keyring import KeyRing
from ..store.packs import failure_of
from ..store.recovering import Recovery
from ..store.sealed_volume import KEYS, SealedVolume
from ..store.superblock import create_store, open_superblock
from ..store.syscalls import Syscalls, write_durably
from .keys import Opening, opened

ORIGIN = "recovered.json"  # of which store the versions are: two stores are never mixed
ORIGIN_MAX = 1 << 12
DOMAIN = "recovered"


@dataclass(slots=True)
class Recovered:
    """What came of it: versions, keys that were taken in, and a sentence for each that was not."""

    versions: int = 0
    keys: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    is_proved: bool = True  # whether the copies prove who wrote them


def recover(
    volume: Path,
    store: Path,
    opening: Opening,
    *,
    progress: Callable[[float], None],
    calls: Syscalls | None = None,
) -> Recovered:
    """Bring the versions on *volume* into *store*, which is made when it is not there.

    May be repeated: what is there already stays, and another owner's key brings more.
    Raises NotFound (no volume), InvalidInput (they lie in each other), NotEmpty, Busy (in use, or
    a store with other versions), CannotRun, Corrupt, NotAuthenticated, StoreFull, Degraded.
    """
    calls = calls or Syscalls()
    volume, store = volume.resolve(), store.resolve()
    if volume.is_relative_to(store) or store.is_relative_to(volume):
        raise InvalidInput(f"{volume} and {store} lie in each other")
    try:
        origin, _, seal = read_marker(volume, calls)
        if not (store / "FORMAT").exists():
            create_store(store, calls)
        block = open_superblock(store, calls, lock=True)
        try:
            _check_origin(store, origin, calls)
            found = Recovered(is_proved=seal == ENCRYPT)
            ring = KeyRing(store, calls)
            if seal == ENCRYPT:
                _take_keys(volume, ring, opening, found, calls)
            source = (
                CopyVolume(volume, calls, DOMAIN)
                if seal == PLAIN
                else SealedVolume(volume, calls, DOMAIN, seal, ring)
            )
            work = Recovery(block, calls, source, progress)
            work.run()
        finally:
            os.close(block.lock_fd)
    except PermissionError as error:
        raise NotAuthenticated(f"{error.filename}: permission denied; use sudo") from error
    except OSError as error:
        raise failure_of(error) from error
    found.versions = len(work.recovered)
    found.lost += work.lost
    return found


def _check_origin(store: Path, origin: str, calls: Syscalls) -> None:
    """Make sure that nothing but versions of the store *origin* gets into *store*."""
    try:
        row = json.loads(calls.read_file(store / ORIGIN, ORIGIN_MAX))
        is_same = row["store"] == origin
    except FileNotFoundError:
        is_same = not any(calls.scan(store / layout.HEADS))
        if is_same:
            document = json.dumps({"store": origin}).encode() + b"\n"
            write_durably(calls, store / ORIGIN, document)
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{store / ORIGIN} does not parse") from error
    if not is_same:
        raise Busy(f"{store} has versions of another store; recover into a new directory")


def _take_keys(
    volume: Path, ring: KeyRing, opening: Opening, found: Recovered, calls: Syscalls
) -> None:
    """Take in the keys beside the copies that *opening* opens, when it opens any."""
    for entry in sorted(calls.scan(volume / KEYS), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        try:
            data = calls.read_file(Path(entry.path), DOCUMENT_MAX + 1)
            document = decode_key(data, entry.path)
            if _is_here(ring, document):
                continue
            if opening.private_key or opening.passphrase:
                ring.take_in(data, lambda document: opened(document, opening))
                found.keys.append(f"{document.key_id} of {document.owner}")
        except CkptfsError as error:
            found.lost.append(str(error))


def _is_here(ring: KeyRing, document: KeyDocument) -> bool:
    try:
        ring.open(document.key_id)
    except CkptfsError:
        return False
    return True
