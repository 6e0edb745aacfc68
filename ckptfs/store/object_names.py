"""Names of many objects in one array, 20 bytes each.  Pure.

A million take 20 MB, where strings take 90, and are freed at once.  numpy sorts, searches and
compares them while others have the interpreter; a single operation on a set of a million strings
keeps it for 20 to 115 ms, and then nobody's request is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .pack_format import ID_SIZE

Names = npt.NDArray[np.bytes_]  # of a function's *table*: sorted
_DTYPE = np.dtype(f"S{ID_SIZE}")
_DIGITS = 2 * ID_SIZE
NO_NAMES: Names = np.empty(0, dtype=_DTYPE)


def names_of(texts: Sequence[str]) -> Names:
    """Return *texts* as an array in their order.  Raises ValueError on what is no object's name."""
    digits = "".join(texts)
    data = bytes.fromhex(digits)
    if data.hex() != digits or set(map(len, texts)) - {_DIGITS}:
        raise ValueError("the name of an object is 40 small hexadecimal digits")
    return np.frombuffer(data, dtype=_DTYPE) if data else NO_NAMES


def texts_of(names: Names) -> list[str]:
    """Return *names* as text, in their order."""
    digits = names.tobytes().hex()
    return [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]


def joined(parts: Iterable[Names]) -> Names:
    """Return all *parts*, one after the other.

    Piece by piece: one concatenation of 40 MB keeps the interpreter for 50 ms.
    """
    parts = list(parts)
    names = np.empty(sum(map(len, parts)), dtype=_DTYPE)
    at = 0
    for part in parts:
        names[at : at + len(part)] = part
        at += len(part)
    return names


def firsts(names: Names) -> npt.NDArray[np.bool_]:
    """Return which of sorted *names* are not like the one before."""
    found = np.ones(len(names), dtype=np.bool_)
    found[1:] = names[1:] != names[:-1]
    return found


def each_once(names: Names) -> Names:
    """Return *names* sorted, each once."""
    names = np.sort(names)
    return names[firsts(names)]


def positions(names: Names, table: Names) -> npt.NDArray[np.intp]:
    """Return where each of *names* is in *table*, which has each once; -1 where it is not."""
    if not len(table):
        return np.full(len(names), -1, dtype=np.intp)
    at = np.searchsorted(table, names)
    at[at == len(table)] = 0
    at[table[at] != names] = -1
    return at


def among(names: Names, table: Names) -> npt.NDArray[np.bool_]:
    """Return which of *names* are in *table*."""
    return positions(names, table) >= 0


def without(table: Names, names: Names) -> Names:
    """Return *table* less *names*, a few."""
    at = positions(names, table)
    return np.delete(table, at[at >= 0])
