"""Sizes as people write them: ``4096``, ``10G``.  Pure; also used by the commands."""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidInput, OutOfRange

SIZE_MAX: Final = 1 << 60  # bytes
MULTIPLES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
DIGITS: Final = 19


def parse_size(text: str) -> int:
    """Return ``10G`` or ``4096`` in bytes.  Raises InvalidInput, OutOfRange.  Pure."""
    match = re.fullmatch(r"([0-9]+)([KMGTP]?)", text, re.ASCII)
    if not match:
        raise InvalidInput(f"a size is a number, with K, M, G, T or P, not {text[:40]!a}")
    if len(match[1]) > DIGITS or int(match[1]) * MULTIPLES[match[2]] > SIZE_MAX:
        raise OutOfRange(f"{text[:40]} is more than {SIZE_MAX} bytes")
    return int(match[1]) * MULTIPLES[match[2]]
