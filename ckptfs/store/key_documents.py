"""The document of one data key: whose it is, and the key wrapped for each who may open it.  Pure.

It holds no secret in the clear.  The one in the store bears a wrap for the store itself; what is
exported, and laid beside sealed copies, does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from ..errors import Corrupt, InvalidInput
from .key_wrapping import CERTIFICATE, PASSPHRASE, STORE, Wrap

FORMAT = 1
DOCUMENT_MAX = 1 << 16  # bytes
WRAPS_MAX = 16
OWNER_MAX = 255  # characters
_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class KeyDocument:
    """One data key.  *is_active*: new copies of its owner's versions are sealed with it."""

    key_id: str  # 32 hex digits
    owner: str  # global user id, as in heads
    created_ns: int
    is_active: bool
    wraps: tuple[Wrap, ...]

    def without_store(self) -> KeyDocument:
        """Return what may leave the store."""
        return replace(self, wraps=tuple(wrap for wrap in self.wraps if wrap["kind"] != STORE))

    def with_store(self, wrap: Wrap) -> KeyDocument:
        """Return the document with the store's wrap replaced."""
        return replace(self, wraps=(wrap, *self.without_store().wraps))

    def openers(self) -> list[str]:
        """Return who outside the store can open it, as words for a person."""
        return [_opener(wrap) for wrap in self.wraps if wrap["kind"] != STORE]


def _opener(wrap: Wrap) -> str:
    if wrap["kind"] == PASSPHRASE:
        return PASSPHRASE
    return f"certificate {wrap.get('subject', '')} ({wrap.get('spki', '')[:16]})"


def check_id(text: str) -> str:
    """Return *text* when it may be the id of a key.  Raises InvalidInput."""
    if not _ID.match(text):
        raise InvalidInput(f"the id of a key is 32 hex digits, not {text!r}")
    return text


def check_owner(text: str) -> str:
    """Return *text* when it may name an owner.  Raises InvalidInput."""
    if not text or len(text) > OWNER_MAX or not text.isprintable():
        raise InvalidInput("an owner is a user's name as `ckptfs ls -l` shows it")
    return text


def encode_key(document: KeyDocument) -> bytes:
    """Return the JSON."""
    row = {
        "format": FORMAT,
        "key": document.key_id,
        "owner": document.owner,
        "created_ns": document.created_ns,
        "active": document.is_active,
        "wraps": [dict(wrap) for wrap in document.wraps],
    }
    return json.dumps(row, indent=1).encode() + b"\n"


def decode_key(data: bytes, what: str) -> KeyDocument:
    """Return the document in *data*.  Raises Corrupt naming *what*."""
    try:
        row = cast("dict[str, Any]", json.loads(data[:DOCUMENT_MAX]))
        if row["format"] != FORMAT:
            raise Corrupt(f"{what} has format {row['format']}; upgrade ckptfs")
        wraps = cast("list[dict[str, Any]]", row["wraps"])
        return KeyDocument(
            check_id(str(row["key"])),
            check_owner(str(row["owner"])),
            int(row["created_ns"]),
            bool(row["active"]),
            tuple(_wrap(wrap) for wrap in wraps[:WRAPS_MAX]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise Corrupt(f"{what} is not the document of a key") from error


def _wrap(row: Mapping[str, Any]) -> Wrap:
    wrap = {str(name): str(value) for name, value in row.items()}
    if wrap["kind"] not in {STORE, PASSPHRASE, CERTIFICATE}:
        raise ValueError(wrap["kind"])
    return wrap
