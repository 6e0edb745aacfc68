"""``volumes.json`` of a store: which volumes take copies.  Pure: text in, rows out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..errors import Corrupt, InvalidInput
from .small_record import decode_small, encode_small

FILE = "volumes.json"
FILE_MAX = 1 << 20
LOCAL = "local"
PLAIN, COMPRESS, ENCRYPT = "plain", "compress", "encrypt"  # how copies lie on a volume
SEALS = (PLAIN, COMPRESS, ENCRYPT)  # encrypt compresses as well
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One volume, as it is remembered."""

    name: str
    directory: str  # absolute
    domain: str
    volume_id: str  # of its VOLUME file
    draining: bool = False
    seal: str = PLAIN


def check_word(text: str, what: str) -> str:
    """Return *text* when it may name a volume or a domain.  Raises InvalidInput."""
    if not _WORD.match(text):
        raise InvalidInput(f"{what} is up to 32 letters, digits, _ . -, not {text!r}")
    return text


def check_seal(text: str) -> str:
    """Return *text* when copies may be kept that way.  Raises InvalidInput."""
    if text not in SEALS:
        raise InvalidInput(f"copies are {', '.join(SEALS)}, not {text!r}")
    return text


def encode_volumes(records: Iterable[VolumeRecord]) -> bytes:
    """Return the document."""
    rows = [asdict(record) for record in records]
    return encode_small({"format": 1, "volumes": rows})


def decode_volumes(document: bytes) -> list[VolumeRecord]:
    """Return the rows; none for an empty document.  Raises Corrupt."""
    if not document:
        return []
    try:
        read = decode_small(document)
        if read["format"] != 1:
            raise Corrupt(f"{FILE} has format {read['format']}; upgrade ckptfs")
        return [
            VolumeRecord(
                check_word(str(row["name"]), "a volume's name"),
                str(row["directory"]),
                check_word(str(row["domain"]), "a domain"),
                str(row["volume_id"]),
                bool(row["draining"]),
                check_seal(str(row.get("seal", PLAIN))),
            )
            for row in read["volumes"]
        ]
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise Corrupt(f"{FILE} does not parse") from error
