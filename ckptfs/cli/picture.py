"""Figures over time as a PNG.

Pillow draws it: one package without others behind it, 7 MB, and a font.  matplotlib would be
eleven packages and 100 MB for four lines.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from ..errors import CannotRun
from .chart import Panel, positions

WIDTH, HEIGHT = 1000, 190  # pixels of one panel
LEFT, RIGHT, TOP, BOTTOM = 110, 30, 36, 14  # pixels around its frame
TITLE, AXIS = 40, 40  # pixels above and below all panels
POINTS_MAX = 120  # so many versions get a dot each
SCALE = 2  # drawn larger, then made smaller: Pillow's lines have no soft edges
PAPER, INK, GRID, FAINT = "#ffffff", "#222222", "#dddddd", "#777777"
LINES = ("#1f6fb4", "#d1702a", "#2a8f4f", "#8a4fb0")


def png(
    panels: Sequence[Panel], times: Sequence[float], title: str, ends: tuple[str, str]
) -> bytes:
    """Return the picture: *panels* one below the other, *ends* below the last.

    Raises CannotRun where Pillow is missing.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise CannotRun(
            "a picture needs the Python package pillow; without -o it is drawn as text"
        ) from None
    size = (WIDTH, TITLE + len(panels) * HEIGHT + AXIS)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=14 * SCALE)
    left, right = LEFT * SCALE, (WIDTH - RIGHT) * SCALE

    def write(x: float, y: float, text: str, *, anchor: str = "ls", fill: str = INK) -> None:
        draw.text((x, y), text, fill=fill, font=font, anchor=anchor)

    write(left, 26 * SCALE, title)
    xs = [left + x for x in positions(times, right - left + 1)]
    for number, panel in enumerate(panels):
        upper = (TITLE + number * HEIGHT + TOP) * SCALE
        lower = (TITLE + (number + 1) * HEIGHT - BOTTOM) * SCALE
        write(left, upper - 8 * SCALE, panel.title)
        for share in (0, 0.5, 1):
            y = lower - share * (lower - upper)
            draw.line([(left, y), (right, y)], fill=GRID, width=SCALE)
            write(left - 8 * SCALE, y, panel.text(panel.top * share), anchor="rm", fill=FAINT)
        points = [
            (x, lower - value / panel.top * (lower - upper))
            for x, value in zip(xs, panel.values, strict=True)
        ]
        color = LINES[number % len(LINES)]
        draw.line(points, fill=color, width=2 * SCALE, joint="curve")
        for x, y in points if len(points) <= POINTS_MAX else ():
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=color)
    below = (size[1] - AXIS + 20) * SCALE
    write(left, below, ends[0], fill=FAINT)
    write(right, below, ends[1] if len(times) > 1 else "", anchor="rs", fill=FAINT)
    data = io.BytesIO()
    image.resize(size, Image.Resampling.BOX).save(data, "PNG", optimize=True)
    return data.getvalue()
