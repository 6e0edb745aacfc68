"""Figures over time as text: one panel each, drawn with braille dots or with asterisks.  Pure.

Two by four dots a character: a terminal of 80 columns shows 138 steps of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

HEIGHT = 4  # lines of a panel below its title
LABELS = 11  # characters left of it
NARROWEST = 10  # characters of a panel
ACROSS, DOWN = 2, 4  # dots of one character
BLANK = 0x2800  # U+2800, the first braille character
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] → bit


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a value for each point of time.  *text* renders a value."""

    title: str
    values: tuple[float, ...]
    text: Callable[[float], str]

    @property
    def top(self) -> float:
        """Return what the upper end stands for; the lower one is always 0."""
        return max(self.values, default=0) or 1


def positions(times: Sequence[float], steps: int) -> list[int]:
    """Return where *times*, ascending, lie on *steps* places from the first to the last."""
    span = times[-1] - times[0] if times else 0
    return [round((at - times[0]) / span * (steps - 1)) if span else 0 for at in times]


def panel_lines(
    panel: Panel, times: Sequence[float], width: int, *, braille: bool = True
) -> Iterator[str]:
    """Yield a title and `HEIGHT` lines of at most *width* characters."""
    columns = max(NARROWEST, width - LABELS)
    rows = HEIGHT * DOWN
    xs = positions(times, columns * ACROSS)
    ys = [rows - 1 - round(value / panel.top * (rows - 1)) for value in panel.values]
    cells = [[0] * columns for _ in range(HEIGHT)]
    for x, y in _dots(list(zip(xs, ys, strict=True))):
        cells[y // DOWN][x // ACROSS] |= DOTS[y % DOWN][x % ACROSS]
    last = f", last {panel.text(panel.values[-1])}" if panel.values else ""
    yield f"{panel.title}{last}"[:width]
    ends = {0: panel.text(panel.top), HEIGHT - 1: panel.text(0)}
    for number, row in enumerate(cells):
        drawn = "".join(_character(bits, braille=braille) for bits in row)
        yield f"{ends.get(number, ''):>{LABELS - 2}} {'│' if braille else '|'}{drawn}".rstrip()


def axis_line(first: str, last: str, width: int) -> str:
    """Return what stands below the panels: what begins on the left and ends on the right."""
    room = max(NARROWEST, width - LABELS) - len(first)
    return " " * LABELS + first + (last.rjust(room) if last and room > len(last) else "")


def _character(bits: int, *, braille: bool) -> str:
    if braille:
        return chr(BLANK + bits) if bits else " "
    return "*" if bits else " "


def _dots(points: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield every dot of the line through *points*."""
    if len(points) == 1:
        yield points[0]
    for (x1, y1), (x2, y2) in pairwise(points):
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for step in range(steps + 1):
            yield x1 + round((x2 - x1) * step / steps), y1 + round((y2 - y1) * step / steps)
