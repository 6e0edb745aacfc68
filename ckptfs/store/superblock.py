"""What makes a directory a store: FORMAT, the keys, the lock.

FORMAT is JSON: format number, store id, and three lists of feature flags.  A
*mandatory* flag that is not known here is refused by name.  The signing key
proves heads; the page secret seeds the page hash, so that nobody outside can
make two pages collide.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..errors import Busy, CannotRun, Corrupt, NotADirectory, NotEmpty, NotFound
from . import layout
from .syscalls import Syscalls, write_durably

FORMAT_NUMBER = 1
MANDATORY = frozenset({"pages-4096-xxh3", "heads-ed25519"})
SPARSE = "packs-sparse"  # packs without their dead pages: an older ckptfs takes them for damaged
KNOWN = MANDATORY | {SPARSE}
FORMAT_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Superblock:
    """An opened store directory.  *lock_fd* holds the store against a second daemon."""

    directory: Path
    store_id: str
    signing_key: Ed25519PrivateKey
    page_seed: int
    epoch: int  # the collector's fence
    lock_fd: int = -1
    more_locks: list[int] = field(default_factory=list[int])  # see `demand`

    def unlock(self) -> None:
        """Let go of the store.  Once."""
        for fd in [self.lock_fd, *self.more_locks]:
            os.close(fd)


def create_store(directory: Path, calls: Syscalls) -> None:
    """Make an empty store.  FORMAT is written last: before it, there is no store.

    Raises NotEmpty when something else lies there, NotADirectory, OSError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectory(f"{error.filename or directory} is not a directory") from error
    strangers = {entry.name for entry in calls.scan(directory)} - _own_names()
    if strangers:
        raise NotEmpty(f"{directory} is not a store and not empty: it holds {min(strangers)!r}")
    for name in layout.DIRECTORIES:
        for part in [*reversed(Path(name).parents), Path(name)][1:]:
            calls.mkdir(directory / part)
    for place in sorted({(directory / name).parent for name in layout.DIRECTORIES}):
        calls.fsync_directory(place)  # a FORMAT without its directories would be a broken store
    keys = directory / layout.KEYS
    write_durably(calls, keys / "signing.key", secrets.token_hex(32).encode(), mode=0o600)
    write_durably(calls, keys / "pages.key", secrets.token_hex(8).encode(), mode=0o600)
    document = {
        "format": FORMAT_NUMBER,
        "store": secrets.token_hex(16),
        "mandatory": sorted(KNOWN),
        "optional": [],
        "epoch": 0,
    }
    text = json.dumps(document, indent=1).encode() + b"\n"
    write_durably(calls, directory / layout.FORMAT, text, mode=0o444)
    calls.fsync_directory(directory.parent)


def _own_names() -> set[str]:
    parts = {name.partition("/")[0] for name in layout.DIRECTORIES}
    return parts | {f".{layout.FORMAT}.tmp", "jobs", "logs", "catalog.db", "lost+found"}


def open_superblock(directory: Path, calls: Syscalls, *, lock: bool) -> Superblock:
    """Read FORMAT and the keys; with *lock* hold the store for this process.

    Raises NotFound (no store), Corrupt, CannotRun (unknown format or flag), Busy (another daemon).
    """
    path = directory / layout.FORMAT
    try:
        raw = calls.read_file(path, FORMAT_MAX)
    except FileNotFoundError:
        raise NotFound(f"there is no store in {directory}") from None
    store_id, epoch = parse_format(raw)
    key = Ed25519PrivateKey.from_private_bytes(_secret(directory, "signing.key", 32, calls))
    seed = int.from_bytes(_secret(directory, "pages.key", 8, calls), "little")
    return Superblock(directory, store_id, key, seed, epoch, _lock(path) if lock else -1)


def parse_format(raw: bytes) -> tuple[str, int]:
    """Return (store id, epoch) of a FORMAT document.  Raises Corrupt, CannotRun.  Pure."""
    try:
        document = cast("dict[str, Any]", json.loads(raw))
        number, store_id = int(document["format"]), str(document["store"])
        epoch = int(document.get("epoch", 0))
        flags = {str(flag) for flag in document["mandatory"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            "FORMAT does not parse; put back a copy, the store itself may be whole"
        ) from error
    if number != FORMAT_NUMBER:
        raise CannotRun(f"the store has format {number}, this ckptfs reads format {FORMAT_NUMBER}")
    if unknown := sorted(flags - KNOWN):
        raise CannotRun(f"the store needs {', '.join(unknown)}, which this ckptfs does not know")
    return store_id, epoch


def demand(block: Superblock, calls: Syscalls, flag: str) -> None:
    """Have FORMAT name *flag* as mandatory, durably, before anything needs it.  May be repeated.

    For stores made before there was the flag.  *block* is locked, and stays so: the new file is
    locked before it takes the place of the old one.  Raises Corrupt, OSError.
    """
    path = block.directory / layout.FORMAT
    raw = calls.read_file(path, FORMAT_MAX)
    parse_format(raw)
    document = cast("dict[str, Any]", json.loads(raw))
    if flag in document["mandatory"]:
        return
    document["mandatory"] = sorted({*document["mandatory"], flag})
    temporary = path.with_name(f".{path.name}.tmp")
    calls.unlink(temporary)
    fd = calls.create(temporary, mode=0o444)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        calls.pwrite(fd, json.dumps(document, indent=1).encode() + b"\n", 0)
        calls.fsync(fd)
        calls.rename(temporary, path)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            calls.unlink(temporary)
        raise
    block.more_locks.append(fd)
    calls.fsync_directory(path.parent)


def _secret(directory: Path, name: str, size: int, calls: Syscalls) -> bytes:
    try:
        secret = bytes.fromhex(
            calls.read_file(directory / layout.KEYS / name, 1 << 10).decode("ascii")
        )
    except (FileNotFoundError, ValueError) as error:
        raise Corrupt(f"keys/{name} of the store is missing or damaged") from error
    if len(secret) != size:
        raise Corrupt(f"keys/{name} of the store is damaged")
    return secret


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Busy(f"another ckptfs has the store {path.parent} open") from None
    return fd
