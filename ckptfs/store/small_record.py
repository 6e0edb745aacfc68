"""Small JSON records that prove themselves: a changed bit is found, and does not change a meaning.

A record without a digest is one of an older ckptfs and is taken as it is.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import blake3

DIGEST = "digest"
_HEX = 32  # digits of the BLAKE3 that are kept


def encode_small(row: Mapping[str, object]) -> bytes:
    """Return the document of a record."""
    return json.dumps({**row, DIGEST: _digest(row)}).encode() + b"\n"


def decode_small(document: bytes) -> dict[str, Any]:
    """Return the record.  Raises ValueError: it does not parse, or does not match its digest."""
    row = cast("object", json.loads(document))
    if not isinstance(row, dict):
        raise ValueError("it is no record")
    found = cast("dict[str, Any]", row)
    digest = found.pop(DIGEST, None)
    if digest is not None and digest != _digest(found):
        raise ValueError("it does not match its digest")
    return found


def _digest(row: Mapping[str, object]) -> str:
    return blake3.blake3(json.dumps(row, sort_keys=True).encode()).hexdigest()[:_HEX]
