"""How the commands print sizes, ages and tables.  Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
AGE_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))  # seconds, letter
CELL_WIDTH = 50  # characters, of a cell that may hold a sentence

# What a terminal would act on: C0, DEL, C1, and bytes that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return *text* with all that a terminal would act on spelled out: names may be hostile."""
    return _UNPRINTABLE.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def size_text(size_bytes: int) -> str:
    """Return a size for people: ``512 B``, ``1.5 MiB``."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(SIZE_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{size:.1f} {SIZE_UNITS[unit]}"


def clipped(text: str, width: int = CELL_WIDTH) -> str:
    """Return *text* cut to *width* characters: a long reason must not tear a table apart."""
    return text if len(text) <= width else text[: width - 1] + "…"


def age_text(age_s: float) -> str:
    """Return an age for people in its largest unit: ``12s``, ``5m``, ``3h``, ``2d``."""
    for seconds, letter in AGE_UNITS:
        if age_s >= seconds:
            return f"{int(age_s // seconds)}{letter}"
    return f"{max(0, int(age_s))}s"


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned columns under *header*, one row per line, no blanks at line ends."""
    cells = [[clipped(printable(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)
