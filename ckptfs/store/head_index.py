"""What the heads say in short, kept in one file, so that opening a large store is quick.

    ckptfs heads 2 <base64 Ed25519 signature>\\n
    JSON: job → one row per version

To read and prove 10 000 heads takes 2 to 3 s, to load this file and to stat them 0.1 s.  A row
counts only while its head is the very file that was proved: inode, size, time of writing and time
of change, as git trusts its index.  Whatever does not match, and the whole file when it is torn,
altered or missing, is read from the heads again: nothing depends on this file.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import Corrupt
from ..ids import JobId, Version
from ..model import Initiator, Protocol, Purpose
from . import layout
from .api import Account, Alone
from .superblock import Superblock
from .syscalls import Syscalls, write_durably

MAGIC = b"ckptfs heads 2 "
INDEX_MAX = 1 << 30  # bytes: some 8 million versions
Key = tuple[JobId, Version]
Stamp = tuple[int, int, int, int]  # inode, bytes, ns of the last write, ns of the last change
Row = tuple[Stamp, Account]


def encode_index(rows: Mapping[Key, Row], key: Ed25519PrivateKey) -> bytes:
    """Return the signed document.  Pure."""
    jobs: dict[str, list[list[object]]] = {}
    for (job, version), (stamp, account) in rows.items():
        jobs.setdefault(job, []).append([version, *stamp, *_figures(account)])
    body = json.dumps(jobs, separators=(",", ":")).encode()
    return MAGIC + base64.b64encode(key.sign(body)) + b"\n" + body


def decode_index(document: bytes, key: Ed25519PublicKey) -> dict[Key, Row]:
    """Return the rows in *document*.  Raises Corrupt.  Pure."""
    line, _, body = document.partition(b"\n")
    try:
        if not line.startswith(MAGIC):
            raise Corrupt("the index of the heads is torn or foreign")
        key.verify(base64.b64decode(line[len(MAGIC) :], validate=True), body)
        jobs = cast("dict[str, list[list[Any]]]", json.loads(body))
        return dict(_row(JobId(job), row) for job, rows in jobs.items() for row in rows)
    except (InvalidSignature, binascii.Error):
        raise Corrupt("the index of the heads has been altered") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise Corrupt("the index of the heads does not parse") from error


def stamp_of(found: os.stat_result) -> Stamp:
    """Return what tells a file from any other, and from itself after a change.  Pure."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _figures(account: Account) -> list[object]:
    alone = account.alone
    return [
        account.logical_bytes,
        account.stored_bytes,
        account.purpose,
        account.initiator,
        account.parent,
        account.committed_ns,
        account.frozen_usec,
        account.files,
        account.protocol,
        int(account.keep),
        account.note,
        None if alone is None else [alone.size_bytes, alone.before, alone.after],
    ]


def _row(job: JobId, row: list[Any]) -> tuple[Key, Row]:
    version, inode, size, written, changed, *figures = row
    logical, stored, purpose, initiator, parent, committed, *rest = figures
    frozen, files, protocol, keep, note, alone = rest
    account = Account(
        int(logical),
        int(stored),
        Purpose(purpose),
        Initiator(initiator),
        _version(parent),
        int(committed),
        int(frozen),
        int(files),
        Protocol(protocol),
        bool(keep),
        str(note),
        None if alone is None else Alone(int(alone[0]), _version(alone[1]), _version(alone[2])),
    )
    return (job, Version(int(version))), ((inode, size, written, changed), account)


def _version(number: int | str | None) -> Version | None:
    return None if number is None else Version(int(number))


class HeadIndex:
    """The file of one store."""

    def __init__(self, block: Superblock, calls: Syscalls) -> None:
        self._directory, self._calls, self._key = block.directory, calls, block.signing_key
        self._kept: dict[Key, Row] = {}  # what the file holds, as far as it still counts

    def load(self, jobs: Iterable[JobId]) -> dict[Key, Account]:
        """Return what is kept of heads that are the files they were; nothing in doubt."""
        try:
            document = self._calls.read_file(self._directory / layout.HEAD_INDEX, INDEX_MAX)
            rows = decode_index(document, self._key.public_key())
            stamps = dict(self._stamps(jobs))
        except (OSError, Corrupt):
            return {}
        self._kept = {key: row for key, row in rows.items() if stamps.get(key) == row[0]}
        return {key: account for key, (_, account) in self._kept.items()}

    def save(self, accounts: Mapping[Key, Account]) -> None:
        """Keep *accounts*, all of them from proved heads, if they are others than last time.

        Any thread.  A disk that takes no more is no trouble: the heads are read again then.
        """
        if accounts == {key: account for key, (_, account) in self._kept.items()}:
            return
        with contextlib.suppress(OSError):
            # one that has changed since it was proved keeps its stamp, and is read anew next time
            stamps = dict(self._stamps({job for job, _ in accounts}))
            stamps |= {key: stamp for key, (stamp, _) in self._kept.items()}
            rows = {key: (stamps[key], accounts[key]) for key in accounts if key in stamps}
            document = encode_index(rows, self._key)
            write_durably(self._calls, self._directory / layout.HEAD_INDEX, document)
            self._kept = rows

    def _stamps(self, jobs: Iterable[JobId]) -> Iterator[tuple[Key, Stamp]]:
        for job in jobs:
            for entry in self._calls.scan(self._directory / layout.HEADS / job):
                version = layout.head_version(entry.name)
                if version is not None:
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        yield (job, version), stamp_of(entry.stat(follow_symlinks=False))
