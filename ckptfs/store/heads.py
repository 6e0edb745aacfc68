"""Heads: the commit record of a version as a signed, self-verifying document.  Pure.

    ckptfs head 1 <base64 Ed25519 signature>\\n
    JSON

The signature is over the JSON.  A torn, foreign, altered or misplaced head
does not verify, and is no head.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import Corrupt
from ..ids import JobId, UnitName, Version
from ..model import FileEntry, Head, Initiator, Owner, Protocol, Purpose

MAGIC = b"ckptfs head 1 "
HEAD_MAX = 64 << 20  # bytes: some 300 000 files


def encode_head(head: Head, key: Ed25519PrivateKey) -> bytes:
    """Return the signed document."""
    body = json.dumps(dataclasses.asdict(head), sort_keys=True, separators=(",", ":")).encode()
    return MAGIC + base64.b64encode(key.sign(body)) + b"\n" + body


def decode_head(document: bytes, key: Ed25519PublicKey, job: JobId, version: Version) -> Head:
    """Return the head in *document*, which must be that of *version* of *job*.  Raises Corrupt."""
    line, _, body = document.partition(b"\n")
    what = f"the head of version {version} of {job}"
    if not line.startswith(MAGIC):
        raise Corrupt(f"{what} is torn or foreign")
    try:
        key.verify(base64.b64decode(line[len(MAGIC) :], validate=True), body)
    except (InvalidSignature, ValueError):
        raise Corrupt(f"{what} has been altered: its signature does not match") from None
    return parse_head(document, job, version)


def parse_head(document: bytes, job: JobId, version: Version) -> Head:
    """Return the head in *document*, as `decode_head`, but whoever signed it.  Raises Corrupt."""
    line, _, body = document.partition(b"\n")
    what = f"the head of version {version} of {job}"
    if not line.startswith(MAGIC):
        raise Corrupt(f"{what} is torn or foreign")
    try:
        head = _to_head(cast("dict[str, Any]", json.loads(body)))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{what} does not parse") from error
    if (head.job, head.version) != (job, version):
        raise Corrupt(f"{what} is the head of version {head.version} of {head.job}, moved here")
    return head


def _to_head(row: dict[str, Any]) -> Head:
    owner = row["owner"]
    parent = row["parent"]
    files = tuple(
        FileEntry(UnitName(f["unit"]), f["name"], f["size_bytes"], f["blake3"], f["manifest"])
        for f in row["files"]
    )
    changed: dict[str, Any] = {
        "job": JobId(row["job"]),
        "version": Version(row["version"]),
        "owner": Owner(owner["uid"], owner["gid"], tuple(owner["groups"]), owner["user"]),
        "purpose": Purpose(row["purpose"]),
        "initiator": Initiator(row["initiator"]),
        "protocol": Protocol(row["protocol"]),
        "files": files,
        "parent": None if parent is None else Version(parent),
    }
    return Head(**(row | changed))
